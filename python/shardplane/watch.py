"""What there is at a coordinator, and then what changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import grpc

from shardplane.errors import from_rpc
from shardplane.rpc import Rpc
from shardplane.v1 import coordinator_pb2 as pb


class Watch:
    """An iterator of WatchEvent messages, made by `watch` of a connection:

        for event in cluster.watch("workers", "deployments"):
            if event.type == pb.WatchEvent.TYPE_DELETED: ...

    First what there is, each as ADDED, then a BOOKMARK, then changes as they
    come; states that were over before they could be sent are left out. Ends
    when `close` is called, on any thread.

    A broken connection, and a coordinator that has found this reader too slow,
    are gone on from where it was. What cannot be gone on from is an error of
    code OUT_OF_RANGE: another coordinator has started, or too much has been
    deleted since. Watch anew then, and compare with what you know.
    """

    def __init__(self, rpc: Rpc, collections: Iterable[str] = (),
                 name: str = "", resume_version: str = "") -> None:
        self._rpc = rpc
        self._request = pb.WatchRequest(
            collections=collections, name=name, resume_version=resume_version)
        self._patience = rpc.patience()
        self._call = None
        self._events = iter(())
        self._closed = False

    @property
    def version(self) -> str:
        """To resume from: of the last event that was given out."""
        return self._request.resume_version

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> pb.WatchEvent:
        while not self._closed:
            event = next(self._events, None)
            if event is not None:
                self._request.resume_version = event.version
                return event
            self._read()
        raise StopIteration

    def _read(self):
        try:
            if self._call is None:
                self._call = self._rpc.stub.Watch(self._request)
            self._events = iter(next(self._call).events)
            self._patience.renew()
        except (grpc.RpcError, StopIteration) as error:
            self._call = None
            if not self._closed:
                self._go_on_after(error)

    def _go_on_after(self, error):
        if isinstance(error, StopIteration):
            return  # a server that ended it without an error
        failure = from_rpc(error)
        if failure.details.get("reason") == "WATCH_TOO_SLOW":
            return  # from where this reader is, which is no later
        if failure.code != "UNAVAILABLE":
            raise failure from None
        self._patience.wait(failure)

    def close(self) -> None:
        """Ends the iterator, also from another thread."""
        self._closed = True
        call = self._call
        if call is not None:
            call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
