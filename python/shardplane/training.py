"""m.train: steps over an iterable, of which several are under way."""

import collections
import dataclasses
from collections.abc import Mapping

from shardplane.errors import Code, NotFoundError, ShardplaneError, invalid

# Steps that are sent and not answered, at most; the coordinator takes 64.
_WINDOW = 32
# After a stream that ended so another one is opened, and what was sent is sent
# again, under its numbers, so that it is done once. The coordinator cancels
# streams on which nothing has come for minutes.
_BROKEN = (Code.UNAVAILABLE, Code.CANCELLED)


def batch_arguments(batch, takes_targets):
    """(inputs, kwargs, targets) of a batch, as m.train's documentation says."""
    targets = ()
    if takes_targets:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            got = (f"{len(batch)} items" if isinstance(batch, (tuple, list))
                   else type(batch).__name__)
            raise invalid(
                "batch: expected (inputs, targets), since the loss takes "
                f"targets, got: {got}", reason="BATCH_SHAPE", field="batch")
        batch, targets = batch
        if not isinstance(targets, (tuple, list)):
            targets = (targets,)
    if isinstance(batch, Mapping):
        return (), dict(batch), tuple(targets)
    if isinstance(batch, (tuple, list)):
        return tuple(batch), {}, tuple(targets)
    return (batch,), {}, tuple(targets)


@dataclasses.dataclass
class _Sent:
    """A step without its answer."""

    call: object    # a Call
    record: bytes   # as it was sent


class Training:
    """One m.train. `steps` is what the handle offers (TrainingSteps):

    begin()                the first step's number; nobody else takes steps
    end()                  others may again
    open()                 a TrainCall
    call_of(batch)         the Call of a batch
    has_program(call)      whether the coordinator has its program
    make_program(call)     sees to that
    forget_program(call)   the coordinator has dropped it
    record(call, number)   the step, encoded
    applied(call, result)  the step has taken effect
    loss(result)           the step's loss, for the caller
    """

    def __init__(self, steps, batches, patience):
        self._steps = steps
        self._batches = batches
        self._patience = patience
        self._stream = None
        self._number = None               # of the next step
        self._sent = collections.deque()
        self._results = collections.deque()  # not given yet
        self._waiting = None      # a Call whose program is to be made first
        self._exhausted = False
        self._error = None        # raised once all before it is given
        self._remade = None       # the last program that was made again

    def losses(self):
        """The generator."""
        self._number = self._steps.begin()
        try:
            self._batches = iter(self._batches)
            while True:
                self._fill()
                if self._sent and not self._results:
                    self._receive()
                if self._results:
                    yield self._steps.loss(self._results.popleft())
                elif self._error is not None:
                    raise self._error
                elif self._exhausted and not self._sent:
                    return
        finally:
            try:
                self._close()
            finally:
                self._steps.end()

    def _fill(self):
        """Sends steps, a half of the window at a time: so they travel
        together, while the workers have the other half."""
        if len(self._sent) > _WINDOW // 2:
            return
        while (len(self._sent) + len(self._results) < _WINDOW
               and not self._exhausted and self._error is None):
            try:
                if not self._send_next():
                    break
            except Exception as error:  # the batch's own, in its turn
                self._error = error
        if self._stream is not None:
            self._stream.flush()

    def _send_next(self):
        """False: not yet, or no more."""
        call = self._waiting
        if call is None:
            try:
                batch = next(self._batches)
            except StopIteration:
                self._exhausted = True
                return False
            call = self._steps.call_of(batch)
        if not self._steps.has_program(call):
            # The coordinator makes it when nothing is under way.
            self._waiting = call
            if self._sent:
                return False
            self._steps.make_program(call)
        self._waiting = None
        self._send(_Sent(call, self._steps.record(call, self._number)))
        self._number += 1
        return True

    def _send(self, sent):
        self._sent.append(sent)
        if self._stream is None:
            self._stream = self._steps.open()
        self._stream.send(sent.record)

    def _receive(self):
        """Waits for results, or for the end of the stream."""
        if self._stream is None:
            self._send_again()
        try:
            results = self._stream.receive()
        except ShardplaneError as failure:
            self._stream = None
            self._recover(failure)
            return
        if results is None:
            self._stream = None  # it ended without a word on what was sent
            return
        self._patience.renew()
        for result in results:
            self._steps.applied(self._sent.popleft().call, result)
            self._results.append(result)

    def _send_again(self):
        self._stream = self._steps.open()
        for sent in self._sent:
            self._stream.send(sent.record)
        self._stream.flush()

    def _recover(self, failure):
        """What was sent is sent again, unless `failure` is the first step's
        own: then those behind it have come to nothing."""
        if failure.code in _BROKEN:
            self._patience.wait(failure)
            return
        call = self._sent[0].call
        if isinstance(failure, NotFoundError) and (
                failure.details.get("resource", {}).get("name") ==
                call.program.name != self._remade):
            self._steps.forget_program(call)
            self._steps.make_program(call)
            self._remade = call.program.name
            return
        self._sent.clear()
        self._error = failure

    def _close(self):
        """Waits for what was sent: so it is known which steps took effect."""
        if self._stream is not None:
            for _ in range(self._stream.drop()):
                self._sent.pop()
            self._stream.end()
        while self._sent:
            self._receive()
        if self._stream is not None:
            self._stream.finish()
