"""Optimizers: keywords as in torch; their state lies with the deployment."""

import dataclasses

from shardplane.errors import PlanTypeError, invalid
from shardplane.v1 import coordinator_pb2 as pb


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD:
    lr: float = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False

    def to_proto(self):
        return pb.Optimizer(sgd=pb.SgdOptions(**dataclasses.asdict(self)))


class _Later:
    """An optimizer of a later release: the coordinator refuses it by name."""

    def __init__(self, **kwargs):
        self.options = kwargs

    def to_proto(self):
        return pb.Optimizer(unknown=type(self).__name__)


class Adam(_Later):
    pass


class AdamW(_Later):
    pass


def to_proto_optimizer(optimizer):
    if not isinstance(optimizer, (SGD, _Later)):
        raise invalid(
            "optimizer: expected sp.SGD(...), got: "
            f"{optimizer!r} of type {type(optimizer).__name__}",
            reason="OPTIMIZER_TYPE", cls=PlanTypeError, field="optimizer")
    return optimizer.to_proto()
