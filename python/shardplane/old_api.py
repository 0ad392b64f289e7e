"""What PyTorch's old scripts call around tensor parallelism.

They had to make FSDP and DDP know DTensor. Here data parallelism is another
dim of the same mesh (docs/meshes.md), so there is nothing to make known: these
say so, and do what was meant.
"""

from __future__ import annotations

import contextlib
import contextvars
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

from shardplane.data_parallel import MESH_DIM
from shardplane.v1 import types_pb2 as pb

_fully_shard = False
_replicated = weakref.WeakSet()  # modules
_loss_parallel = contextvars.ContextVar("shardplane_loss_parallel",
                                        default=False)


def enable_2d_with_fsdp(enabled: bool = True) -> bool:
    """From now on a mesh with a dim `dp` has its parameters fully sharded
    along it, where parallelize_module is not told a `data_parallel`.

    Returns True, as PyTorch's did.
    """
    global _fully_shard
    _fully_shard = bool(enabled)
    if enabled:
        warnings.warn(
            'enable_2d_with_fsdp: nothing needs enabling; give a mesh dim "dp" '
            'and parallelize_module(..., data_parallel="fully_shard"). Until '
            "enable_2d_with_fsdp(False) that is the default where a mesh has "
            'a dim "dp".', UserWarning, stacklevel=2)
    return True


def pre_dp_module_transform(module: Any) -> Any:
    """Returns `module` as it is. Where it is parallelized after this, a mesh
    dim `dp` takes a part of the batch, and its parameters are whole there."""
    deployed = hasattr(module, "comm_counts")
    if deployed:
        told = "; a deployment's mesh stays as it was made"
    else:
        told = (". For this module it is now the default where a mesh has a "
                'dim "dp"')
        _remember(module)
    warnings.warn(
        "pre_dp_module_transform: a module needs no transformation, and is "
        'returned as it is; what corresponds is a mesh dim "dp" and '
        f'parallelize_module(..., data_parallel="replicate"){told}.',
        UserWarning, stacklevel=2)
    return module


def _remember(module):
    try:
        _replicated.add(module)
    except TypeError:  # a description, or nothing: no one can point at it
        pass


def implied_data_parallel(module, mesh):
    """What parallelize_module takes for `data_parallel` where that is None;
    `mesh`: a message."""
    if MESH_DIM not in {dim.name for dim in mesh.dims}:
        return None
    try:
        if module in _replicated:
            return "replicate"
    except TypeError:
        pass
    return "fully_shard" if _fully_shard else None


@contextlib.contextmanager
def loss_parallel() -> Iterator[None]:
    """PyTorch's context, for plans: a parallelize_module within it has a
    LossParallel on the module as a whole, whose output are the logits. Around
    a step it changes nothing: a loss of cut logits is always taken on the
    parts."""
    token = _loss_parallel.set(True)
    try:
        yield
    finally:
        _loss_parallel.reset(token)


def with_loss_parallel(plan):
    """The plan, and what an enclosing loss_parallel() adds to it."""
    if plan is None or not _loss_parallel.get():
        return plan
    style = pb.ParallelStyle(loss=pb.LossParallel(class_dim=-1))
    return pb.ParallelizePlan(entries=[*plan.entries, pb.PlanEntry(
        pattern="", value=pb.PlanValue(style=style))])
