"""overlap as Python writes it -> Overlap."""

from collections.abc import Iterable

from shardplane.errors import PlanTypeError, invalid
from shardplane.v1 import coordinator_pb2 as pb

KINDS = ("prefetch", "gradients", "input_gradients", "chunks")


def to_proto_overlap(value):
    """None: all that there is. Else names of KINDS, none of them for none."""
    if value is None:
        return None
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Iterable):
        raise invalid(
            f"overlap: expected None or some of {', '.join(map(repr, KINDS))}, "
            f"got: {value!r}", reason="OVERLAP_TYPE", cls=PlanTypeError,
            field="overlap")
    chosen = list(value)
    for kind in chosen:
        if kind not in KINDS:
            raise invalid(
                f"overlap: expected some of {', '.join(map(repr, KINDS))}, "
                f"got: {kind!r}", reason="OVERLAP_KIND", field="overlap")
    return pb.Overlap(**dict.fromkeys(chosen, True))
