"""What goes wrong in the middle of a train."""

import itertools
import os
import signal

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.models import MLPModule, rand

PAIR = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.embed = nn.Embedding(12, 8, dtype=torch.float64)
        self.out = nn.Linear(8, 4, dtype=torch.float64)

    def forward(self, ids):
        return self.out(self.embed(ids))


def check_bad_batch(cluster, ranks):
    ids = [torch.arange(i, i + 5).remainder(12) for i in range(10)]
    spoilt = [*ids[:4], torch.tensor([1, 2, 99, 3, 4]), *ids[5:]]
    optimizer = sp.SGD(lr=0.1)

    def deploy():
        return cluster.parallelize_module(
            Words(), {"tp": ranks}, {"embed": RowwiseParallel(),
                                     "out": ColwiseParallel()}, loss="sum")

    with deploy() as m:
        expected = [m.step(x, optimizer=optimizer) for x in ids]
    with deploy() as m:
        losses = m.train(spoilt, optimizer=optimizer)
        assert list(itertools.islice(losses, 4)) == expected[:4]
        with pytest.raises(sp.ShardplaneError, match="99") as raised:
            next(losses)
        assert raised.value.code != "ABORTED"
        assert raised.value.details["metadata"]["step"] == "5"
        assert m.last_step == 4
        # The four count, nothing behind them does: the rest is as it would be.
        assert m.step(ids[4], optimizer=optimizer) == expected[4]
        assert list(m.train(ids[5:], optimizer=optimizer)) == expected[5:]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_bad_id_in_the_fifth_batch_of_ten(cluster, ranks):
    check_bad_batch(cluster, ranks)


def test_batch_that_the_program_does_not_take(cluster):
    data = [rand(6, 10), rand(6, 10), rand(6, 11), rand(6, 10)]
    with cluster.parallelize_module(MLPModule(), {"tp": 2}, PAIR,
                                    loss="sum") as m:
        losses = m.train(data, optimizer=sp.SGD(lr=0.01))
        assert len([next(losses), next(losses)]) == 2
        with pytest.raises(sp.ShardplaneError):
            next(losses)
        assert m.last_step == 2
        m.step(rand(6, 10), optimizer=sp.SGD(lr=0.01))


def test_optimizer_of_another_kind(cluster):
    with cluster.parallelize_module(MLPModule(), {"tp": 2}, PAIR,
                                    loss="sum") as m:
        losses = m.train(itertools.repeat(rand(6, 10), 6), optimizer=lambda n: (
            sp.SGD(lr=0.01) if n < 4 else sp.Adam()))
        assert len([next(losses) for _ in range(3)]) == 3
        with pytest.raises(sp.FailedPreconditionError) as raised:
            next(losses)
        assert raised.value.reason == "OPTIMIZER_KIND_DIFFERS"
        assert m.last_step == 3


def test_worker_that_dies_in_the_middle(own_cluster):
    cluster = own_cluster
    m = cluster.parallelize_module(MLPModule(), {"tp": 2}, PAIR,
                                   example_inputs=(rand(6, 10),), loss="sum")
    lost = m._deployment.workers[1]
    given = 0
    with pytest.raises(sp.ShardplaneError) as raised:
        for _ in m.train(itertools.repeat(rand(6, 10)),
                         optimizer=sp.SGD(lr=1e-6)):
            given += 1
            if given == 50:
                os.kill(cluster.process(lost).pid, signal.SIGKILL)
    assert given >= 50
    assert raised.value.code in ("UNAVAILABLE", "FAILED_PRECONDITION")
    name = lost.rpartition("/")[2]
    assert name in str(raised.value) + str(raised.value.details)
    # What it says of the last step is what the coordinator says.
    (left,) = cluster.deployments()
    assert left.last_step == m.last_step == given
    m.close()


def test_coordinator_that_dies_in_the_middle(own_cluster):
    cluster = own_cluster
    with sp.connect(cluster.address) as connection:
        connection.rpc._retry_seconds = 1.0
        m = connection.parallelize_module(
            MLPModule(), {"tp": 2}, PAIR, example_inputs=(rand(6, 10),),
            loss="sum")
        with pytest.raises(sp.UnavailableError):
            for i, _ in enumerate(m.train(itertools.repeat(rand(6, 10)),
                                          optimizer=sp.SGD(lr=1e-6))):
                if i == 20:
                    os.kill(cluster.coordinator.pid, signal.SIGKILL)
        assert m.last_step >= 21


def test_connection_that_breaks_in_the_middle(cluster):
    """The stream is opened again; no step is done twice or left out."""
    data = [rand(6, 10) for _ in range(120)]
    optimizer = sp.SGD(lr=0.001)

    def deploy():
        return cluster.parallelize_module(MLPModule(), {"tp": 2}, PAIR,
                                          loss="sum")

    with deploy() as m:
        expected = [m.step(x, optimizer=optimizer) for x in data]
    with deploy() as m:
        streams = []
        opened = m._rpc.train
        m._rpc.train = lambda: streams.append(opened()) or streams[-1]
        losses = []
        for loss in m.train(data, optimizer=optimizer):
            losses.append(loss)
            # A stream has at most 32 steps in advance, so that each of the
            # last three is a stream's that was opened after the one before.
            if len(losses) in (3, 4, 40, 80):
                streams[-1]._call.cancel()
        del m._rpc.train
        assert losses == expected and len(streams) >= 4
        assert m.last_step == 120
