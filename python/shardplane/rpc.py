"""Calls to the coordinator: deadlines, retries, request ids, errors."""

import random
import time
import uuid

import grpc

from shardplane.errors import from_rpc
from shardplane.v1 import coordinator_pb2_grpc

# Retried calls carry the same request_id: a repeated one is answered.
_FIRST_BACKOFF_SECONDS = 0.05
_MAX_BACKOFF_SECONDS = 2.0
_RETRY_SECONDS = 15.0

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


def request_id():
    return str(uuid.uuid4())


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

    def close(self):
        self._channel.close()

    def call(self, method, request, timeout=60):
        """One unary call: retried on UNAVAILABLE alone."""
        call = getattr(self.stub, method)
        return self._retried(
            lambda: call(request, timeout=timeout))

    def upload(self, messages, timeout=300):
        """`messages`: makes the stream's messages, anew for each try."""
        return self._retried(
            lambda: self.stub.UploadTensor(messages(), timeout=timeout))

    def download(self, request, read, timeout=300):
        """`read`: makes a value of the stream."""
        return self._retried(lambda: read(
            self.stub.DownloadTensor(request, timeout=timeout)))

    def _retried(self, attempt):
        end = time.monotonic() + self._retry_seconds
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                return attempt()
            except grpc.RpcError as error:
                failure = from_rpc(error)
                wait = max(random.uniform(0, backoff),
                           failure.details.get("retry_seconds", 0))
                if (failure.code != "UNAVAILABLE" or
                        time.monotonic() + wait > end):
                    raise failure from None
            time.sleep(wait)
            backoff = min(2 * backoff, _MAX_BACKOFF_SECONDS)
