"""Optimizers: keywords as in torch; their state lies with the deployment."""

import dataclasses
from typing import ClassVar

from shardplane.errors import PlanTypeError, invalid
from shardplane.v1 import coordinator_pb2 as pb


def _bad(message, field):
    return invalid(message, reason="OPTIMIZER_TYPE", cls=PlanTypeError,
                   field=field)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Optimizer:
    """What all have: `groups`, parameters with values of their own.

    A dict of pattern (or a tuple of patterns) -> keywords that differ, in
    order, or a list of such pairs:

        sp.AdamW(lr=1e-3, groups={
            ("*.bias", "*.*.bias", "norm.*"): {"weight_decay": 0.0},
            "head.*": {"lr": 1e-4},
        })

    Patterns are globs on the names of `named_parameters()`, token by token as
    in a plan: "*.bias" is "up.bias" and not "layers.0.up.bias". The first
    group that matches a parameter counts; what matches none takes the
    optimizer's own keywords. A pattern that matches no parameter is an
    InvalidArgumentError.
    """

    groups: object = None
    kind: ClassVar[str] = ""  # its field in the messages

    def __post_init__(self):
        object.__setattr__(self, "groups", self._checked_groups())

    def to_proto(self) -> pb.Optimizer:
        """The message: its values, then its groups'."""
        message = pb.Optimizer(**{self.kind: self._options()})
        for patterns, keywords in self.groups:
            values = dataclasses.replace(self, groups=None, **dict(keywords))
            message.groups.append(pb.ParameterGroup(
                patterns=patterns, **{self.kind: values._options()}))
        return message

    def _options(self):
        raise NotImplementedError

    def _keywords(self):
        return [field.name for field in dataclasses.fields(self)
                if field.name != "groups"]

    def _checked_groups(self):
        """((pattern, ...), ((keyword, value), ...)) for each group."""
        groups = self.groups or ()
        if hasattr(groups, "items"):
            groups = groups.items()
        return tuple(self._checked_group(*_pair(group, i))
                     for i, group in enumerate(groups))

    def _checked_group(self, patterns, keywords, index):
        if isinstance(patterns, (tuple, list)):
            patterns = tuple(patterns)
        else:
            patterns = (patterns,)
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise _bad(f"groups[{index}]: expected patterns that are "
                           f"strings, got: {pattern!r}", f"groups[{index}]")
        for keyword in keywords:
            if keyword not in self._keywords():
                raise _bad(
                    f"groups[{index}]: expected keywords of "
                    f"{type(self).__name__} ({', '.join(self._keywords())}), "
                    f"got: {keyword!r}", f"groups[{index}].{keyword}")
        return patterns, tuple(dict(keywords).items())


def _pair(group, index):
    try:
        patterns, keywords = group
        keywords = dict(keywords)
    except (TypeError, ValueError):
        raise _bad(
            f"groups[{index}]: expected a pattern, or several, and a dict of "
            f"keywords, got: {group!r}", f"groups[{index}]") from None
    return patterns, keywords, index


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(_Optimizer):
    """As torch.optim.SGD. `groups`: parameters with values of their own, as
    in sp.AdamW."""

    kind: ClassVar[str] = "sgd"
    lr: float = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False

    def _options(self):
        return pb.SgdOptions(**{name: getattr(self, name)
                                for name in self._keywords()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam(_Optimizer):
    """As torch.optim.Adam. `groups`: parameters with values of their own, as
    in sp.AdamW."""

    kind: ClassVar[str] = "adam"
    lr: float = 1e-3
    betas: tuple = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    maximize: bool = False

    def _options(self):
        try:
            beta1, beta2 = self.betas
        except (TypeError, ValueError):
            raise _bad("betas: expected two numbers, got: "
                       f"{self.betas!r}", "betas") from None
        return pb.AdamOptions(
            lr=self.lr, beta1=beta1, beta2=beta2, eps=self.eps,
            weight_decay=self.weight_decay, amsgrad=self.amsgrad,
            maximize=self.maximize)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    __doc__ = "As torch.optim.AdamW.\n\n    " + _Optimizer.__doc__
    kind: ClassVar[str] = "adamw"
    weight_decay: float = 0.01


def to_proto_optimizer(optimizer):
    if not isinstance(optimizer, _Optimizer):
        raise _bad(
            "optimizer: expected sp.SGD(...), sp.Adam(...) or sp.AdamW(...), "
            f"got: {optimizer!r} of type {type(optimizer).__name__}",
            "optimizer")
    return optimizer.to_proto()
