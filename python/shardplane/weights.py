"""`weights` of parallelize_module: files that parameters start from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping

from shardplane.errors import PlanTypeError, invalid


@dataclasses.dataclass(frozen=True)
class Weights:
    """Safetensors files on the workers' machines, which read them themselves.

    `path`: below the workers' `--weights_root`, or absolute: a file, an index
    of several (`….index.json`), or a folder with `model.safetensors.index.json`
    or `model.safetensors`. `names`: what the files call a parameter, by a dict
    of FQN -> name, which need not have all, or a function of the FQN; default:
    the same.

        weights="llama-3-8b"
        weights=sp.Weights("llama-3-8b", lambda fqn: "model." + fqn)
    """

    path: str | os.PathLike
    names: Mapping[str, str] | Callable[[str], str] | None = None

    def name(self, fqn: str) -> str:
        """What the files call the parameter."""
        if self.names is None:
            return fqn
        if isinstance(self.names, Mapping):
            return self.names.get(fqn, fqn)
        return self.names(fqn)


def as_weights(value: object) -> Weights | None:
    """What `weights` may be: Weights, a path, None."""
    if value is None:
        return None
    weights = value if isinstance(value, Weights) else Weights(value)
    names = weights.names
    if not isinstance(weights.path, (str, os.PathLike)) or not (
            names is None or isinstance(names, Mapping) or callable(names)):
        raise invalid(
            "weights: expected a path of safetensors files, or sp.Weights of "
            f"one with names as a dict or a function, got: {value!r}",
            reason="WEIGHTS_TYPE", cls=PlanTypeError, field="weights")
    if not os.fspath(weights.path):
        raise invalid("weights: expected a path, got: ''",
                      reason="WEIGHTS_PATH", field="weights")
    return weights
