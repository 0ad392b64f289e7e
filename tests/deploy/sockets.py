"""Which TCP sockets there are in the network of a process."""

import collections
import pathlib
import struct

Socket = collections.namedtuple("Socket", "local remote")
ESTABLISHED, LISTEN = "01", "0A"


def _end(text):
    """(address, port); the last 32 bits of an IPv6 address that is mapped."""
    host, port = text.split(":")
    number = struct.pack("<I", int(host[-8:], 16))
    return ".".join(map(str, number)), int(port, 16)


def _in_state(pid, wanted):
    for name in ("tcp", "tcp6"):
        lines = pathlib.Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
        for line in lines[1:]:
            _, local, remote, state, *_ = line.split()
            if state == wanted:
                yield Socket(_end(local), _end(remote))


def listening(pid):
    return {socket.local[1] for socket in _in_state(pid, LISTEN)}


def established(pid):
    return set(_in_state(pid, ESTABLISHED))
