"""The same model at 1 to 4 workers, with hidden sizes that do not divide."""

import pytest
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInputOutput, RowwiseParallel)

from tests.models import MLPModule, rand
from tests.parity import assert_bytes, assert_counts, parallelized

F64 = 8
PAIR_CUTS = {"net1.weight": 0, "net1.bias": 0, "net2.weight": 1}
BOTH_CUTS = {**PAIR_CUTS, "net2.weight": 0, "net2.bias": 0}

# name: plan, cuts, forward, backward (input without gradient)
PLANS = {
    "pair": ({"net1": ColwiseParallel(), "net2": RowwiseParallel()},
             PAIR_CUTS, {"all_reduce": 1}, {}),
    "both_colwise": (
        {"net*": ColwiseParallel(output_layouts=Replicate())}, BOTH_CUTS,
        {"all_gather": 2}, {"all_reduce": 1}),
    "sequence": (
        {"net1": ColwiseParallel(input_layouts=Shard(0)),
         "net2": RowwiseParallel(output_layouts=Shard(0))}, PAIR_CUTS,
        {"all_gather": 1, "reduce_scatter": 1}, {"all_gather": 1}),
    "root": (
        {"": PrepareModuleInputOutput(
            input_layouts=Replicate(), desired_input_layouts=Shard(0),
            output_layouts=Shard(0), desired_output_layouts=Replicate()),
         "net1": ColwiseParallel(input_layouts=Shard(0)),
         "net2": RowwiseParallel(output_layouts=Shard(0))}, PAIR_CUTS,
        # What the root cuts net1 and the loss want whole: it stays.
        {"all_gather": 1, "reduce_scatter": 1}, {}),
}


@pytest.mark.parametrize("hidden", [3, 16, 17])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("plan", PLANS)
def test_same_whatever_the_mesh(cluster, plan, workers, hidden):
    styles, cuts, forward, backward = PLANS[plan]
    x = rand(7, 10)  # 7 rows: activations do not divide either
    with parallelized(cluster, MLPModule(hidden=hidden), {"tp": workers},
                      styles, cuts=cuts, x=x) as case:
        case.check_all(x)
        case.check_step(x)
        if workers == 1:
            assert_counts(case.m, forward={}, backward={}, optimizer={})
        else:
            assert_counts(case.m, forward=forward, backward=backward,
                          optimizer={})
        rows, padded = 7 + workers, hidden + workers
        activations = rows * (10 + workers) + rows * padded
        assert_bytes(case.m, forward=2 * activations * F64,
                     backward=2 * activations * F64)
