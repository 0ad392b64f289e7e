"""The bound on bytes is one that a program can break."""

import pytest

from tests.differential.case import Case
from tests.differential.check import check_bytes
from tests.differential.styles import Style
from tests.differential.traffic import Bound, bound

F64 = 8
PAIR = {"blocks.b0.up": Style("ColwiseParallel"),
        "blocks.b0.down": Style("RowwiseParallel")}


def residual(plan, mesh=None, **options):
    return Case(mesh=mesh or {"tp": 2}, plan=plan, batch=2, sequence=4,
                width=8, blocks={"b0": ("Residual", {
                    "hidden": 64, "act": "relu", "bias": False})}, **options)


def test_a_pair_moves_one_sum():
    case = residual(PAIR)
    assert bound(case).forward == 2 * 4 * 8 * F64
    weights = sum(p.numel() for p in case.module().parameters()) * F64
    hidden = 2 * 4 * 64 * F64
    assert bound(case).forward < min(weights, hidden)
    assert bound(case).backward < min(weights, hidden)


def test_attention_by_heads_moves_one_sum():
    case = Case(mesh={"tp": 2}, batch=2, sequence=4, width=8, blocks={
        "b0": ("Attention", {"heads": [4, 4], "head_dim": 4, "form": "causal",
                             "projections": "three", "bias": False,
                             "rotary": False})},
        plan={"blocks.b0.[qkv]": Style("ColwiseParallel"),
              "blocks.b0.o": Style("RowwiseParallel")})
    assert bound(case).forward == 2 * 4 * 8 * F64


@pytest.mark.parametrize("mesh, plan", [
    ({"tp": 1}, PAIR), ({"dp": 4, "tp": 1}, PAIR), ({"tp": 2}, {})])
def test_nothing_moves_where_nothing_is_cut(mesh, plan):
    assert bound(residual(plan, mesh)) == Bound(0, 0)


def test_weights_that_travel_are_too_much():
    case = residual(PAIR)
    limit = bound(case)
    moved = {"forward": {"all_reduce": limit.forward}, "backward": {}}
    check_bytes(moved, limit)
    moved["forward"]["all_gather"] = 8 * 64 * F64  # one of them
    with pytest.raises(AssertionError, match="forward moved"):
        check_bytes(moved, limit)


def test_a_program_that_gathers_everything_is_too_much(cluster):
    """One of a plan that asks for it, under the bound of one that does not."""
    case = residual(PAIR | {"blocks.b0.up": Style(
        "ColwiseParallel", output_layouts="R")})
    x = case.input()
    with cluster.parallelize_module(
            case.module(), case.mesh, case.build_plan(),
            example_inputs=(x,)) as m:
        m.step(x, loss="sum", optimizer=case.own_optimizer())
        check_bytes(m.comm_bytes(), bound(case))
        with pytest.raises(AssertionError, match="forward moved"):
            check_bytes(m.comm_bytes(), bound(residual(PAIR)))
