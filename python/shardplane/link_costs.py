"""link_costs as Python writes it -> LinkCosts."""

from collections.abc import Mapping

from shardplane.errors import PlanTypeError, invalid
from shardplane.v1 import coordinator_pb2 as pb

FIELDS = ("latency_us", "us_per_mib", "beside")


def to_proto_link_costs(value):
    """None: the coordinator's own. Else numbers by name, those of FIELDS; what
    is not among them is 0. Their range is the coordinator's to check."""
    if value is None:
        return None
    known = isinstance(value, Mapping) and all(
        field in FIELDS and isinstance(number, (int, float)) and
        not isinstance(number, bool) for field, number in value.items())
    if not known:
        raise invalid(
            f"link_costs: expected None or numbers for {', '.join(FIELDS)}, "
            f"got: {value!r}", reason="LINK_COSTS_TYPE", cls=PlanTypeError,
            field="link_costs")
    return pb.LinkCosts(**value)
