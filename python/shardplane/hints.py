"""Names of types that signatures share; nothing is checked by them."""

from collections.abc import Callable, Sequence
from typing import Any

from shardplane.optimizers import SGD, Adam
from shardplane.placements import Partial, Replicate, Shard

# torch's, or numpy's where the module is a description.
Tensor = Any
# "sum", "mean", or a function of the outputs and the targets; of a description
# a graph.
Loss = str | Callable | dict
Optimizer = SGD | Adam  # and AdamW, which is one
# What step(n) is to use, for values that change.
OptimizerOf = Callable[[int], Optimizer]
# Ours; PyTorch's own are taken as well.
Layout = Replicate | Shard | Partial | Any | None
Layouts = Layout | Sequence[Layout]
