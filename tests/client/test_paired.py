"""Two clusters that are asked the same (tests/paired.py): what it lets pass and
what it does not. The clusters are stand-ins that give prepared answers."""

import math

import pytest
import torch

from shardplane.errors import FailedPreconditionError, UnavailableError
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2
from tests.paired import PairedRpc, PairedTrainCall, expect_same


class StandIn:
    """Answers in turn, and remembers what it was asked."""

    address = "127.0.0.1:1"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def _next(self, request):
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self, method, request, timeout):
        del method, timeout
        return self._next(request)

    def uploads(self, uploads):
        for upload in uploads:
            self._next([pb.UploadTensorRequest.FromString(
                m.SerializeToString()) for m in upload.messages()])

    def downloads(self, downloads, missing=None):
        del missing
        return [d.read(self._next(d.request)) for d in downloads]

    def step(self, request, timeout):
        del timeout
        return self._next(pb.StepRequest.FromString(request))


def paired(first, second):
    return PairedRpc(StandIn(*first), StandIn(*second))


def result(**fields):
    return pb.StepResult(number=1, **fields)


def test_the_same_answer_is_given():
    answer = result(gradient_norm=math.nan)
    rpc = paired([answer], [result(gradient_norm=math.nan)])
    assert rpc.call("GetStep", pb.GetStepRequest(name="n")) is answer


@pytest.mark.parametrize("other", [
    result(gradient_norm=math.nextafter(1, 2)), result(),
    result(gradient_norm=1, collectives=[types_pb2.CollectiveCount(count=1)]),
    FailedPreconditionError("no")], ids=range(4))
def test_another_answer_is_not(other):
    rpc = paired([result(gradient_norm=1)], [other])
    with pytest.raises(AssertionError, match="GetStep: the clusters differ"):
        rpc.call("GetStep", pb.GetStepRequest(name="n"))


def test_zeros_of_another_sign_differ():
    expect_same("x", torch.zeros(2), torch.zeros(2))
    with pytest.raises(AssertionError):
        expect_same("x", torch.zeros(2), -torch.zeros(2))


@pytest.mark.parametrize("other", [
    torch.zeros(2, dtype=torch.int32), torch.zeros(2, 1), torch.zeros(1)],
    ids=["type", "shape", "size"])
def test_tensors_of_another_kind_differ(other):
    with pytest.raises(AssertionError):
        expect_same("x", torch.zeros(2), other)


@pytest.mark.parametrize("other", [
    [torch.ones(1), -torch.zeros(1)], [torch.ones(1), None], [torch.ones(1)]],
    ids=["bits", "missing", "fewer"])
def test_one_of_several_tensors_differs(other):
    same = [torch.ones(1), torch.zeros(1)]
    expect_same("x", same, [value.clone() for value in same])
    with pytest.raises(AssertionError):
        expect_same("x", same, other)


def test_times_may_differ():
    rpc = paired([result(duration_seconds=1, epoch=5)],
                 [result(duration_seconds=2, epoch=6)])
    rpc.call("GetStep", pb.GetStepRequest(name="n"))


def test_the_same_error_is_raised():
    details = {"reason": "R", "metadata": {"a": "1", "b": "2"}}
    other = {"reason": "R", "metadata": {"b": "2", "a": "1"}}
    rpc = paired([FailedPreconditionError("no", details)],
                 [FailedPreconditionError("no", other)])
    with pytest.raises(FailedPreconditionError, match="no"):
        rpc.call("GetStep", pb.GetStepRequest(name="n"))


@pytest.mark.parametrize("other", [
    FailedPreconditionError("yes"), UnavailableError("no"),
    FailedPreconditionError("no", {"reason": "R"})], ids=range(3))
def test_another_error_is_not(other):
    rpc = paired([FailedPreconditionError("no")], [other])
    with pytest.raises(AssertionError, match="the clusters differ"):
        rpc.call("GetStep", pb.GetStepRequest(name="n"))


def test_both_make_a_deployment_of_one_name_and_each_hears_of_its_epoch():
    rpc = paired(
        [pb.Deployment(epoch=5), result(), pb.UploadTensorResponse(), "bytes"],
        [pb.Deployment(epoch=9), result(), pb.UploadTensorResponse(), "bytes"])
    rpc.call("CreateDeployment", pb.CreateDeploymentRequest())
    rpc.step(pb.StepRequest(epoch=5, step=1).SerializeToString(), 60)

    def messages():
        yield pb.UploadTensorRequest(
            header=pb.UploadTensorRequest.Header(epoch=5))
        yield pb.UploadTensorRequest(
            chunk=types_pb2.TensorData(data=b"abc", last=True))

    rpc.upload(messages)
    rpc.download(pb.DownloadTensorRequest(epoch=5),
                 lambda _: torch.zeros(1))
    first, second = rpc._first.asked, rpc._second.asked
    assert first[0] == second[0] and first[0].deployment_id == "pair-0"
    assert (first[1].epoch, second[1].epoch) == (5, 9)
    assert first[1].step == second[1].step == 1
    assert (first[2][0].header.epoch, second[2][0].header.epoch) == (5, 9)
    assert first[2][1] == second[2][1] and len(second[2]) == 2
    assert (first[3].epoch, second[3].epoch) == (5, 9)


class StandInTrain:
    """A Train stream whose messages are prepared."""

    def __init__(self, *messages):
        self.messages = list(messages)
        self.sent = []

    def send(self, record):
        self.sent += pb.TrainRequest.FromString(record).steps

    def receive(self):
        message = self.messages.pop(0) if self.messages else None
        if isinstance(message, Exception):
            raise message
        return message


def steps(*numbers):
    return [pb.StepResult(number=number) for number in numbers]


def received(first, second):
    train = PairedTrainCall(StandInTrain(*first), StandInTrain(*second),
                            lambda step: step)
    found = []
    while (message := train.receive()) is not None:
        found += [step.number for step in message]
    return found


def test_results_of_a_stream_may_come_together_or_apart():
    assert received([steps(1, 2), steps(3)], [steps(1), steps(2, 3)]) == \
        [1, 2, 3]


@pytest.mark.parametrize("second", [
    [steps(1, 2), steps(4)], [steps(1, 2)], [steps(1, 2), steps(3, 4)],
    [steps(1, 2), UnavailableError("gone")]], ids=range(4))
def test_other_results_of_a_stream_are_found(second):
    with pytest.raises(AssertionError, match="Train: the clusters differ"):
        received([steps(1, 2), steps(3)], second)


def test_the_same_error_of_a_stream():
    with pytest.raises(UnavailableError):
        received([steps(1), UnavailableError("gone")],
                 [steps(1), UnavailableError("gone")])


def test_steps_of_a_stream_are_sent_to_both():
    first, second = StandInTrain(), StandInTrain()

    def for_second(step):
        return pb.StepRequest(step=step.step, epoch=9)

    PairedTrainCall(first, second, for_second).send(pb.TrainRequest(
        steps=[pb.StepRequest(step=1, epoch=5),
               pb.StepRequest(step=2, epoch=5)]).SerializeToString())
    assert [(s.step, s.epoch) for s in first.sent] == [(1, 5), (2, 5)]
    assert [(s.step, s.epoch) for s in second.sent] == [(1, 9), (2, 9)]
