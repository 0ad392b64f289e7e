"""Modules that run again for the backward pass instead of keeping what they
made."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.conformance.test_data_parallel import cross_entropy
from tests.conformance.test_report import check_peak
from tests.models import (Transformer, TransformerArgs, rand, tokens,
                          transformer_plan)
from tests.parity import (assert_close, assert_counts, assert_predicted,
                          check_gradients, check_parameters)


@pytest.mark.parametrize("mesh, kind", [
    ({"tp": 2}, None), ({"tp": 4}, None), ({"dp": 2, "tp": 2}, "fully_shard"),
    ({"dp": 2, "tp": 2}, "replicate")],
    ids=["tp2", "tp4", "fully_shard", "replicate"])
def test_transformer(cluster, mesh, kind):
    reference = Transformer(TransformerArgs(layers=3, dropout=0.0,
                                            tied=False))
    x, target = tokens(), tokens(seed=9)
    plan = transformer_plan(sequence_parallel=True)
    options = {"example_inputs": (x,), "example_targets": (target,),
               "loss": cross_entropy, "data_parallel": kind, "unit_bytes": 0}
    with cluster.parallelize_module(
            deepcopy(reference), mesh, plan, recompute="layers.*",
            **options) as m:
        optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            expected = cross_entropy(reference(x), target)
            expected.backward()
            actual = m.step(x, targets=(target,),
                            optimizer=sp.AdamW(lr=1e-2))
            assert_close(actual, expected, "loss")
            assert_predicted(m)
            check_gradients(m, reference)
            optimizer.step()
        check_parameters(m, reference, "after three steps")
        again = m.comm_counts()["backward"]
    with cluster.parallelize_module(deepcopy(reference), mesh, plan,
                                    **options) as m:
        m.forward_backward(x, targets=(target,))
        assert sum(again.values()) > sum(
            m.comm_counts()["backward"].values())


class Noisy(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.up = nn.Linear(width, 2 * width, dtype=torch.float64)
        self.norm = nn.BatchNorm1d(2 * width, dtype=torch.float64)
        self.drop = nn.Dropout(0.3)
        self.down = nn.Linear(2 * width, width, dtype=torch.float64)

    def forward(self, x):
        return x + self.down(self.drop(self.norm(self.up(x)).relu()))


def test_masks_are_drawn_alike_and_buffers_change_once(cluster):
    """To the bit what it is without."""
    torch.manual_seed(5)
    module, x = nn.Sequential(Noisy(), Noisy()), rand(6, 8)
    plan = {"*.up": ColwiseParallel(), "*.down": RowwiseParallel()}
    results = []
    for patterns in ([], ["*"]):
        with cluster.parallelize_module(
                deepcopy(module), {"tp": 2}, plan, example_inputs=(x,),
                loss="mean", seed=11, recompute=patterns) as m:
            losses = [m.step(x, optimizer=sp.SGD(lr=0.1)) for _ in range(3)]
            results.append((losses, m.gradients(), m.state_dict()))
            tracked = m.state_dict()["0.norm.num_batches_tracked"]
            assert tracked.item() == 3
    (losses, gradients, state), (again, more, last) = results
    assert losses == again
    for name, value in gradients.items():
        assert torch.equal(value, more[name]), name
    for name, value in state.items():
        assert torch.equal(value, last[name]), name


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(x)))


def test_a_blocks_activations_are_there_once(cluster):
    """Four blocks; of each its input is kept."""
    torch.manual_seed(2)
    module = nn.Sequential(*(Block(64) for _ in range(4)))
    x = torch.rand(4096, 64)
    peaks = []
    for patterns in ([], ["*"]):
        with cluster.parallelize_module(
                deepcopy(module), {"tp": 2},
                {"*.up": ColwiseParallel(), "*.down": RowwiseParallel()},
                example_inputs=(x,), loss="sum", recompute=patterns) as m:
            m.step(x, optimizer=sp.SGD(lr=1e-3))
            check_peak(m, "step")
            peaks.append(max(m.peak_run_bytes))
    assert peaks[1] < 0.6 * peaks[0]


def test_collectives_run_again(cluster):
    torch.manual_seed(2)
    module = nn.Sequential(*(Block(8).double() for _ in range(3)))
    x = rand(4, 8)
    with cluster.parallelize_module(
            module, {"tp": 2},
            {"*.up": ColwiseParallel(), "*.down": RowwiseParallel()},
            example_inputs=(x,), loss="sum", recompute=["0", "1"]) as m:
        m.forward_backward(x)
        assert_predicted(m)
        # Gradients of the inputs of blocks 1 and 2, and the sums of 0 and 1.
        assert_counts(m, forward={"all_reduce": 3}, backward={"all_reduce": 4})
        why = [row.why for row in m.program_report().module_collectives
               if row.phase == "backward"]
        assert any(text.endswith(", again, for backward") for text in why)


def test_patterns(cluster):
    with pytest.warns(UserWarning, match="recompute: .*nothing"):
        cluster.parallelize_module(
            Block(4), {"tp": 2}, {"up": ColwiseParallel()},
            example_inputs=(torch.rand(2, 4),), recompute="nothing",
            validate_only=True)
    with pytest.raises(TypeError, match="patterns of modules, got: 3"):
        cluster.parallelize_module(Block(4), {"tp": 2}, {}, recompute=[3])
