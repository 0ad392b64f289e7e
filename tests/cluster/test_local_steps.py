"""Steps to workers of this machine: over local sockets where it can be, gRPC
otherwise, with the same results to the bit."""

import os
import time

import pytest
import torch

import shardplane as sp
from shardplane import ColwiseParallel, RowwiseParallel
from tests.models import MLPModule, rand
from tests.transports import NO_LOCAL_STEPS, step_streams

WORKERS = 2
PLAN = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}


@pytest.fixture(scope="module")
def clusters():
    """What carries steps -> a cluster."""
    with sp.LocalCluster(WORKERS) as local, \
            sp.LocalCluster(WORKERS, coordinator_args=NO_LOCAL_STEPS) as grpc:
        yield {"local": local, "grpc": grpc}


def trained(cluster, batch):
    """Losses one by one and in a stream, and the parameters after them."""
    data = [rand(batch, 10, seed=step) for step in range(6)]
    with cluster.parallelize_module(MLPModule(), {"tp": WORKERS}, PLAN) as m:
        losses = [m.step(x, loss="sum", optimizer=sp.SGD(lr=0.01))
                  for x in data]
        losses += list(m.train(data, loss="sum",
                               optimizer=sp.SGD(lr=0.01)))
        return torch.stack(losses), m.state_dict()


# In a message, in shared memory, and as large as a message to a worker may be.
@pytest.mark.parametrize("batch", [2, 2_000, 13_000])
def test_both_give_the_same_bits(clusters, batch):
    (losses, state), other = (
        trained(clusters[name], batch) for name in ("local", "grpc"))
    assert torch.equal(losses, other[0])
    for fqn, value in state.items():
        assert torch.equal(value, other[1][fqn]), fqn


def test_on_one_machine_local_sockets_are_the_default(clusters):
    for name, cluster in clusters.items():
        before = [step_streams(each).get(name, 0)
                  for each in cluster.processes[1:]]
        trained(cluster, 2)
        assert [step_streams(each) for each in cluster.processes[1:]] == [
            {name: count + 1} for count in before]


@pytest.mark.parametrize("name", ["local", "grpc"])
def test_a_worker_that_dies_ends_the_steps_under_way(name):
    arguments = NO_LOCAL_STEPS if name == "grpc" else ()
    with sp.LocalCluster(WORKERS, coordinator_args=arguments) as cluster:
        with cluster.parallelize_module(MLPModule(), {"tp": WORKERS},
                                        PLAN) as m:
            losses = m.train((rand(4, 10, seed=i) for i in range(100_000)),
                             loss="sum", optimizer=sp.SGD(lr=1e-6))
            next(losses)
            assert step_streams(cluster.processes[1]) == {name: 1}
            begin = time.monotonic()
            cluster.processes[2].kill()
            with pytest.raises(sp.ShardplaneError) as caught:
                list(losses)
            assert caught.value.code in ("UNAVAILABLE", "FAILED_PRECONDITION")
            assert time.monotonic() - begin < 10  # a step may take 30 s


def open_files(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def test_memory_of_large_steps_is_given_back(clusters):
    cluster = clusters["local"]
    optimizer = sp.SGD(lr=0.01)
    with cluster.parallelize_module(MLPModule(), {"tp": WORKERS}, PLAN) as m:
        data = [rand(2_000, 10, seed=step) for step in range(4)]
        list(m.train(data, loss="sum", optimizer=optimizer))
        before = [open_files(each) for each in cluster.processes]
        for _ in range(5):
            list(m.train(data, loss="sum", optimizer=optimizer))
        after = [open_files(each) for each in cluster.processes]
        for first, last in zip(before, after, strict=True):
            # Connections of gRPC's come and go.
            assert last <= first + 3
