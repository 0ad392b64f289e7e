"""data_parallel as Python writes it -> DataParallel, one a mesh dim."""

from collections.abc import Mapping

from shardplane.errors import PlanTypeError, invalid
from shardplane.v1 import types_pb2 as pb

KINDS = {"replicate": pb.DataParallel.KIND_REPLICATE,
         "fully_shard": pb.DataParallel.KIND_FULLY_SHARD}
MESH_DIM = "dp"  # of a kind alone


def to_proto_data_parallel(value):
    """None, a kind, or a dict of mesh dim -> kind. What the mesh has is the
    coordinator's to check."""
    if value is None:
        return []
    if isinstance(value, str):
        value = {MESH_DIM: value}
    if not isinstance(value, Mapping):
        raise invalid(
            "data_parallel: expected None, "
            f"{' or '.join(map(repr, KINDS))}, or a dict of mesh dim -> one of "
            f"these, got: {value!r}", reason="DATA_PARALLEL_TYPE",
            cls=PlanTypeError, field="data_parallel")
    for mesh_dim, kind in value.items():
        if not isinstance(kind, str) or kind not in KINDS:
            raise invalid(
                f"data_parallel of mesh dim {mesh_dim!r}: expected "
                f"{' or '.join(map(repr, KINDS))}, got: {kind!r}",
                reason="DATA_PARALLEL_KIND", field="data_parallel")
    return [pb.DataParallel(mesh_dim=mesh_dim, kind=KINDS[kind])
            for mesh_dim, kind in value.items()]
