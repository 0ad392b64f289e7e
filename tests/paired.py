"""Two clusters that are asked the same: one client, every answer twice.

What a test does through a PairedCluster happens on both, and each answer of the
second is compared with the first's before the test sees that: results to the
bit, counts of collectives, reports, errors. So a test that passes has passed on
both, and what it costs twice is the workers' part alone.
"""

import collections
import concurrent.futures
import dataclasses
import difflib
import functools
import itertools
import json

from shardplane.connection import Connection
from shardplane.errors import ShardplaneError
from shardplane.rpc import Download, Upload
from shardplane.v1 import coordinator_pb2 as pb

# Of a message, what two clusters may say differently: when, how long, and what
# stands for a process or its start.
_OWN = {"uid", "create_time", "update_time", "etag", "epoch",
        "duration_seconds", "timing", "state_time", "incarnation", "address",
        "http_address", "operation",
        "peak_run_bytes"}  # a transport may stage what it sends
_LARGE = {"module", "report"}  # and nothing of these in it


class PairedCluster(Connection):
    """Of two LocalClusters, which nobody else asks for deployments."""

    def __init__(self, first, second):
        self.first, self.second = first, second
        self.rpc = PairedRpc(first.rpc, second.rpc)


class PairedRpc:
    """As shardplane.rpc.Rpc."""

    def __init__(self, first, second):
        self.address = first.address
        self._first, self._second = first, second
        self._numbers = itertools.count()
        self._epochs = {0: 0}  # the second's, by the first's
        # The second is asked by a thread, while the first is.
        self._thread = concurrent.futures.ThreadPoolExecutor(1)

    def close(self):
        """The clusters' own connections stay."""
        self._thread.shutdown()

    def call(self, method, request, timeout=60):
        if method == "CreateDeployment" and not request.deployment_id:
            # Each would make one up.
            request.deployment_id = f"pair-{next(self._numbers)}"
        other = self._for_second(request)
        return self._both(method,
                          lambda: self._first.call(method, request, timeout),
                          lambda: self._second.call(method, other, timeout))

    def upload(self, messages):
        self.uploads([Upload(messages)])

    def uploads(self, uploads):
        uploads = list(uploads)
        others = [dataclasses.replace(
            u, messages=functools.partial(self._messages_for_second, u))
            for u in uploads]
        self._both("UploadTensor", lambda: self._first.uploads(uploads),
                   lambda: self._second.uploads(others))

    def _messages_for_second(self, upload):
        for message in upload.messages():
            if message.HasField("header"):
                header = self._for_second(message.header)
                message = pb.UploadTensorRequest(header=header)
            yield message

    def download(self, request, read):
        [value] = self.downloads([Download(request, read)])
        return value

    def downloads(self, downloads, missing=None):
        others = [dataclasses.replace(d, request=self._for_second(d.request))
                  for d in downloads]
        return self._both(
            "DownloadTensor",
            lambda: self._first.downloads(downloads, missing),
            lambda: self._second.downloads(others, missing))

    def step(self, request, timeout):
        other = self._for_second(pb.StepRequest.FromString(request))
        return self._both(
            "Step", lambda: self._first.step(request, timeout),
            lambda: self._second.step(other.SerializeToString(), timeout))

    def train(self):
        return PairedTrainCall(self._first.train(), self._second.train(),
                               self._for_second)

    def patience(self):
        return self._first.patience()

    def _for_second(self, request):
        if not getattr(request, "epoch", 0):
            return request
        other = type(request)()
        other.CopyFrom(request)
        other.epoch = self._epochs[request.epoch]
        return other

    def _both(self, what, first, second):
        other = self._thread.submit(_outcome, second)
        answer, other = _outcome(first), other.result()
        expect_same(what, answer, other)
        if isinstance(answer, pb.Deployment):
            self._epochs[answer.epoch] = other.epoch
        if isinstance(answer, ShardplaneError):
            raise answer
        return answer


class PairedTrainCall:
    """As shardplane.train_call.TrainCall. The results of a message from one
    may come in several from the other."""

    def __init__(self, first, second, for_second):
        self._first, self._second = first, second
        self._for_second = for_second
        self._others = collections.deque()

    def send(self, record):
        self._first.send(record)
        steps = pb.TrainRequest.FromString(record).steps
        self._second.send(pb.TrainRequest(
            steps=map(self._for_second, steps)).SerializeToString())

    def flush(self):
        self._first.flush()
        self._second.flush()

    def receive(self):
        answer = _outcome(self._first.receive)
        if not isinstance(answer, list):
            expect_same("Train", answer, self._other())
            if isinstance(answer, ShardplaneError):
                raise answer
            return None
        for result in answer:
            expect_same("Train", result, self._other())
        return answer

    def end(self):
        self._first.end()
        self._second.end()

    def drop(self):
        return 0  # not all that one has sent may be back at the other

    def finish(self):
        self._first.finish()
        self._second.finish()

    def _other(self):
        """The second's next result; its error, or None at its end."""
        if not self._others:
            answer = _outcome(self._second.receive)
            if not isinstance(answer, list):
                return answer
            self._others.extend(answer)
        return self._others.popleft()


def _outcome(ask):
    try:
        return ask()
    except ShardplaneError as error:
        return error


def expect_same(what, first, second):
    first, second = _comparable(first), _comparable(second)
    if first != second:
        lines = ["\n".join(map(str, side)).splitlines()
                 for side in (first, second)]
        raise AssertionError(f"{what}: the clusters differ:\n" + "\n".join(
            difflib.unified_diff(*lines, lineterm="", n=2)))


def _comparable(answer):
    """Its type and more: of a tensor its shape and bytes, else text. Both tell
    NaN from other numbers and -0 from 0."""
    if answer is None:
        return (None,)
    if isinstance(answer, ShardplaneError):
        # Maps come in any order.
        details = json.dumps(answer.details, sort_keys=True, default=str)
        return type(answer), str(answer), details
    if isinstance(answer, list):
        return [_comparable(value) for value in answer]
    if hasattr(answer, "ListFields"):
        copy = type(answer)()
        copy.CopyFrom(answer)
        _clear_own(copy)
        return type(answer), str(copy)
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu()
        return answer.dtype, tuple(answer.shape), _torch_bytes(answer)
    return answer.dtype, answer.shape, answer.tobytes()


def _torch_bytes(tensor):
    import torch
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _clear_own(message):
    for field, value in message.ListFields():
        if field.name in _OWN:
            message.ClearField(field.name)
        elif field.message_type is None or field.name in _LARGE:
            continue
        elif hasattr(value, "ListFields"):
            _clear_own(value)
        elif not field.message_type.GetOptions().map_entry:
            for item in value:
                _clear_own(item)
