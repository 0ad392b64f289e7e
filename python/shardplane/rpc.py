"""Calls to the coordinator: deadlines, retries, request ids, errors."""

import collections
import dataclasses
import itertools
import math
import random
import time
import uuid
from collections.abc import Callable

import grpc
import grpc.experimental

from shardplane.errors import ShardplaneError, from_rpc
from shardplane.train_call import TrainCall
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import coordinator_pb2_grpc

# Retried calls carry the same request_id: a repeated one is answered.
_FIRST_BACKOFF_SECONDS = 0.05
_MAX_BACKOFF_SECONDS = 2.0
_RETRY_SECONDS = 15.0

_SERVICE = "/shardplane.v1.ShardingCoordinator/"

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Who reads a stream waits for it itself, and no other thread wakes it.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
)
# How many tensors are under way at a time, and what they may weigh together: a
# download waits at the coordinator until it is read.
_STREAMS = 8
_AHEAD_BYTES = 4 << 20
_TENSOR_SECONDS = 300


def request_id():
    return str(uuid.uuid4())


class Patience:
    """How long and how often a call is tried again."""

    def __init__(self, seconds):
        self._seconds = seconds
        self.renew()

    def renew(self):
        """Something has come of it."""
        self._end = time.monotonic() + self._seconds
        self._backoff = _FIRST_BACKOFF_SECONDS

    def wait(self, failure):
        """Before the next try after `failure`; raises that if it is over."""
        wait = max(random.uniform(0, self._backoff),
                   failure.details.get("retry_seconds", 0))
        if time.monotonic() + wait > self._end:
            raise failure
        time.sleep(wait)
        self._backoff = min(2 * self._backoff, _MAX_BACKOFF_SECONDS)


@dataclasses.dataclass(frozen=True)
class Download:
    """Of a tensor. `read`: makes a value of the stream; `size`: bytes, about."""

    request: pb.DownloadTensorRequest
    read: Callable
    size: float = math.inf


@dataclasses.dataclass(frozen=True)
class Upload:
    """Of a tensor. `messages`: makes the stream's messages, anew for each try;
    `size`: bytes, about."""

    messages: Callable
    size: float = math.inf


class _Ahead:
    """Calls that are begun before those in front of them have ended: as many
    as fit, one in any case. Iterates over (transfer, call). `transfers`:
    Downloads or Uploads, drawn from one ahead of what is begun."""

    def __init__(self, transfers, begin):
        self._transfers = iter(transfers)
        self._begin = begin
        self._begun = collections.deque()  # (transfer, call)
        self._given = None  # the call that is waited for
        self._next = next(self._transfers, None)

    def __iter__(self):
        while self._next or self._begun:
            self._begin_what_fits()
            transfer, self._given = self._begun.popleft()
            yield transfer, self._given

    def cancel(self):
        """Also the call that was given last, where it has not ended."""
        if self._given is not None:
            self._given.cancel()
        for _, call in self._begun:
            call.cancel()

    def _begin_what_fits(self):
        total = sum(transfer.size for transfer, _ in self._begun)
        while self._next and len(self._begun) < _STREAMS:
            total += self._next.size
            if self._begun and total > _AHEAD_BYTES:
                return
            self._begun.append((self._next, self._begin(self._next)))
            self._next = next(self._transfers, None)


class Rpc:
    """A channel to a coordinator. Any thread may call it."""

    def __init__(self, address, credentials=None,
                 retry_seconds=_RETRY_SECONDS):
        self.address = address
        self._retry_seconds = retry_seconds
        self._channel = (
            grpc.secure_channel(address, credentials, _OPTIONS)
            if credentials is not None else
            grpc.insecure_channel(address, _OPTIONS))
        self.stub = coordinator_pb2_grpc.ShardingCoordinatorStub(
            self._channel)
        # Of bytes: see step_wire.
        self._step = self._channel.unary_unary(
            _SERVICE + "Step",
            response_deserializer=pb.StepResult.FromString)
        self._train = self._channel.stream_stream(
            _SERVICE + "Train",
            response_deserializer=pb.TrainResponse.FromString)

    def close(self):
        self._channel.close()

    def call(self, method, request, timeout=60):
        """One unary call: retried on UNAVAILABLE alone."""
        call = getattr(self.stub, method)
        return self._retried(
            lambda: call(request, timeout=timeout))

    def step(self, request, timeout):
        """Step, of an encoded request: as `call`."""
        return self._retried(lambda: self._step(request, timeout=timeout))

    def train(self):
        """One stream of steps, for as long as it lasts."""
        return TrainCall(self._train)

    def patience(self):
        return Patience(self._retry_seconds)

    def upload(self, messages):
        """One tensor: see Upload."""
        self.uploads([Upload(messages)])

    def uploads(self, uploads):
        """Small ones do not wait until those in front of them have come to
        the coordinator. `uploads` is drawn from as they are sent."""
        self._transferred(uploads, self._begin_upload,
                          lambda upload, call: call.result())

    def download(self, request, read):
        """`read`: makes a value of the stream."""
        [value] = self.downloads([Download(request, read)])
        return value

    def downloads(self, downloads, missing=None):
        """Their values, where one fails for the reason `missing` None. Small
        ones are asked for before those in front of them have come."""
        return self._transferred(
            downloads, self._begin_download,
            lambda download, stream: download.read(stream), missing)

    def _begin_upload(self, upload):
        return self.stub.UploadTensor.future(upload.messages(),
                                             timeout=_TENSOR_SECONDS)

    def _begin_download(self, download):
        return self.stub.DownloadTensor(download.request,
                                        timeout=_TENSOR_SECONDS)

    def _transferred(self, transfers, begin, end, missing=None):
        begun = _Ahead(transfers, begin)
        try:
            return [self._ended(transfer, call, begin, end, missing)
                    for transfer, call in begun]
        finally:
            begun.cancel()

    def _ended(self, transfer, call, begin, end, missing):
        calls = itertools.chain([call], iter(lambda: begin(transfer), None))
        try:
            return self._retried(lambda: end(transfer, next(calls)))
        except ShardplaneError as error:
            if missing is None or error.reason != missing:
                raise
            return None

    def _retried(self, attempt):
        patience = self.patience()
        while True:
            try:
                return attempt()
            except grpc.RpcError as error:
                failure = from_rpc(error)
            if failure.code != "UNAVAILABLE":
                raise failure from None
            patience.wait(failure)
