"""Meshes of three dims on eight workers: replicas of shards of a cut model."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.conformance.test_data_parallel import (
    PLAN, TP_CUTS, check_steps, check_stored, cross_entropy)
from tests.models import (MLPModule, Transformer, TransformerArgs, rand, tokens,
                          transformer_plan)
from tests.parity import assert_close, assert_counts, assert_predicted

MESHES = {
    "hybrid": ({"replicas": 2, "shards": 2, "tp": 2},
               {"replicas": "replicate", "shards": "fully_shard"}),
    "tp_first": ({"tp": 2, "a": 2, "b": 2},
                 {"a": "fully_shard", "b": "fully_shard"})}
meshes = pytest.mark.parametrize("mesh, kinds", MESHES.values(), ids=MESHES)


@pytest.fixture(scope="module")
def eight():
    with sp.LocalCluster(workers=8) as cluster:
        yield cluster


@meshes
@pytest.mark.parametrize("rows", [9, 1])
def test_mlp(eight, mesh, kinds, rows):
    reference, x = MLPModule(dtype=torch.float64, hidden=17), rand(rows, 10)
    sharded = [dim for dim in mesh if kinds.get(dim) == "fully_shard"]
    with eight.parallelize_module(
            deepcopy(reference), mesh, PLAN, example_inputs=(x,),
            data_parallel=kinds, unit_bytes=0) as m:
        check_stored(m, reference, mesh, TP_CUTS, sharded)
        assert_close(m(x), reference(x), "forward")
        assert_predicted(m)
        check_steps(m, reference, [(x,)] * 3, lambda y: y.pow(2).mean(),
                    torch.optim.Adam(reference.parameters(), lr=1e-2),
                    sp.Adam(lr=1e-2))
        check_stored(m, reference, mesh, TP_CUTS, sharded)


@meshes
@pytest.mark.parametrize("recompute", [(), "layers.*"], ids=["kept", "again"])
def test_transformer(eight, mesh, kinds, recompute):
    reference = Transformer(TransformerArgs(layers=2, dropout=0.0,
                                            tied=False))
    batches = [(tokens(seed=i), tokens(seed=10 + i)) for i in range(2)]
    with eight.parallelize_module(
            deepcopy(reference), mesh,
            transformer_plan(sequence_parallel=True),
            example_inputs=batches[0][:1], data_parallel=kinds, unit_bytes=0,
            recompute=recompute) as m:
        check_steps(m, reference, batches, cross_entropy,
                    torch.optim.AdamW(reference.parameters(), lr=1e-2),
                    sp.AdamW(lr=1e-2))


def test_counts(eight):
    """A layer is gathered along one mesh dim and summed along another; what
    its gradients are scattered to, the replicas add up."""
    mesh, kinds = MESHES["hybrid"]
    module = nn.Sequential(*(nn.Sequential(nn.Linear(8, 16), nn.ReLU(),
                                           nn.Linear(16, 8))
                             for _ in range(3))).double()
    plan = {"*.0": ColwiseParallel(), "*.2": RowwiseParallel()}
    x = rand(8, 8)
    with eight.parallelize_module(
            module, mesh, plan, example_inputs=(x,), loss="mean",
            data_parallel=kinds, unit_bytes=0) as m:
        m.step(x, optimizer=sp.SGD(lr=0.1))
        assert_predicted(m)
        assert_counts(
            m, forward={"all_gather": 3, "all_reduce": 3},
            backward={"all_gather": 2, "reduce_scatter": 3,
                      "all_reduce": 2 + 3})
