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


def test_one_head_that_is_cut_and_gathered(cluster):
    """A head that all ranks share, cut along the sequence by the plan and
    gathered for the attention: its gradient counted once a rank (seed 2932)."""
    check(cluster, Case(
        mesh={"tp": 2},
        blocks={"b1": ("Attention", {
            "heads": [2, 1], "head_dim": 2, "form": "plain",
            "projections": "three", "bias": False, "rotary": False})},
        plan={"blocks.b1.v": Style("ColwiseParallel", output_layouts="S(1)"),
              "blocks.b1.o": Style("RowwiseParallel")},
        batch=1, sequence=1, width=1, seed=2932))


def test_rows_of_an_outer_product(cluster):
    """What it is flattened from is cut, and so is the linear after it, in
    whole rows (seed 1938)."""
    check(cluster, Case(
        mesh={"tp": 2},
        blocks={"b1": ("Outer", {"hidden": 3})},
        plan={"blocks.b1.a": Style("ColwiseParallel"),
              "blocks.b1.down": Style("RowwiseParallel")},
        batch=1, sequence=1, width=1, seed=1938))


def test_groups_of_a_view(cluster):
    """A dim that is viewed as groups is cut in whole ones (seed 2488)."""
    check(cluster, Case(
        mesh={"tp": 2},
        blocks={"b0": ("Views", {"how": "groups", "groups": 3})},
        plan={"blocks.b0.??": Style("ColwiseParallel")},
        batch=1, sequence=1, width=1, seed=2488))


def test_fused_heads_on_more_ranks_than_heads(cluster):
    """One rank has no head of the queries (seed 2964)."""
    check(cluster, Case(
        mesh={"tp": 3},
        blocks={"b0": ("Attention", {
            "heads": [2, 2], "head_dim": 2, "form": "plain",
            "projections": "fused", "bias": False, "rotary": False})},
        plan={"blocks.b0.qkv": Style("ColwiseParallel")},
        batch=1, sequence=1, width=1, seed=2964))


def test_input_reshard_of_a_sum_that_begins_early(cluster):
    """It has memory of its own, as one that is not begun early (seed 2212)."""
    check(cluster, Case(
        mesh={"tp": 2},
        blocks={"b2": ("Layer", {
            "norm": "rms", "norm_first": True, "gated": False,
            "heads": [2, 2], "head_dim": 2, "form": "by_hand",
            "rotary": False, "hidden": 8})},
        plan={"blocks.b2.attention.q": Style("RowwiseParallel"),
              "blocks.b2.attention.v": Style("ColwiseParallel",
                                             output_layouts="S(0)")},
        sequence=1, width=1, reshard=("tp", -1), chunks=True, seed=2212))
