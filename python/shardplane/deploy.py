"""parallelize_module: from a module to a deployment that is ready."""

import inspect
import warnings

from shardplane import mesh as meshes
from shardplane import plan as plans
from shardplane.data_parallel import to_proto_data_parallel
from shardplane.description import is_description
from shardplane.errors import PlanTypeError, invalid
from shardplane.explanation import explainer
from shardplane.handle import DeployedModule
from shardplane.link_costs import to_proto_link_costs
from shardplane.old_api import implied_data_parallel, with_loss_parallel
from shardplane.overlap import to_proto_overlap
from shardplane.report import Report
from shardplane.rpc import request_id
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.weights import as_weights


def _source(module, weights):
    """What the module is made of; torch is imported where it is torch's."""
    if is_description(module):
        from shardplane.described import DescribedSource
        return DescribedSource(module, weights)
    try:
        from shardplane.torch_source import TorchSource
    except ImportError as error:
        raise invalid(
            "module: expected a description (a path, a dict, an "
            f"sp.Description), as torch cannot be imported ({error}), got: "
            f"{type(module).__name__}", reason="MODULE_TYPE",
            cls=PlanTypeError, field="module") from error
    return TorchSource(module, weights)


def _check(source, size, src_data_rank):
    if source.count > 1 and source.count != size:
        raise invalid(
            f"module: expected one a rank of the plan's mesh dim, {size}, "
            f"got: {source.count}", reason="MODULE_COUNT", field="module")
    if src_data_rank is not None and (
            isinstance(src_data_rank, bool) or
            not isinstance(src_data_rank, int)):
        raise invalid(
            f"src_data_rank: expected a rank or None, got: {src_data_rank!r}",
            reason="SRC_DATA_RANK", cls=PlanTypeError, field="src_data_rank")


def _warn(report):
    """The plan's warnings, as Python shows them, at the user's own line."""
    level = 2
    frame = inspect.currentframe()
    while frame.f_back is not None and frame.f_globals.get(
            "__name__", "").startswith("shardplane."):
        frame = frame.f_back
        level += 1
    for warning in report.warnings:
        text = warning.message
        if warning.pattern and warning.pattern not in text:
            text = f"plan key {warning.pattern!r}: {text}"
        warnings.warn(text, UserWarning, stacklevel=level - 1)


def to_patterns(recompute):
    """A pattern, or several."""
    if isinstance(recompute, str):
        return [recompute]
    try:
        patterns = list(recompute)
    except TypeError:
        patterns = [recompute]
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise invalid(
                f"recompute: expected patterns of modules, got: {pattern!r}",
                reason="RECOMPUTE_TYPE", cls=PlanTypeError, field="recompute")
    return patterns


def _first(programs, inputs, kwargs, loss, targets):
    """The call that the examples stand for, if there are any."""
    if inputs is None and kwargs is None:
        return None
    if programs.codec.is_tensor(inputs):
        inputs = (inputs,)
    return programs.first(inputs or (), kwargs or {}, loss, targets)


def _materialized(rpc, deployment, upload):
    """The deployment, once it has what `upload` sends; else there is none."""
    try:
        upload()
        return rpc.call("MaterializeDeployment",
                        pb.MaterializeDeploymentRequest(
                            name=deployment.name, request_id=request_id(),
                            epoch=deployment.epoch), timeout=300)
    except BaseException:
        # The workers must not wait for data that will not come.
        rpc.call("DeleteDeployment", pb.DeleteDeploymentRequest(
            name=deployment.name, request_id=request_id(),
            allow_missing=True))
        raise


def deploy(rpc, module, mesh=None, plan=None, *, device_mesh=None,
           parallelize_plan=None, example_inputs=None, example_kwargs=None,
           example_targets=None, src_data_rank=0, loss=None,
           data_parallel=None, unit_bytes=None, overlap=None, recompute=(),
           link_costs=None, strict=False, seed=0, weights=None,
           validate_only=False, name=None):
    """See CLIENT.md."""
    mesh = meshes.to_proto_mesh(device_mesh if mesh is None else mesh)
    plan = with_loss_parallel(plans.to_proto_plan(
        parallelize_plan if plan is None else plan))
    if data_parallel is None:
        data_parallel = implied_data_parallel(module, mesh)
    source = _source(module, as_weights(weights))
    data_parallel = to_proto_data_parallel(data_parallel, source.tree)
    plan_dim = meshes.plan_dim(mesh, plans.mesh_dims(plan),
                               {item.mesh_dim for item in data_parallel})
    size = next(dim.size for dim in mesh.dims if dim.name == plan_dim)
    _check(source, size, src_data_rank)

    programs = source.programs(rpc, plans.needs_call_signatures(
        plan, source.tree.has_attention))
    first = _first(programs, example_inputs, example_kwargs, loss,
                   example_targets)
    request = pb.CreateDeploymentRequest(
        deployment_id=name or "", validate_only=validate_only,
        request_id=request_id(),
        signature=first.signature if first else None,
        deployment=pb.Deployment(
            module=first.exported.module if first else source.to_proto(),
            mesh=mesh, plan=plan, plan_mesh_dim=plan_dim,
            data_parallel=data_parallel, unit_bytes=unit_bytes,
            overlap=to_proto_overlap(overlap),
            recompute=to_patterns(recompute),
            link_costs=to_proto_link_costs(link_costs),
            src_data_rank=src_data_rank, seed=seed, strict=strict))
    deployment = rpc.call("CreateDeployment", request, timeout=300)
    _warn(Report(deployment.report))
    if validate_only:
        return Report(deployment.report, explainer(rpc, dry_run=request))
    deployment = _materialized(
        rpc, deployment,
        lambda: source.upload(rpc, deployment, programs.constants,
                              src_data_rank))
    programs.bind(deployment, first)
    return DeployedModule(rpc, deployment, source.tree, programs, loss)
