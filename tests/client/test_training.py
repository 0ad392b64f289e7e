"""m.train's own logic: what is sent when, and what is given to the caller."""

import itertools
import weakref

import numpy as np
import pytest
import torch

import shardplane as sp
from shardplane import arrays, tensors
from shardplane.errors import (
    Code, InvalidArgumentError, NotFoundError, ShardplaneError,
    UnavailableError)
from shardplane.program_store import Call, Program
from shardplane.step_wire import step_parts, train_record
from shardplane.train_call import TrainCall
from shardplane.training import Training, batch_arguments
from shardplane.transfer import to_parts
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2


class Patience:
    """Gives up after `tries`."""

    def __init__(self, tries=3):
        self.tries = self.left = tries

    def renew(self):
        self.left = self.tries

    def wait(self, failure):
        self.left -= 1
        if self.left < 0:
            raise failure


class Stream:
    """Answers all that was sent, or what the script says instead."""

    def __init__(self, steps):
        self._steps = steps
        self._sent = []
        self.finished = False

    def send(self, record):
        self._sent.append(record)
        self._steps.records.append(record)

    def flush(self):
        pass

    def receive(self):
        number, _ = self._sent[0]
        if number in self._steps.failures:
            raise self._steps.failures.pop(number)
        count = self._steps.answers_at_a_time
        taken, self._sent = self._sent[:count], self._sent[count:]
        # A failure later in a message ends the stream before it.
        results = []
        for number, batch in taken:
            if number in self._steps.failures:
                self._sent = [(number, batch)]
                break
            results.append(pb.StepResult(number=number,
                                         duration_seconds=batch))
        return results

    def drop(self):
        dropped = self._steps.unsent
        if dropped:
            self._sent = self._sent[:-dropped]
        return dropped

    def end(self):
        pass

    def finish(self):
        self.finished = True


class Steps:
    """A handle whose losses are its batches. Even hundreds are programs."""

    def __init__(self):
        self.records = []       # (number, batch), as they were sent
        self.failures = {}      # number -> the error it ends with, once
        self.answers_at_a_time = 100
        self.unsent = 0         # of the last, when the stream is ended
        self.streams = []
        self.programs = {}
        self.made = []          # (program, steps that were sent before)
        self.last_step = 0
        self.busy = False

    def begin(self):
        self.busy = True
        return self.last_step + 1

    def end(self):
        self.busy = False

    def open(self):
        self.streams.append(Stream(self))
        return self.streams[-1]

    def call_of(self, batch):
        if batch < 0:
            raise InvalidArgumentError(f"batch {batch}")
        key = batch // 100
        program = self.programs.setdefault(key, Program(None, None, None, []))
        call = Call(program, [batch], [], [])
        call.key = key
        return call

    def has_program(self, call):
        return bool(call.program.name)

    def make_program(self, call):
        call.program.name = f"p{call.key}"
        self.made.append((call.program.name, len(self.records)))

    def forget_program(self, call):
        call.program.name = ""

    def record(self, call, number):
        return number, call.inputs[0]

    def applied(self, call, result):
        assert result.number == self.last_step + 1
        self.last_step = result.number

    def loss(self, result):
        return int(result.duration_seconds)


@pytest.fixture
def steps():
    return Steps()


def train(steps, batches, patience=None):
    return Training(steps, batches, patience or Patience()).losses()


def numbers(steps):
    return [number for number, _ in steps.records]


def test_losses_come_in_order(steps):
    assert list(train(steps, range(100))) == list(range(100))
    assert numbers(steps) == list(range(1, 101))
    assert not steps.busy and steps.streams[0].finished
    assert list(train(steps, [7, 8])) == [7, 8]
    assert steps.last_step == 102


def test_nothing_is_done_before_the_first_loss_is_asked_for(steps):
    losses = train(steps, iter(lambda: pytest.fail("read"), None))
    assert steps.streams == [] and not steps.busy
    losses.close()


def test_no_batch_no_stream(steps):
    assert list(train(steps, [])) == [] and steps.streams == []


@pytest.mark.parametrize("at_a_time", [1, 5, 100])
def test_reads_no_more_than_a_window_ahead(steps, at_a_time):
    steps.answers_at_a_time = at_a_time
    given = 0
    for loss in train(steps, itertools.cycle(range(100))):
        assert loss == given % 100
        given += 1
        assert len(steps.records) <= given + 31
        if given == 200:
            break
    assert len(steps.records) > 200


def test_several_are_under_way(steps):
    steps.answers_at_a_time = 1
    losses = train(steps, itertools.repeat(7))
    for _ in range(100):
        next(losses)
        under_way = len(steps.records) - steps.last_step
        assert 16 <= under_way <= 32


def test_batches_are_not_kept(steps):
    class Kept:
        pass
    alive = weakref.WeakSet()
    call_of = steps.call_of

    def call_with_tensors(batch):
        call = call_of(batch)
        call.tensors = Kept()
        alive.add(call.tensors)
        return call
    steps.call_of = call_with_tensors
    for _ in train(steps, itertools.repeat(7, 500)):
        assert len(alive) <= 33


def test_error_of_a_step_comes_after_the_losses_before_it(steps):
    steps.failures[5] = InvalidArgumentError("an id is out of range")
    losses = train(steps, range(10))
    assert list(itertools.islice(losses, 4)) == [0, 1, 2, 3]
    with pytest.raises(InvalidArgumentError, match="out of range"):
        next(losses)
    assert steps.last_step == 4 and not steps.busy
    assert list(losses) == []
    assert list(train(steps, [44])) == [44] and steps.last_step == 5


def test_error_of_a_batch_comes_after_the_losses_before_it(steps):
    losses = train(steps, [1, 2, -1, 3])
    assert [next(losses), next(losses)] == [1, 2]
    with pytest.raises(InvalidArgumentError, match="batch -1"):
        next(losses)
    assert steps.last_step == 2 and not steps.busy


def test_error_of_the_iterable_comes_after_the_losses_before_it(steps):
    def batches():
        yield from (1, 2)
        raise OSError("the file is gone")
    losses = train(steps, batches())
    assert [next(losses), next(losses)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(losses)


def test_what_cannot_be_iterated(steps):
    with pytest.raises(TypeError):
        next(train(steps, 5))
    assert not steps.busy


def test_early_end_waits_for_what_is_under_way(steps):
    steps.answers_at_a_time = 1
    losses = train(steps, itertools.count())
    assert [next(losses), next(losses)] == [0, 1]
    sent = len(steps.records)
    losses.close()
    assert steps.last_step == sent == len(steps.records)
    assert not steps.busy and steps.streams[0].finished


def test_early_end_takes_back_what_has_not_left(steps):
    steps.answers_at_a_time = 1
    losses = train(steps, itertools.count())
    next(losses)
    steps.unsent = 10
    losses.close()
    assert steps.last_step == len(steps.records) - 10


def test_early_end_of_steps_that_fail(steps):
    steps.answers_at_a_time = 1
    steps.failures[5] = InvalidArgumentError("boom")
    losses = train(steps, itertools.count())
    next(losses)
    losses.close()
    assert steps.last_step == 4 and not steps.busy


@pytest.mark.parametrize("error", [
    UnavailableError("gone"),
    ShardplaneError("idle", code=Code.CANCELLED)], ids=["lost", "idle"])
def test_broken_stream_is_opened_again(steps, error):
    steps.answers_at_a_time = 3
    steps.failures[7] = error
    assert list(train(steps, range(60))) == list(range(60))
    assert len(steps.streams) == 2
    # The same steps under the same numbers, from the first without an answer.
    first = numbers(steps).index(7)
    again = numbers(steps).index(7, first + 1)
    assert steps.records[first] == steps.records[again]
    assert numbers(steps)[again:] == list(range(7, 61))


def test_patience_ends(steps):
    class Gone(dict):
        def pop(self, number):
            return UnavailableError("gone")
    steps.failures = Gone({4: None})
    losses = train(steps, range(10))
    assert list(itertools.islice(losses, 3)) == [0, 1, 2]
    with pytest.raises(UnavailableError):
        next(losses)
    assert len(steps.streams) > 3


def test_stream_that_ends_without_a_word_is_opened_again(steps):
    answered = Stream.receive
    ends = iter([True])

    class Ending(Stream):
        def receive(self):
            return None if next(ends, False) else answered(self)
    steps.open = lambda: Ending(steps)
    assert list(train(steps, range(3))) == [0, 1, 2]


def test_another_program_waits_for_what_is_under_way(steps):
    steps.answers_at_a_time = 1
    batches = [*range(20), 100, 101, 5, 200]
    assert list(train(steps, batches)) == batches
    assert steps.made == [("p0", 0), ("p1", 20), ("p2", 23)]
    assert len(steps.streams) == 1


def test_dropped_program_is_made_again(steps):
    steps.failures[3] = NotFoundError(
        "no program", {"resource": {"name": "p0"}})
    assert list(train(steps, range(5))) == list(range(5))
    assert [name for name, _ in steps.made] == ["p0", "p0"]


def test_program_that_stays_unknown_is_an_error(steps):
    error = NotFoundError("no program", {"resource": {"name": "p0"}})

    class Always(dict):
        def pop(self, number):
            return error
    steps.failures = Always({3: None})
    losses = train(steps, range(5))
    assert [next(losses), next(losses)] == [0, 1]
    with pytest.raises(NotFoundError):
        next(losses)


# ----------------------------------------------------------------- batches

X, Y, Z = "x", "y", "z"


@pytest.mark.parametrize("batch, takes_targets, expected", [
    (X, False, ((X,), {}, ())),
    ((X, Y), False, ((X, Y), {}, ())),
    ([X, Y], False, ((X, Y), {}, ())),
    ({"a": X}, False, ((), {"a": X}, ())),
    ((X, Y), True, ((X,), {}, (Y,))),
    ([X, Y], True, ((X,), {}, (Y,))),
    (((X, Y), Z), True, ((X, Y), {}, (Z,))),
    (({"a": X}, [Y, Z]), True, ((), {"a": X}, (Y, Z))),
    ((X, ()), True, ((X,), {}, ())),
])
def test_batches(batch, takes_targets, expected):
    assert batch_arguments(batch, takes_targets) == expected


@pytest.mark.parametrize("batch, got", [
    (X, "str"), ((X,), "1 items"), ((X, Y, Z), "3 items")])
def test_batch_without_targets(batch, got):
    with pytest.raises(InvalidArgumentError, match=f"targets, got: {got}"):
        batch_arguments(batch, True)


# ------------------------------------------------------------------- bytes


@pytest.mark.parametrize("codec, values", [
    (tensors, [torch.arange(6.).reshape(2, 3), torch.tensor(True),
               torch.zeros(0, 3, dtype=torch.int64),
               torch.ones(2, 2, dtype=torch.bfloat16),
               torch.arange(6.).reshape(2, 3).T,
               torch.ones(3, requires_grad=True),
               torch.ones(2, dtype=torch.cfloat).conj().imag]),
    (arrays, [np.arange(6.).reshape(2, 3), np.array(True),
              np.zeros((0, 3), np.int64), np.arange(6.).reshape(2, 3).T,
              np.arange(3, dtype=">i4")]),
], ids=["torch", "numpy"])
def test_encoded_step_is_what_protobuf_has(codec, values):
    head = pb.StepRequest(deployment="deployments/d", step=300, epoch=9)
    train_action = pb.StepRequest.Train(program="p", clip_norm=0.5)
    inputs, targets = to_parts(None, None, values, values[:1], codec)
    parts = step_parts(head.SerializeToString(),
                       train_action.SerializeToString(), inputs, targets)
    request = pb.StepRequest.FromString(b"".join(parts))
    for i, value in enumerate(values):
        train_action.inputs.append(codec.inline(value, f"{i}"))
    train_action.targets.append(codec.inline(values[0], "0"))
    head.train.CopyFrom(train_action)
    assert request == head
    record = train_record(parts)
    assert pb.TrainRequest.FromString(record + record).steps == [head, head]


class Uploads:
    """As an Rpc. `sent`: bytes of each."""

    def __init__(self):
        self.sent = []

    def uploads(self, uploads):
        self.sent += [upload.size for upload in uploads]


def test_large_values_are_uploaded():
    rpc = Uploads()
    mib = torch.zeros(1 << 18)
    (inputs, targets) = to_parts(
        rpc, pb.Deployment(), [mib, torch.zeros((1 << 18) + 1), mib],
        [mib, mib[:1]], tensors)
    kinds = [types_pb2.Tensor.FromString(b"".join(parts)).WhichOneof("data")
             for parts in [*inputs, *targets]]
    assert kinds == ["inline", "upload", "inline", "inline", "upload"]
    assert rpc.sent == [(1 << 20) + 4, 4]


# ------------------------------------------------------------------ streams


def test_records_that_wait_travel_together():
    messages = []
    call = TrainCall(lambda iterator: messages.append(iterator) or iter(()))
    for size in (3, 5, 300 << 10, 7):
        call.send(b"x" * size)
    iterator = messages[0]
    assert [len(next(iterator)) for _ in range(2)] == [8, 300 << 10]
    assert call.drop() == 1  # the last one has not left
    call.send(b"y")
    call.end()
    assert list(iterator) == [b"y"]


def test_the_optimizer_and_the_loss_are_checked_at_once(deployed):
    with pytest.raises(ValueError, match="optimizer"):
        deployed.train([], loss="sum")
    with pytest.raises(ValueError, match="loss"):
        deployed.train([], optimizer=sp.SGD(lr=1))
    with pytest.raises(TypeError, match="loss"):
        deployed.train([], optimizer=sp.SGD(lr=1), loss=5)


@pytest.fixture
def deployed(cluster):
    with cluster.parallelize_module(torch.nn.Linear(2, 2), {"tp": 1},
                                    {}) as m:
        yield m
