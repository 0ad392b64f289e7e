"""Placements, for scripts without torch; PyTorch's own are taken too."""

import dataclasses

from shardplane.errors import PlanTypeError, invalid, unimplemented
from shardplane.v1 import types_pb2 as pb


@dataclasses.dataclass(frozen=True)
class Replicate:
    """Whole on every rank."""

    def __str__(self):
        return "R"


@dataclasses.dataclass(frozen=True)
class Shard:
    """Cut along a tensor dim, as torch.chunk cuts."""

    dim: int

    def __str__(self):
        return f"S({self.dim})"


@dataclasses.dataclass(frozen=True)
class Partial:
    """A sum (or maximum, minimum) that is still to be made."""

    reduce_op: str = "sum"

    def __str__(self):
        return f"P({self.reduce_op})"


_REDUCE_OPS = {"sum": pb.REDUCE_OP_SUM, "max": pb.REDUCE_OP_MAX,
               "min": pb.REDUCE_OP_MIN}


def to_proto(placement, where):
    """`placement`: ours or PyTorch's, told by class name; `where`: for errors.
    """
    name = type(placement).__name__
    if name == "Replicate":
        return pb.Placement(replicate=pb.Replicate())
    if name == "Shard":
        return pb.Placement(shard=pb.Shard(dim=placement.dim))
    if name in ("Partial", "_Partial"):
        op = str(placement.reduce_op)
        if op not in _REDUCE_OPS:
            raise unimplemented(f"Partial({op})", f"in {where}")
        return pb.Placement(partial=pb.Partial(op=_REDUCE_OPS[op]))
    if any(base.__name__ == "Placement" for base in type(placement).__mro__):
        raise unimplemented(f"placement {name}", f"in {where}")
    raise invalid(
        f"{where}: expected a placement (Replicate, Shard or Partial), got: "
        f"{placement!r} of type {name}", reason="INVALID_LAYOUT",
        cls=PlanTypeError, field=where)


def optional_to_proto(placement, where):
    if placement is None:
        return pb.OptionalPlacement()
    return pb.OptionalPlacement(placement=to_proto(placement, where))


def _block(block):
    """48, 6*8, 2*8/2: elements, units that stay whole, shared by two."""
    size = (f"{block.size // block.unit}*{block.unit}" if block.unit > 1
            else f"{block.size}")
    return size + (f"/{block.replicas}" if block.replicas > 1 else "") + (
        "+" if block.partial else "")


def text(placement):
    """The text form of a proto Placement: R, S(0), P(sum)."""
    kind = placement.WhichOneof("kind")
    if kind == "shard":
        blocks = ", ".join(_block(b) for b in placement.shard.blocks)
        return f"S({placement.shard.dim}{blocks and ': '}{blocks})"
    if kind == "partial":
        names = {op: name for name, op in _REDUCE_OPS.items()}
        return f"P({names.get(placement.partial.op, 'sum')})"
    return "R"


def spec_text(spec):
    """[S(0), R]"""
    return "[" + ", ".join(text(p) for p in spec.placements) + "]"
