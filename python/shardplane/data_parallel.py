"""data_parallel as Python writes it -> DataParallel, one a mesh dim."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from shardplane.errors import PlanTypeError, invalid
from shardplane.v1 import types_pb2 as pb

KINDS = {"replicate": pb.DataParallel.KIND_REPLICATE,
         "fully_shard": pb.DataParallel.KIND_FULLY_SHARD}
MESH_DIM = "dp"  # of a kind alone


@dataclasses.dataclass(frozen=True)
class FullyShard:
    """"fully_shard", where some parameters are cut on another dim than 0.

    `shard_dims`: a dict of FQN -> tensor dim, or PyTorch's
    `shard_placement_fn`: what takes a parameter and returns a `Shard`, or None
    for dim 0. It is called for each parameter of the module, whole as it is.

        sp.FullyShard({"layers.0.w1.weight": 1})
        sp.FullyShard(lambda p: Shard(p.ndim - 1))
    """

    shard_dims: object = None

    def to_proto(self, mesh_dim: str, tree: Any) -> pb.DataParallel:
        """The message, for the module whose tree this is."""
        return pb.DataParallel(
            mesh_dim=mesh_dim, kind=pb.DataParallel.KIND_FULLY_SHARD,
            shard_dims=self._dims(mesh_dim, tree))

    def _dims(self, mesh_dim, tree):
        where = f"data_parallel of mesh dim {mesh_dim!r}: FullyShard"
        if self.shard_dims is None:
            return {}
        if isinstance(self.shard_dims, Mapping):
            return {fqn: _dim(dim, f"{where}: shard_dims[{fqn!r}]")
                    for fqn, dim in self.shard_dims.items()}
        parameters = getattr(tree, "parameters", None)
        if not callable(self.shard_dims) or parameters is None:
            raise invalid(
                f"{where}: expected a dict of FQN -> dim"
                f"{'' if parameters is None else ' or a function'}, got: "
                f"{self.shard_dims!r}", reason="SHARD_DIMS_TYPE",
                cls=PlanTypeError, field="data_parallel")
        placements = {p.fqn: self.shard_dims(p.tensor)
                      for p in parameters if not p.buffer and not p.alias_of}
        return {fqn: _dim(getattr(placement, "dim", placement),
                          f"{where}: placement of {fqn!r}")
                for fqn, placement in placements.items()
                if placement is not None}


def _dim(value, where):
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise invalid(f"{where}: expected a tensor dim, got: {value!r}",
                  reason="SHARD_DIMS_TYPE", cls=PlanTypeError,
                  field="data_parallel")


def to_proto_data_parallel(value, tree):
    """None, a kind, or a dict of mesh dim -> kind. What the mesh and the module
    have is the coordinator's to check. `tree`: the module's, for functions."""
    if value is None:
        return []
    if isinstance(value, (str, FullyShard)):
        value = {MESH_DIM: value}
    if not isinstance(value, Mapping):
        raise invalid(
            "data_parallel: expected None, "
            f"{_kinds()}, or a dict of mesh dim -> one of these, got: "
            f"{value!r}", reason="DATA_PARALLEL_TYPE",
            cls=PlanTypeError, field="data_parallel")
    items = []
    for mesh_dim, kind in value.items():
        if isinstance(kind, FullyShard):
            items.append(kind.to_proto(mesh_dim, tree))
            continue
        if not isinstance(kind, str) or kind not in KINDS:
            raise invalid(
                f"data_parallel of mesh dim {mesh_dim!r}: expected {_kinds()}, "
                f"got: {kind!r}", reason="DATA_PARALLEL_KIND",
                field="data_parallel")
        items.append(pb.DataParallel(mesh_dim=mesh_dim, kind=KINDS[kind]))
    return items


def _kinds():
    return f"{', '.join(map(repr, KINDS))} or an sp.FullyShard"
