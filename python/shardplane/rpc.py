"""Calls to the coordinator: deadlines, retries, request ids, errors."""

import random
import time
import uuid

import grpc

from shardplane.errors import from_rpc
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
)


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

    def upload(self, messages, timeout=300):
        """`messages`: makes the stream's messages, anew for each try."""
        return self._retried(
            lambda: self.stub.UploadTensor(messages(), timeout=timeout))

    def download(self, request, read, timeout=300):
        """`read`: makes a value of the stream."""
        return self._retried(lambda: read(
            self.stub.DownloadTensor(request, timeout=timeout)))

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
