"""A coordinator of the test's own: served, and failing as the real one does."""

import concurrent.futures
import contextlib

import grpc
from google.protobuf import any_pb2
from google.rpc import status_pb2

from shardplane.rpc import Rpc
from shardplane.v1 import coordinator_pb2_grpc


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
