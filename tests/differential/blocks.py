"""The grammar of random modules: kind -> block."""

from tests.differential import blocks_of_models, blocks_of_operators
from tests.differential.block import BLOCKS, Sizes

__all__ = ["BLOCKS", "Sizes", "blocks_of_models", "blocks_of_operators"]
