"""A coordinator of the test's own: served, and failing as the real one does."""

import concurrent.futures
import contextlib
import threading

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from shardplane.rpc import Rpc
from shardplane.v1 import coordinator_pb2_grpc

SECONDS = 20  # for what takes milliseconds


def abort(context, code, message, *details):
    """Ends a call; `details`: messages of google.rpc."""
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message,
                               details=packed)
    context.set_trailing_metadata(
        (("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


def fails(code, reason):
    """A failure for a reason, which happens when it is called."""
    return lambda context: abort(
        context, code, reason, error_details_pb2.ErrorInfo(reason=reason))


class Stays:
    """A call that stays until it is cancelled, for longer than a test waits
    for that. `begun`: called once it stays."""

    def __init__(self, begun):
        self.ended = threading.Event()
        self._begun = begun

    def __call__(self, context):
        assert context.add_callback(self.ended.set)
        self._begun()
        assert self.ended.wait(2 * SECONDS)


class UnderWay:
    """Counts the streams that are under way together. `together`: a Barrier
    that each of them waits at, or None."""

    def __init__(self):
        self.together = None
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def one(self):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            if self.together is not None:
                self.together.wait(SECONDS)
            yield
        finally:
            with self._lock:
                self._now -= 1


@contextlib.contextmanager
def served(servicer, threads):
    """An Rpc to it."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(threads))
    coordinator_pb2_grpc.add_ShardingCoordinatorServicer_to_server(servicer,
                                                                   server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = Rpc(f"127.0.0.1:{port}")
    try:
        yield client
    finally:
        client.close()
        server.stop(None).wait()
