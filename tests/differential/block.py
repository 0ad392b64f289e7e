"""What a block of a random module is: [batch, sequence, width] -> the same, so
that any of them may follow, or be left out.

Each has its CHOICES: option -> values, the plainest first. A random case picks
among them, and what shrinks a case goes back to the plainer ones.
"""

import dataclasses

from torch import nn

HIDDEN = [1, 2, 3, 5, 7, 8, 16, 17]
FLAGS = [False, True]
BLOCKS = {}


@dataclasses.dataclass(frozen=True)
class Sizes:
    batch: int
    sequence: int
    width: int


def block(cls):
    BLOCKS[cls.__name__] = cls
    return cls


class Block(nn.Module):
    """Built of Sizes and a value for each of CHOICES, kept as attributes."""

    CHOICES = {}

    def __init__(self, sizes, **options):
        super().__init__()
        assert set(options) == set(self.CHOICES), type(self).__name__
        for name, value in options.items():
            setattr(self, name, value)
        self.sizes = sizes
        self.build(sizes.width)

    def build(self, width):
        pass
