"""One Train stream: encoded steps go out, messages of results come in."""

import collections
import threading

import grpc

from shardplane.errors import from_rpc

# Steps that wait travel together up to this size; joining them copies them.
_MESSAGE_BYTES = 256 << 10


class TrainCall:
    """Made by Rpc.train. One thread uses it, and gRPC one of its own, which
    takes what waits to be sent."""

    def __init__(self, method):
        self._changed = threading.Condition()
        self._outbox = collections.deque()
        self._quiet_bytes = 0  # of them, since it was last said that some wait
        self._ended = False
        self._call = method(self._messages())

    def send(self, record):
        """A step, as step_wire.train_record has it. Never waits. It leaves
        after a flush, or once there is enough for a message."""
        with self._changed:
            self._outbox.append(record)
            self._quiet_bytes += len(record)
            if self._quiet_bytes >= _MESSAGE_BYTES:
                self._notify()

    def flush(self):
        """What was sent leaves."""
        with self._changed:
            self._notify()

    def _notify(self):
        self._quiet_bytes = 0
        self._changed.notify()

    def receive(self):
        """The results of the next message; None at the end of the stream.
        Raises its error, a ShardplaneError."""
        try:
            return list(next(self._call).steps)
        except StopIteration:
            return None
        except grpc.RpcError as error:
            self.end()
            raise from_rpc(error) from None

    def drop(self):
        """Takes back what waits to be sent: so many records, the last ones."""
        with self._changed:
            dropped = len(self._outbox)
            self._outbox.clear()
        return dropped

    def end(self):
        """Nothing more will be sent than what waits to be."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def finish(self):
        """Ends the stream; nothing is under way any more."""
        self.end()
        try:
            for _ in self._call:
                pass
        except grpc.RpcError:
            pass  # there is nothing that could still go wrong

    def _messages(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._outbox or self._ended)
                if not self._outbox:
                    return
                records = [self._outbox.popleft()]
                size = len(records[0])
                while (self._outbox and
                       size + len(self._outbox[0]) <= _MESSAGE_BYTES):
                    size += len(self._outbox[0])
                    records.append(self._outbox.popleft())
            yield records[0] if len(records) == 1 else b"".join(records)
