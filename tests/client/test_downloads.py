"""Many tensors of one deployment: which streams are under way when, and what
becomes of the others when one fails."""

import collections
import math
import threading

import grpc
import pytest
import torch

import shardplane as sp
from shardplane import tensors
from shardplane.transfer import download_all
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import coordinator_pb2_grpc
from tests.client.stand_in import SECONDS, Stays, UnderWay, fails, served

DEPLOYMENT = pb.Deployment(name="deployments/d", epoch=3)
MIB = 1 << 20


class Holder(coordinator_pb2_grpc.ShardingCoordinatorServicer):
    """Has tensors of one element, the number in their name."""

    def __init__(self):
        self.failures = collections.defaultdict(list)  # FQN -> what happens
        self.asked = []
        self.streams = UnderWay()

    def DownloadTensor(self, request, context):
        fqn = request.tensor.parameter
        self.asked.append(fqn)
        with self.streams.one():
            value = torch.tensor([int(fqn)])
            yield pb.DownloadTensorResponse(
                header=pb.DownloadTensorResponse.Header(
                    type=tensors.type_of(value, "x")))
            if self.failures[fqn]:
                self.failures[fqn].pop(0)(context)
            for chunk in tensors.chunks(value):
                yield pb.DownloadTensorResponse(chunk=chunk)


@pytest.fixture
def holder():
    return Holder()


@pytest.fixture
def rpc(holder):
    with served(holder, 16) as client:
        yield client


def values(rpc, count, size, missing=None):
    return [None if value is None else int(value) for value in download_all(
        rpc, DEPLOYMENT, [(pb.TensorRef(parameter=str(i)), None, size)
                          for i in range(count)], tensors, missing)]


@pytest.mark.parametrize("size", [8, math.inf])
@pytest.mark.parametrize("count", [0, 1, 7, 30])
def test_each_comes_once_and_in_order(holder, rpc, count, size):
    assert values(rpc, count, size) == list(range(count))
    assert sorted(holder.asked, key=int) == [str(i) for i in range(count)]


def test_small_ones_do_not_wait_for_each_other(holder, rpc):
    holder.streams.together = threading.Barrier(8)
    assert values(rpc, 8, 8) == list(range(8))


@pytest.mark.parametrize("size, most", [
    (math.inf, 1), (3 * MIB, 1), (2 * MIB, 2), (1, 8)])
def test_few_large_ones_are_under_way(holder, rpc, size, most):
    assert values(rpc, 20, size) == list(range(20))
    assert holder.streams.most <= most


def test_what_is_missing_is_none(holder, rpc):
    for fqn in "0", "3", "4":
        holder.failures[fqn] = [fails(grpc.StatusCode.NOT_FOUND, "NO_SUCH")]
    assert values(rpc, 6, 8, "NO_SUCH") == [None, 1, 2, None, None, 5]


@pytest.mark.parametrize("missing", [None, "NO_SUCH"])
def test_another_error_ends_all(holder, rpc, missing):
    begun = threading.Event()
    stays = Stays(begun.set)

    def fail(context):
        assert begun.wait(SECONDS)
        fails(grpc.StatusCode.NOT_FOUND, "GONE")(context)

    holder.failures["1"], holder.failures["2"] = [fail], [stays]
    with pytest.raises(sp.NotFoundError) as raised:
        values(rpc, 30, 8, missing)
    assert raised.value.reason == "GONE"
    assert stays.ended.wait(SECONDS)  # and nobody waits for the second's end
    assert len(holder.asked) < 30


def test_a_stream_that_breaks_off_is_read_again(holder, rpc):
    gone = fails(grpc.StatusCode.UNAVAILABLE, "GONE")
    holder.failures["2"] = [gone, gone]
    assert values(rpc, 5, 8) == list(range(5))
    assert holder.asked.count("2") == 3
    assert len(holder.asked) == 7
