"""Activations that every rank has whole are cut between the forward and the
backward pass: behaviour.md G, with right gradients."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.conformance.test_data_parallel import check_steps, cross_entropy
from tests.conformance.test_fully_shard import lines
from tests.conformance.test_report import check_peak
from tests.models import (Transformer, TransformerArgs, rand, tokens,
                          transformer_plan)
from tests.parity import assert_counts


class Layer(nn.Module):
    def __init__(self, width, hidden, **options):
        super().__init__()
        self.norm = nn.LayerNorm(width, **options)
        self.up = nn.Linear(width, hidden, **options)
        self.down = nn.Linear(hidden, width, **options)

    def forward(self, x):
        return x + self.down(self.up(self.norm(x)).relu())


PLAN = {"*.up": ColwiseParallel(), "*.down": RowwiseParallel()}


def stack(layers=3, width=8, hidden=16, dtype=torch.float64):
    torch.manual_seed(7)
    return nn.Sequential(*(Layer(width, hidden, dtype=dtype)
                           for _ in range(layers)))


def total(y):
    return y.sum()


def train(m, reference, batch, loss):
    check_steps(m, reference, [batch] * 3, loss,
                torch.optim.Adam(reference.parameters(), lr=1e-2),
                sp.Adam(lr=1e-2))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("ranks", [2, 4])
def test_each_layer_keeps_parts(cluster, ranks, dim):
    """Of a layer what the norm and the first linear get; the first input is
    the caller's, and the last layer's are needed at once."""
    reference, x = stack(), rand(5, 6, 8)
    plan = {"*": sp.InputReshard(dim), **PLAN}
    with cluster.parallelize_module(
            deepcopy(reference), {"tp": ranks}, plan, example_inputs=(x,),
            loss=total) as m:
        cut = lines(m, " = reshard[tp, to ")
        again = lines(m, "again]")
        assert len(again) == sum(line.count(", %") + 1 for line in (
            line.split(" = ")[0] for line in cut)) >= 3
        train(m, reference, (x,), total)
        assert_counts(m, forward={"all_reduce": 3},
                      backward={"all_reduce": 3, "all_gather": len(again)})


@pytest.mark.parametrize("sequence_parallel", [False, True],
                         ids=["whole", "sequence"])
@pytest.mark.parametrize("mesh", [{"tp": 2}, {"tp": 4}, {"dp": 2, "tp": 2}],
                         ids=["tp2", "tp4", "dp_tp"])
@pytest.mark.parametrize("recompute", [(), "layers.*"], ids=["kept", "again"])
def test_transformer(cluster, mesh, sequence_parallel, recompute):
    """The case for which PyTorch's adds gathers and makes wrong gradients
    (G3), and the one for which it is right: with recomputation."""
    reference = Transformer(TransformerArgs(layers=3, dropout=0.0,
                                            tied=False))
    x, target = tokens(seed=1), tokens(seed=2)
    plan = {"layers.*": sp.InputReshard(1),
            **transformer_plan(sequence_parallel)}
    kind = "fully_shard" if "dp" in mesh else None
    with cluster.parallelize_module(
            deepcopy(reference), mesh, plan, example_inputs=(x,),
            example_targets=(target,), loss=cross_entropy, data_parallel=kind,
            recompute=recompute, unit_bytes=0) as m:
        # A block that runs again keeps its input alone, which is cut then.
        cut_anyway = recompute and sequence_parallel
        again = lines(m, "all_gather[tp, from 1, again]")
        assert bool(again) != bool(cut_anyway)
        train(m, reference, (x, target), cross_entropy)


def test_what_a_rank_keeps(cluster):
    """Two whole activations a layer become parts, of eight layers on four
    ranks."""
    x, peaks = rand(256, 1024, dtype=torch.float32), {}
    for name, plan in (("whole", PLAN),
                       ("cut", {"*": sp.InputReshard(0), **PLAN})):
        with cluster.parallelize_module(
                stack(8, 1024, 2048, torch.float32), {"tp": 4}, plan,
                example_inputs=(x,), loss="sum") as m:
            m.step(x, optimizer=sp.SGD(lr=1e-3))
            check_peak(m, name)
            peaks[name] = max(line.peak_activation_bytes
                              for line in m.program_report().memory)
    # Two of a layer, but for the first input and the last layer's.
    saved = peaks["whole"] - peaks["cut"]
    assert saved >= 12 * 3 / 4 * x.nbytes


def test_none_leaves_all(cluster):
    """G1."""
    x = rand(4, 8)
    texts = []
    for plan in (PLAN, {"*": sp.InputReshard(None), **PLAN}):
        with cluster.parallelize_module(
                stack(), {"tp": 2}, plan, example_inputs=(x,),
                loss="sum") as m:
            texts.append(m.report.program_text)
    assert texts[0] == texts[1]


def test_the_plan_says_so(cluster):
    x = rand(4, 8)
    with cluster.parallelize_module(
            stack(), {"tp": 2}, {"1": sp.InputReshard(0), **PLAN},
            example_inputs=(x,), loss="sum") as m:
        assert "InputReshard" in str(m.report)
        gathers = [row for row in m.report.module_collectives
                   if row.kind == "all_gather"]
        assert [(row.fqn, row.count) for row in gathers] == [("1", 2)]
        assert gathers[0].why == ("kept in parts for the backward pass, asked "
                                  "by InputReshard of 1")
