"""Cases that random seeds have found, shrunk."""

from tests.differential.case import Case
from tests.differential.check import check
from tests.differential.styles import Style


def test_heads_that_do_not_divide(cluster):
    """Two heads on one rank and one on the other (seed 1859)."""
    check(cluster, Case(
        mesh={"tp": 2},
        blocks={"b2": ("Attention", {
            "heads": [3, 3], "head_dim": 2, "form": "plain",
            "projections": "three", "bias": False, "rotary": False})},
        plan={"blocks.b2.q": Style("ColwiseParallel")},
        batch=1, sequence=1, width=1, seed=1859))


def test_rows_of_an_outer_product(cluster):
    """What it is flattened from is cut, and so is the linear after it, in
    whole rows (seed 1938)."""
    check(cluster, Case(
        mesh={"tp": 2},
        blocks={"b1": ("Outer", {"hidden": 3})},
        plan={"blocks.b1.a": Style("ColwiseParallel"),
              "blocks.b1.down": Style("RowwiseParallel")},
        batch=1, sequence=1, width=1, seed=1938))
