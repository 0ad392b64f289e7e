"""Training steps as bytes: those of tensors are copied once, into the message.

What is put together here are fields with their tags and lengths; all messages
but the outermost are encoded by protobuf.
"""

import functools

from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2


@functools.lru_cache(4096)
def _varint(value):
    encoded = bytearray()
    while value > 0x7f:
        encoded.append(value & 0x7f | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _tag(message, name):
    """Of a field that is a message or bytes."""
    return _varint(message.DESCRIPTOR.fields_by_name[name].number << 3 | 2)


_TYPE = _tag(types_pb2.Tensor, "type")
_INLINE = _tag(types_pb2.Tensor, "inline")
_INPUT = _tag(pb.StepRequest.Train, "inputs")
_TARGET = _tag(pb.StepRequest.Train, "targets")
_TRAIN = _tag(pb.StepRequest, "train")
_STEP = _tag(pb.TrainRequest, "steps")


def _size(parts):
    return sum(map(len, parts))


@functools.lru_cache(4096)
def _before_data(type_, size):
    return b"".join([_TYPE, _varint(len(type_)), type_, _INLINE,
                     _varint(size)])


def tensor_parts(type_, data):
    """An inline Tensor. `type_`: encoded. `data`: flat, of bytes; not copied.
    """
    data = memoryview(data)
    return [_before_data(type_, len(data)), data]


def step_parts(head, train, inputs, targets):
    """A StepRequest. `head` and `train`, encoded: all of it but the action,
    and the action but its tensors, each of which is a list of parts."""
    body = [train]
    for tag, tensors in ((_INPUT, inputs), (_TARGET, targets)):
        for parts in tensors:
            body += [tag, _varint(_size(parts)), *parts]
    return [head, _TRAIN, _varint(_size(body)), *body]


def train_record(parts):
    """A step as an element of TrainRequest.steps: several, one after the
    other, are a TrainRequest."""
    return b"".join([_STEP, _varint(_size(parts)), *parts])
