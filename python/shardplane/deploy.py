"""parallelize_module: from a torch module to a deployment that is ready."""

import inspect
import warnings

import torch

from shardplane import mesh as meshes
from shardplane import plan as plans
from shardplane.errors import PlanTypeError, invalid, unimplemented
from shardplane.handle import DeployedModule
from shardplane.module_tree import ModuleTree
from shardplane.programs import Programs
from shardplane.report import Report
from shardplane.rpc import request_id
from shardplane.transfer import upload_parameter
from shardplane.v1 import coordinator_pb2 as pb


def _modules(module):
    """One module, or one a rank: (the first, all)."""
    modules = list(module) if isinstance(module, (list, tuple)) else [module]
    if not modules or not all(
            isinstance(m, torch.nn.Module) for m in modules):
        raise invalid(
            "module: expected a torch.nn.Module or a list of them, one a "
            f"rank, got: {type(module).__name__}", reason="MODULE_TYPE",
            cls=PlanTypeError, field="module")
    return modules


def _plan_dim(mesh, plan_dim=""):
    """The size of the mesh dim that the plan works on, if that is plain."""
    sizes = {dim.name: dim.size for dim in mesh.dims}
    return sizes.get(plan_dim or "tp",
                     mesh.dims[0].size if len(mesh.dims) == 1 else None)


def _check(modules, trees, mesh, src_data_rank, data_parallel):
    if data_parallel is not None:
        raise unimplemented("data_parallel", f"got: {data_parallel!r}")
    size = _plan_dim(mesh)
    if len(modules) > 1 and size is not None and len(modules) != size:
        raise invalid(
            f"module: expected one a rank of the plan's mesh dim, {size}, "
            f"got: {len(modules)}", reason="MODULE_COUNT", field="module")
    if src_data_rank is not None and (
            isinstance(src_data_rank, bool) or
            not isinstance(src_data_rank, int)):
        raise invalid(
            f"src_data_rank: expected a rank or None, got: {src_data_rank!r}",
            reason="SRC_DATA_RANK", cls=PlanTypeError, field="src_data_rank")
    names = [p.to_proto() for p in trees[0].parameters]
    for rank, tree in enumerate(trees[1:], 1):
        if [p.to_proto() for p in tree.parameters] != names:
            raise invalid(
                f"module of rank {rank}: expected the parameters of rank 0's "
                "by name, shape and dtype, got: others",
                reason="MODULE_MISMATCH", field="module")


def _upload(rpc, deployment, trees, constants, src_data_rank):
    """Source data: all of one rank's, or each rank's own."""
    if len(trees) == 1:
        sources = [(trees[0], None)]
    elif src_data_rank is not None:
        sources = [(trees[src_data_rank], None)]
    else:
        sources = [(tree, rank) for rank, tree in enumerate(trees)]
    for tree, rank in sources:
        for p in tree.parameters:
            if not p.alias_of and p.tensor.device.type != "meta":
                upload_parameter(rpc, deployment, p.fqn, p.tensor, rank)
    for fqn, tensor in constants:
        upload_parameter(rpc, deployment, fqn, tensor, None)


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


def deploy(rpc, module, mesh=None, plan=None, *, device_mesh=None,
           parallelize_plan=None, example_inputs=None, example_kwargs=None,
           example_targets=None, src_data_rank=0, loss=None,
           data_parallel=None, strict=False, seed=0, validate_only=False,
           name=None):
    """See CLIENT.md."""
    mesh = meshes.to_proto_mesh(device_mesh if mesh is None else mesh)
    plan = plans.to_proto_plan(parallelize_plan if plan is None else plan)
    modules = _modules(module)
    trees = [ModuleTree(m) for m in modules]
    _check(modules, trees, mesh, src_data_rank, data_parallel)

    programs = Programs(rpc, trees[0], plans.needs_call_signatures(plan))
    first = None
    if example_inputs is not None or example_kwargs is not None:
        if isinstance(example_inputs, torch.Tensor):
            example_inputs = (example_inputs,)
        first = programs.first(example_inputs or (), example_kwargs or {},
                               loss, example_targets)
    request = pb.CreateDeploymentRequest(
        deployment_id=name or "", validate_only=validate_only,
        request_id=request_id(),
        signature=first.signature if first else None,
        deployment=pb.Deployment(
            module=first.exported.module if first else trees[0].to_proto(),
            mesh=mesh, plan=plan, src_data_rank=src_data_rank, seed=seed,
            strict=strict))
    deployment = rpc.call("CreateDeployment", request, timeout=300)
    _warn(Report(deployment.report))
    if validate_only:
        return Report(deployment.report)
    try:
        _upload(rpc, deployment, trees, programs.constants, src_data_rank)
        deployment = rpc.call("MaterializeDeployment",
                              pb.MaterializeDeploymentRequest(
                                  name=deployment.name,
                                  request_id=request_id(),
                                  epoch=deployment.epoch), timeout=300)
    except BaseException:
        # The workers must not wait for data that will not come.
        rpc.call("DeleteDeployment", pb.DeleteDeploymentRequest(
            name=deployment.name, request_id=request_id(),
            allow_missing=True))
        raise
    programs.bind(deployment, first)
    return DeployedModule(rpc, deployment, trees[0], programs, loss)
