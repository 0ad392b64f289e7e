"""Many tensors to one deployment: which streams are under way when, and what
becomes of the others when one fails."""

import collections
import threading

import grpc
import pytest
import torch

import shardplane as sp
from shardplane import tensors
from shardplane.transfer import upload_all, upload_parameters
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import coordinator_pb2_grpc
from tests.client.stand_in import SECONDS, Stays, UnderWay, fails, served

DEPLOYMENT = pb.Deployment(name="deployments/d", epoch=3)
MIB = 1 << 20


class Taker(coordinator_pb2_grpc.ShardingCoordinatorServicer):
    """Takes parameters; the first element of each is its number."""

    def __init__(self):
        self.failures = collections.defaultdict(list)  # FQN -> what happens
        self.headers = []
        self.taken = {}  # FQN -> tensor
        self.streams = UnderWay()

    def UploadTensor(self, request_iterator, context):
        with self.streams.one():
            header = next(request_iterator).header
            self.headers.append(header)
            fqn = header.parameter or header.upload
            if self.failures[fqn]:
                self.failures[fqn].pop(0)(context)
            self.taken[fqn] = tensors.assemble(
                header.type, (m.chunk for m in request_iterator), fqn)
        return pb.UploadTensorResponse()


@pytest.fixture
def taker():
    return Taker()


@pytest.fixture
def rpc(taker):
    with served(taker, 16) as client:
        yield client


def sources(count, nbytes=8):
    return [(str(i), torch.full((nbytes // 8,), i), None)
            for i in range(count)]


def send(rpc, values):
    upload_parameters(rpc, DEPLOYMENT, values, tensors)


@pytest.mark.parametrize("nbytes", [8, 3 * MIB])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_each_comes_once(taker, rpc, count, nbytes):
    send(rpc, sources(count, nbytes))
    for fqn, tensor, _ in sources(count, nbytes):
        assert torch.equal(taker.taken[fqn], tensor)
    assert len(taker.headers) == len(taker.taken) == count
    assert len({h.request_id for h in taker.headers}) == count


def test_ids_are_of_their_tensors(taker, rpc):
    values = [tensor for _, tensor, _ in sources(20)]
    ids = upload_all(rpc, DEPLOYMENT, [(v, "x") for v in values], tensors)
    assert [int(taker.taken[i]) for i in ids] == list(range(20))


def test_small_ones_do_not_wait_for_each_other(taker, rpc):
    taker.streams.together = threading.Barrier(8)
    send(rpc, sources(8))
    assert len(taker.taken) == 8


@pytest.mark.parametrize("nbytes, most", [(3 * MIB, 1), (2 * MIB, 2), (8, 8)])
def test_few_large_ones_are_under_way(taker, rpc, nbytes, most):
    send(rpc, sources(12, nbytes))
    assert len(taker.taken) == 12
    assert taker.streams.most <= most


def test_values_are_made_when_they_are_sent(taker, rpc):
    """So what is converted on the way need not fit into memory all at once."""
    made = []

    def values():
        for fqn, tensor, rank in sources(6, 3 * MIB):
            made.append(len(taker.taken))
            yield fqn, tensor, rank

    send(rpc, values())
    assert made == [0, 0, 1, 2, 3, 4]


def test_an_error_ends_all(taker, rpc):
    begun = threading.Event()
    stays = Stays(begun.set)

    def fail(context):
        assert begun.wait(SECONDS)
        fails(grpc.StatusCode.INVALID_ARGUMENT, "NOT_THIS")(context)

    taker.failures["1"], taker.failures["2"] = [fail], [stays]
    with pytest.raises(sp.InvalidArgumentError) as raised:
        send(rpc, sources(30))
    assert raised.value.reason == "NOT_THIS"
    assert stays.ended.wait(SECONDS)  # and nobody waits for the second's end
    assert len(taker.headers) < 30


def test_who_is_interrupted_sends_no_more(taker, rpc):
    begun = threading.Event()
    stays = Stays(begun.set)
    taker.failures["0"] = [stays]

    # As by a signal, but never within gRPC's own locks, which would stay held.
    def interrupted(*_):
        assert begun.wait(SECONDS)
        raise KeyboardInterrupt

    rpc._ended = interrupted
    with pytest.raises(KeyboardInterrupt) as raised:
        send(rpc, sources(1))
    # And not because nobody has the call any more.
    assert stays.ended.wait(SECONDS) and raised.tb


def test_a_stream_that_breaks_off_is_sent_again(taker, rpc):
    gone = fails(grpc.StatusCode.UNAVAILABLE, "GONE")
    taker.failures["2"] = [gone, gone]
    send(rpc, sources(5))
    assert {fqn: int(t) for fqn, t in taker.taken.items()} == {
        str(i): i for i in range(5)}
    again = [h.request_id for h in taker.headers if h.parameter == "2"]
    assert len(again) == 3 and len(set(again)) == 1
    assert len(taker.headers) == 7
