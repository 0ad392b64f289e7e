"""Messages of clusters for the status page, large and small."""

import math
import struct

from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2 as types

F32 = types.DTYPE_FLOAT32
START = 1_700_000_000


def worker(index, state=pb.WorkerNode.STATE_READY, deployment="", rank=0,
           name=None):
    node = pb.WorkerNode(
        name=f"workers/{name or f'w{index}'}", uid=f"u{index}", state=state,
        address=f"10.0.{index // 250}.{index % 250}:7000", device="cpu",
        incarnation=index + 1, deployment=deployment, rank=rank)
    node.state_time.seconds = START + index
    return node


def workers(count, deployment="", serving=0):
    """`count` workers: the first `serving` are a gang's, some are not well."""
    bad = {7: pb.WorkerNode.STATE_DRAINING, 11: pb.WorkerNode.STATE_LOST,
           13: pb.WorkerNode.STATE_RETIRED}
    out = []
    for i in range(count):
        serves = i < serving
        state = pb.WorkerNode.STATE_READY if serves else bad.get(
            i % 100, pb.WorkerNode.STATE_READY)
        out.append(worker(i, state, deployment if serves else "",
                          i if serves else 0))
    return out


def event(number, reason, resource, message, warning=False):
    out = pb.Event(name=f"events/{number:08d}", reason=reason,
                   resource=resource, message=message,
                   severity=pb.Event.SEVERITY_WARNING if warning
                   else pb.Event.SEVERITY_NORMAL)
    out.create_time.seconds = START + number
    return out


def operation(number, resource, percent):
    total = 1 << 30
    out = pb.Operation(
        name=f"operations/o{number}", kind=pb.Operation.KIND_MATERIALIZE,
        resource=resource, percent=percent, bytes_total=total,
        bytes_done=int(total * percent / 100), phase="placing parameters",
        state=pb.Operation.STATE_SUCCEEDED if percent == 100
        else pb.Operation.STATE_RUNNING)
    out.create_time.seconds = START
    return out


def replicate():
    return types.Placement(replicate=types.Replicate())


def shard(dim, blocks=()):
    return types.Placement(shard=types.Shard(dim=dim, blocks=[
        types.Shard.Block(size=size, unit=unit, replicas=replicas)
        for size, unit, replicas in blocks]))


def placement_text(placement):
    kind = placement.WhichOneof("kind")
    return {"replicate": "R", "shard": f"S({placement.shard.dim})",
            "partial": "P(sum)"}[kind]


def parameter(name, shape, placements, cut_order=()):
    return types.Assignment.ParameterPlacement(
        name=name, type=types.TensorType(dtype=F32, shape=shape),
        spec=types.DTensorSpec(placements=placements, cut_order=cut_order),
        text="[%s]" % ", ".join(map(placement_text, placements)))


def step(deployment, number, loss=None, timed=True):
    out = pb.StepResult(name=f"{deployment}/steps/{number}", number=number,
                        duration_seconds=.05 + .01 * math.sin(number))
    value = 4 / (1 + number / 40) + .1 * math.sin(number) \
        if loss is None else loss
    out.loss.type.dtype = F32
    out.loss.inline = struct.pack("<f", value)
    if timed:
        out.timing.run_seconds = .03
        out.timing.collective_seconds = .012
        out.timing.commit_call_seconds = .006
    return out


# Colwise, rowwise and whole parameters of one layer: name, module, shape,
# tensor dim that tp cuts, style.
LAYER = (("attention.wq", (64, 64), 0, "ColwiseParallel"),
         ("attention.wk", (16, 64), 0, "ColwiseParallel"),
         ("attention.wv", (16, 64), 0, "ColwiseParallel"),
         ("attention.wo", (64, 64), 1, "RowwiseParallel"),
         ("mlp.gate", (172, 64), 0, "ColwiseParallel"),
         ("mlp.up", (172, 64), 0, "ColwiseParallel"),
         ("mlp.down", (64, 172), 1, "RowwiseParallel"),
         ("norm1", (64,), None, None), ("norm2", (64,), None, None))
REASONS = (("attention.wo", "forward", "all_reduce", "sum of a rowwise linear"),
           ("mlp.down", "forward", "all_reduce", "sum of a rowwise linear"),
           ("attention", "backward", "all_reduce", "gradient of an input"),
           ("mlp", "backward", "all_reduce", "gradient of an input"))


def _place(dim, data_parallel):
    return ([replicate()] if data_parallel else []) + [
        replicate() if dim is None else shard(dim)]


def _layer(deployment, index, data_parallel):
    prefix = f"layers.{index}"
    for fqn in (prefix, f"{prefix}.attention", f"{prefix}.mlp"):
        deployment.module.modules.add(fqn=fqn, type="model.Block")
    for name, shape, dim, style in LAYER:
        fqn = f"{prefix}.{name}"
        deployment.module.modules.add(
            fqn=fqn, type="torch.nn.Linear" if style else "torch.nn.RMSNorm")
        weight = parameter(f"{fqn}.weight", shape, _place(dim, data_parallel))
        deployment.report.parameters.append(weight)
        if style:
            deployment.report.assignments.add(
                fqn=fqn, style=style, pattern=f"layers.*.{name}",
                module_type="torch.nn.Linear", parameters=[weight])
    for name, phase, kind, why in REASONS:
        deployment.report.module_collectives.add(
            fqn=f"{prefix}.{name}", phase=phase, kind=kind, mesh_dim="tp",
            count=1, bytes=1 << 16, why=why)


def deployment(layers=126, tp=8, dp=2, name="deployments/llm"):
    """A decoder of so many layers on a mesh, with its report."""
    out = pb.Deployment(name=name, uid="uid-" + name,
                        state=pb.Deployment.STATE_READY, epoch=7,
                        plan_mesh_dim="tp")
    out.create_time.seconds = START
    if dp:
        out.mesh.dims.add(name="dp", size=dp)
    out.mesh.dims.add(name="tp", size=tp)
    out.workers.extend(f"workers/w{i}" for i in range(tp * max(dp, 1)))
    for fqn, kind in (("", "model.Decoder"), ("embedding", "nn.Embedding"),
                      ("layers", "nn.ModuleList")):
        out.module.modules.add(fqn=fqn, type=kind)
    out.report.parameters.append(parameter(
        "embedding.weight", (1000, 64), _place(0, dp)))
    for index in range(layers):
        _layer(out, index, dp)
    out.module.modules.add(fqn="norm", type="nn.RMSNorm")
    out.module.modules.add(fqn="head", type="nn.Linear")
    out.report.parameters.append(parameter("norm.weight", (64,),
                                           _place(None, dp)))
    out.report.parameters.append(parameter("head.weight", (1000, 64),
                                           _place(0, dp)))
    for name_, _, _, style in LAYER:
        if style:
            entry = out.plan.entries.add(pattern=f"layers.*.{name_}")
            getattr(entry.value.style, style.removesuffix("Parallel")
                    .lower()).SetInParent()
    out.report.diagnostics.add(
        severity=types.SEVERITY_WARNING, reason="PATTERN_WITHOUT_MATCH",
        pattern="layers.*.w4", message="pattern \"layers.*.w4\" matches no "
        "module; did you mean \"layers.*.mlp\"?")
    for phase in ("forward", "backward"):
        out.report.collectives.add(phase=phase, kind="all_reduce",
                                   count=2 * layers, bytes=layers << 17)
    for rank in range(tp * max(dp, 1)):
        out.report.memory.add(
            rank=rank, parameter_bytes=1 << 24, gradient_bytes=1 << 24,
            buffer_bytes=0, peak_activation_bytes=1 << 22,
            peak_run_bytes=(1 << 22) + (1 << 20) * (rank % tp == 0))
    return out


def program(parent):
    out = pb.Program(name=f"{parent}/programs/p1", uid="p", has_loss=True)
    for specs, shape in ((out.inputs, (8, 128)), (out.outputs, (8, 128, 1000))):
        spec = specs.add()
        spec.type.dtype = F32
        spec.type.shape.extend(shape)
    return out


def fill(fake, count=24, layers=4, steps=120):
    """A cluster with a deployment that trains, on a fake coordinator."""
    large = deployment(layers=layers)
    large.last_step = steps
    own = program(large.name)
    own.report.CopyFrom(large.report)
    fake.put("workers", *workers(count, large.name, serving=16))
    fake.deploy(large, [own],
                [step(large.name, n) for n in range(1, steps + 1)])
    fake.put("operations", operation(1, large.name, 100),
             operation(2, "deployments/next", 40))
    fake.put("events",
             event(1, "DEPLOYMENT_READY", large.name, "It is ready."),
             event(2, "WORKER_LOST", "workers/w17",
                   "Its lease ran out.", warning=True))
    return large
