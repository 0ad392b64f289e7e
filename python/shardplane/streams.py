"""Streams of bytes: chunks with a checksum over all of them."""

import zlib

from shardplane.errors import DataLossError
from shardplane.v1 import types_pb2 as pb

CHUNK_BYTES = 1 << 20


def chunks(array):
    """TensorData messages of a flat uint8 array; at least one."""
    data = memoryview(array)
    crc = 0
    for start in range(0, max(len(data), 1), CHUNK_BYTES):
        piece = data[start:start + CHUNK_BYTES]
        crc = zlib.crc32(piece, crc)
        last = start + CHUNK_BYTES >= len(data)
        yield pb.TensorData(data=bytes(piece), last=last,
                            crc32=crc if last else 0)


def joined(pieces, where):
    """The bytes, a bytearray, of a stream of TensorData; `where`: for errors.
    """
    data = bytearray()
    crc, last = 0, False
    for piece in pieces:
        data += piece.data
        crc = zlib.crc32(piece.data, crc)
        if piece.last:
            last = True
            if piece.crc32 != crc:
                raise DataLossError(
                    f"{where}: checksum {piece.crc32:#x} expected, got: "
                    f"{crc:#x}", {"reason": "CHECKSUM"})
    if not last:
        raise DataLossError(
            f"{where}: the stream ended early, got: {len(data)} bytes",
            {"reason": "STREAM_CUT"})
    return data
