"""What carries the collectives: shared memory where it can be, Gloo otherwise,
with the same results to the bit."""

import pathlib

import pytest
import torch

import shardplane as sp
from tests.models import (
    Transformer, TransformerArgs, linear, rand, tokens, transformer_plan)
from tests.transports import groups

WORKERS = 4


@pytest.fixture(scope="module")
def clusters():
    """collectives -> a cluster of workers that were told so."""
    with sp.LocalCluster(WORKERS, collectives="shm") as shared, \
            sp.LocalCluster(WORKERS, collectives="gloo") as gloo:
        yield {"shm": shared, "gloo": gloo}


def trained(cluster, dtype):
    """Losses, parameters and counts of a few steps, cut as a sequence too:
    all-reduce, all-gather, reduce-scatter and all-to-all."""
    module = Transformer(TransformerArgs()).to(dtype)
    with cluster.parallelize_module(module, {"tp": WORKERS},
                                    transformer_plan(True)) as m:
        losses = [m.step(tokens(4, 8, seed=step), loss="mean",
                         optimizer=sp.AdamW(lr=0.01), clip_norm=0.5)
                  for step in range(5)]
        return losses, m.state_dict(), m.comm_counts()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32,
                                   torch.bfloat16], ids=str)
def test_both_give_the_same_bits(clusters, dtype):
    (losses, state, counts), other = (
        trained(clusters[name], dtype) for name in ("shm", "gloo"))
    assert torch.equal(torch.stack(losses), torch.stack(other[0]))
    assert state.keys() == other[1].keys()
    for name, value in state.items():
        assert value.dtype == dtype and torch.equal(value, other[1][name]), name
    assert counts == other[2]


@pytest.mark.parametrize("told", ["shm", "gloo"])
def test_groups_use_what_they_are_told(clusters, told):
    cluster = clusters[told]
    before = [groups(process).get(told, 0) for process in cluster.processes[1:]]
    with cluster.parallelize_module(linear(8, 8), {"tp": 4}, {}):
        after = [groups(process) for process in cluster.processes[1:]]
    assert after == [{told: count + 1} for count in before]


def test_on_one_machine_shared_memory_is_the_default():
    with sp.LocalCluster(workers=2) as cluster:
        with cluster.parallelize_module(linear(8, 8), {"tp": 2}, {}):
            assert [groups(process) for process in cluster.processes[1:]] == \
                [{"shm": 1}] * 2


def test_workers_that_are_told_different_things_use_gloo():
    with sp.LocalCluster(workers=1) as cluster:
        cluster._worker_args = ("--collectives=gloo",)
        cluster.add_workers(1)
        x = rand(2, 8)
        with cluster.parallelize_module(linear(8, 8), {"tp": 2},
                                        {}) as m:
            assert m(x).shape == (2, 8)
            assert [groups(process) for process in cluster.processes[1:]] == \
                [{"gloo": 1}] * 2


def test_shared_memory_that_is_asked_for_and_cannot_be():
    with sp.LocalCluster(workers=1, collectives="shm") as cluster:
        cluster._worker_args = ("--collectives=gloo",)
        cluster.add_workers(1)
        with pytest.raises(sp.ShardplaneError) as caught:
            cluster.parallelize_module(linear(8, 8), {"tp": 2}, {})
        assert "expected shared memory on mesh dim tp" in str(caught.value)
        assert "it is told to use gloo" in str(caught.value)
        # The workers are free again.
        with cluster.parallelize_module(linear(8, 8), {"tp": 1}, {}) as m:
            assert m(rand(2, 8)).shape == (2, 8)


def test_an_unknown_transport_ends_the_start():
    with pytest.raises(RuntimeError, match="expected auto, shm or gloo; got: "
                                           "abacus"):
        sp.LocalCluster(workers=1, collectives="abacus")


def test_nothing_could_be_left_of_workers_that_were_killed():
    """Their shared memory has no name: it goes with the last of them."""
    with sp.LocalCluster(workers=2, collectives="shm") as cluster:
        with cluster.parallelize_module(linear(8, 8), {"tp": 2}, {}):
            for process in cluster.processes[1:]:
                maps = pathlib.Path(f"/proc/{process.pid}/maps").read_text()
                assert "/memfd:shardplane (deleted)" in maps
                assert "/dev/shm/" not in maps
