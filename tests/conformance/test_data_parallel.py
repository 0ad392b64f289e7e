"""Data parallel and fully sharded mesh dims beside the plan's: loss, gradients
and parameters are those of the whole batch in one process."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.differential.styles import stored_cuts
from tests.models import (MLPModule, Transformer, TransformerArgs, rand, tokens,
                          transformer_cuts, transformer_plan)
from tests.parity import (assert_close, assert_counts, assert_predicted,
                          check_gradients, check_parameters, coordinates,
                          piece)

PLAN = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
TP_CUTS = {"net1.weight": 0, "net1.bias": 0, "net2.weight": 1}
KINDS = ("replicate", "fully_shard")
MESHES = {"dp_tp": {"dp": 2, "tp": 2}, "tp_dp": {"tp": 2, "dp": 2},
          "dp": {"dp": 4}, "dp_alone": {"dp": 1, "tp": 4}}


def check_stored(m, reference, mesh, tp_cuts, sharded, dims=None):
    """`sharded`: the mesh dims that are fully sharded, in the mesh's order;
    `dims`: name -> tensor dim, where that is not 0."""
    for name, value in reference.named_parameters():
        cut = ("tp", tp_cuts[name]) if name in tp_cuts else None
        cuts = stored_cuts(cut, value, sharded, (dims or {}).get(name, 0))
        for at, shard in zip(coordinates(mesh), m.shards(name), strict=True):
            assert_close(shard, piece(value, cuts, at, mesh), f"{name} at {at}")


def check_steps(m, reference, batches, loss, optimizer, ours):
    for step, (x, *targets) in enumerate(batches):
        optimizer.zero_grad()
        expected = loss(reference(x), *targets)
        expected.backward()
        actual = m.step(x, targets=tuple(targets), loss=loss, optimizer=ours)
        assert_close(actual, expected, f"loss of step {step}")
        assert_predicted(m)
        check_gradients(m, reference)
        optimizer.step()
    check_parameters(m, reference, "at the end")


@pytest.mark.parametrize("rows", [8, 7, 1])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_mlp(cluster, mesh, kind, rows):
    reference, x = MLPModule(dtype=torch.float64), rand(rows, 10)
    plan = PLAN if "tp" in mesh else {}
    with cluster.parallelize_module(deepcopy(reference), mesh, plan,
                                    example_inputs=(x,),
                                    data_parallel=kind) as m:
        sharded = ["dp"] if kind == "fully_shard" else []
        cuts = TP_CUTS if "tp" in mesh else {}
        check_stored(m, reference, mesh, cuts, sharded)
        assert_close(m(x), reference(x), "forward")
        assert_predicted(m)
        for loss in ("sum", "mean"):
            reference.zero_grad()
            expected = getattr(reference(x), loss)()
            expected.backward()
            assert_close(m.forward_backward(x, loss=loss), expected, loss)
            assert_predicted(m)
            check_gradients(m, reference)
        m.update(sp.SGD(lr=0.25))
        torch.optim.SGD(reference.parameters(), lr=0.25).step()
        check_parameters(m, reference, "after an update")
        check_stored(m, reference, mesh, cuts, sharded)


def test_counts_of_replicas(cluster):
    """behaviour.md H2: the plan's all-reduce forward, one of all gradients
    backward."""
    x = rand(8, 10)
    with cluster.parallelize_module(
            MLPModule(dtype=torch.float64), {"dp": 2, "tp": 2}, PLAN,
            example_inputs=(x,), data_parallel="replicate") as m:
        m.step(x, loss="mean", optimizer=sp.SGD(lr=0.25))
        assert_counts(m, forward={"all_reduce": 1}, backward={"all_reduce": 1})
        whole = 10  # net2.bias, alone
        local = whole + (sum(p.numel() for p in MLPModule().parameters()) -
                         whole) // 2
        assert m.comm_bytes()["backward"]["all_reduce"] == 8 * local


def test_counts_fully_sharded(cluster):
    x = rand(8, 10)
    with cluster.parallelize_module(
            MLPModule(dtype=torch.float64), {"dp": 2, "tp": 2}, PLAN,
            example_inputs=(x,), data_parallel="fully_shard") as m:
        m.step(x, loss="mean", optimizer=sp.SGD(lr=0.25))
        assert_counts(m, forward={"all_reduce": 1, "all_gather": 1},
                      backward={"reduce_scatter": 1})


class Pair(nn.Module):
    """behaviour.md H7."""

    def __init__(self, width):
        super().__init__()
        self.in_proj = nn.Linear(width, 4 * width, dtype=torch.float64)
        self.out_proj = nn.Linear(4 * width, width, dtype=torch.float64)

    def forward(self, x):
        return self.out_proj(self.in_proj(x).relu()).relu()


@pytest.mark.parametrize("width, dp, tp", [
    (3, 2, 2), (16, 2, 2), (17, 2, 2), (17, 4, 1), (17, 1, 4)])
@pytest.mark.parametrize("options", [
    {}, {"unit_bytes": 0}, {"unit_bytes": 0, "recompute": "*"}],
    ids=["kept", "resharded", "again"])
@pytest.mark.parametrize("kind", KINDS)
def test_ten_steps_of_mlps(cluster, kind, options, width, dp, tp):
    """behaviour.md H7: weights kept or resharded after the forward pass,
    activations kept or made anew."""
    mesh = {"dp": dp, "tp": tp}
    torch.manual_seed(42)
    reference = nn.Sequential(*(Pair(width) for _ in range(3)))
    plan = {"*.in_proj": ColwiseParallel(use_local_output=False),
            "*.out_proj": RowwiseParallel()}
    batches = [(rand(8, width, seed=i),) for i in range(10)]
    with cluster.parallelize_module(deepcopy(reference), mesh, plan,
                                    example_inputs=batches[0],
                                    data_parallel=kind, **options) as m:
        check_steps(m, reference, batches, lambda y: y.sum(),
                    torch.optim.Adam(reference.parameters(), lr=1e-2),
                    sp.Adam(lr=1e-2))


def cross_entropy(logits, target):
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())


@pytest.mark.parametrize("kind", KINDS)
def test_ten_steps_of_a_transformer(cluster, kind):
    """behaviour.md H8: three layers, tensor and sequence parallel."""
    reference = Transformer(TransformerArgs(layers=3, dropout=0.0,
                                            tied=False))
    batches = [(tokens(seed=i), tokens(seed=100 + i)) for i in range(10)]
    mesh = {"dp": 2, "tp": 2}
    with cluster.parallelize_module(deepcopy(reference), mesh,
                                    transformer_plan(sequence_parallel=True),
                                    example_inputs=batches[0][:1],
                                    data_parallel=kind) as m:
        check_steps(m, reference, batches, cross_entropy,
                    torch.optim.AdamW(reference.parameters(), lr=1e-2),
                    sp.AdamW(lr=1e-2))


@pytest.mark.parametrize("by", ["name", "function"])
def test_ten_steps_cut_on_the_other_dim(cluster, by):
    reference = Transformer(TransformerArgs(layers=3, dropout=0.0,
                                            tied=False))
    tp_cuts = transformer_cuts(reference)
    dims = {name: value.ndim - 1 - tp_cuts[name]
            for name, value in reference.named_parameters() if name in tp_cuts}
    module = deepcopy(reference)
    names = {id(value): name for name, value in module.named_parameters()}

    def placement(parameter):
        name = names[id(parameter)]
        return Shard(dims[name]) if name in dims else None

    batches = [(tokens(seed=i), tokens(seed=100 + i)) for i in range(10)]
    mesh = {"dp": 2, "tp": 2}
    kind = sp.FullyShard(dims if by == "name" else placement)
    with cluster.parallelize_module(module, mesh,
                                    transformer_plan(sequence_parallel=True),
                                    example_inputs=batches[0][:1],
                                    data_parallel=kind) as m:
        check_stored(m, reference, mesh, tp_cuts, ["dp"], dims)
        check_steps(m, reference, batches, cross_entropy,
                    torch.optim.AdamW(reference.parameters(), lr=1e-2),
                    sp.AdamW(lr=1e-2))
        placed = m.report.placements
        assert placed["layers.0.attention.wq.weight"] == "[S(1), S(0)]"
        assert placed["layers.0.attention.wo.weight"] == "[S(0), S(1)]"
        assert placed["layers.0.feed_forward.w1.bias"] == "[S(0)#2, S(0)#1]"


def test_hybrid(cluster):
    """Replicated over one mesh dim, fully sharded over another."""
    mesh = {"replicas": 2, "shards": 2}
    kinds = {"replicas": "replicate", "shards": "fully_shard"}
    reference, x = MLPModule(dtype=torch.float64), rand(7, 10)
    with cluster.parallelize_module(deepcopy(reference), mesh, {},
                                    example_inputs=(x,),
                                    data_parallel=kinds) as m:
        check_stored(m, reference, mesh, {}, ["shards"])
        optimizer = torch.optim.SGD(reference.parameters(), lr=0.25)
        check_steps(m, reference, [(x,)], lambda y: y.pow(2).mean(), optimizer,
                    sp.SGD(lr=0.25))
        assert_counts(m, backward={"reduce_scatter": 1, "all_reduce": 1})
