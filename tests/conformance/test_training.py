"""A Transformer trained for 50 steps, with dropout: the same curve on any mesh
and under either plan, to rounding."""

import pytest
import torch
from torch.nn import functional as F

import shardplane as sp
from tests.models import (
    Transformer, TransformerArgs, tokens, transformer_cuts, transformer_plan)
from tests.parity import assert_bytes, check_placements, total

STEPS = 50
BATCH, LENGTH = 4, 8
LR = 3e-3


def batch(step):
    """Two sequences a step, to be continued: each token is the one before it
    plus one or two, so that there is something to learn."""
    start = tokens(BATCH, 1, seed=step)
    stride = 1 + tokens(BATCH, 1, seed=step + 1000) % 2
    sequence = (start + stride * torch.arange(LENGTH + 1)) % 8
    return sequence[:, :-1], sequence[:, 1:]


def cross_entropy(logits, target):
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def curve(cluster, ranks, sequence_parallel, dropout):
    module = Transformer(TransformerArgs(dropout=dropout))
    losses = []
    with cluster.parallelize_module(
            module, {"tp": ranks}, transformer_plan(sequence_parallel),
            seed=3) as m:
        check_placements(m.report, module, transformer_cuts(module))
        for step in range(STEPS):
            x, target = batch(step)
            losses.append(m.step(x, targets=target, loss=cross_entropy,
                                 optimizer=sp.Adam(lr=LR)).item())
        assert m.last_step == STEPS
        check_costs(m, ranks, module)
    return torch.tensor(losses, dtype=torch.float64)


def check_costs(m, ranks, module):
    """Of the last step: activations, and no more than a parameter's part of
    the norms; nothing at all on one rank."""
    if ranks == 1:
        assert total(m.comm_counts(), ["forward", "backward"]) == 0
    activation = BATCH * LENGTH * 16 * 8
    norms = sum(p.numel() for name, p in module.named_parameters()
                if "norm" in name) * 8
    assert_bytes(m, forward=12 * activation, backward=12 * activation + norms,
                 optimizer=0)


def pytorch_curve():
    """The same module, alone and without dropout."""
    module = Transformer(TransformerArgs())
    optimizer = torch.optim.Adam(module.parameters(), lr=LR)
    losses = []
    for step in range(STEPS):
        x, target = batch(step)
        optimizer.zero_grad()
        loss = cross_entropy(module(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


def assert_same_curve(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


def assert_learns(losses):
    assert losses[-5:].mean() < 0.6 * losses[:5].mean()
    assert losses.isfinite().all()


@pytest.fixture(scope="module")
def one_rank(shared_cluster):
    losses = curve(shared_cluster, 1, False, dropout=0.1)
    assert_learns(losses)
    return losses


@pytest.mark.parametrize("ranks, sequence_parallel", [
    (1, True), (2, False), (2, True), (4, False), (4, True)],
    ids=["1_q7", "2_q6", "2_q7", "4_q6", "4_q7"])
def test_50_steps_with_dropout(cluster, one_rank, ranks, sequence_parallel):
    assert_same_curve(curve(cluster, ranks, sequence_parallel, dropout=0.1),
                      one_rank)


def test_50_steps_beside_pytorch(cluster):
    expected = pytorch_curve()
    assert_learns(expected)
    assert_same_curve(curve(cluster, 4, True, dropout=0.0), expected)
