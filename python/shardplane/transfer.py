"""Tensors to and from a deployment: inline where small, else streamed.

`codec`: what makes bytes of the client's tensors and back, `tensors` (torch)
or `arrays` (numpy).
"""

import math

from shardplane.rpc import Download, Upload, request_id
from shardplane.step_wire import tensor_parts
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2

# The service's limits, of one tensor and of all of a call: what does not fit is
# uploaded before.
INLINE_BYTES = 1 << 20
ALL_INLINE_BYTES = 3 << 20


def _upload(header, tensor, codec):
    def messages():
        yield pb.UploadTensorRequest(header=header)
        for chunk in codec.chunks(tensor):
            yield pb.UploadTensorRequest(chunk=chunk)

    return Upload(messages, tensor.nbytes)


def _header(deployment, type_, **destination):
    return pb.UploadTensorRequest.Header(
        deployment=deployment.name, epoch=deployment.epoch,
        request_id=request_id(), type=type_, **destination)


def upload_parameters(rpc, deployment, sources, codec):
    """Source data. `sources`: (FQN, tensor, a rank of the plan's mesh dim or
    None) of each."""
    rpc.uploads(
        _upload(_header(deployment, codec.type_of(tensor, f"parameter {fqn!r}"),
                        parameter=fqn, rank=rank), tensor, codec)
        for fqn, tensor, rank in sources)


def upload_all(rpc, deployment, values, codec):
    """Uploads each (tensor, its name in errors) under an id of its own, and
    gives those."""
    ids = []

    def uploads():
        for tensor, where in values:
            type_ = codec.type_of(tensor, where)
            ids.append(request_id())
            yield _upload(_header(deployment, type_, upload=ids[-1]), tensor,
                          codec)

    rpc.uploads(uploads())
    return ids


def _inlined(values):
    """Which values travel within the call: the first that fit."""
    left = ALL_INLINE_BYTES
    for value in values:
        size = value.nbytes
        fits = size <= INLINE_BYTES and size <= left
        if fits:
            left -= size
        yield fits


def _uploaded(rpc, deployment, value, where, codec):
    [upload_id] = upload_all(rpc, deployment, [(value, where)], codec)
    return types_pb2.Tensor(type=codec.type_of(value, where), upload=upload_id)


def to_messages(rpc, deployment, values, where, codec):
    """Tensor messages for the inputs of one call, uploaded where large."""
    return [codec.inline(value, f"{where} {i}") if inline else
            _uploaded(rpc, deployment, value, f"{where} {i}", codec)
            for i, (value, inline) in enumerate(zip(values, _inlined(values)))]


def to_parts(rpc, deployment, inputs, targets, codec):
    """The same as parts of messages (step_wire), for one call together."""
    def where(i):  # seldom asked for
        return (f"input {i}" if i < len(inputs) else
                f"target {i - len(inputs)}")

    values = [*inputs, *targets]
    parts = [
        tensor_parts(_encoded_type(value, where, i, codec),
                     codec.to_array(value))
        if inline else
        [_uploaded(rpc, deployment, value, where(i),
                   codec).SerializeToString()]
        for i, (value, inline) in enumerate(zip(values, _inlined(values)))]
    return parts[:len(inputs)], parts[len(inputs):]


_ENCODED_TYPES = {}


def _encoded_type(value, where, i, codec):
    """Its TensorType, encoded; there are few of them. `where` of `i`: its name
    in errors."""
    key = (codec, value.dtype, value.shape)
    encoded = _ENCODED_TYPES.get(key)
    if encoded is None:
        encoded = codec.type_of(value, where(i)).SerializeToString()
        if len(_ENCODED_TYPES) < 1024:
            _ENCODED_TYPES[key] = encoded
    return encoded


def download(rpc, deployment, ref, codec, rank=None):
    """The global value, or one rank's local shard, of a TensorRef."""
    [value] = download_all(rpc, deployment, [(ref, rank, math.inf)], codec)
    return value


def download_all(rpc, deployment, wanted, codec, missing=None):
    """The value of each (TensorRef, rank or None, about how many bytes); where
    one fails for the reason `missing`, None."""
    return rpc.downloads(
        [Download(pb.DownloadTensorRequest(
            deployment=deployment.name, tensor=ref, epoch=deployment.epoch,
            rank=rank), _reader(ref, codec), size)
         for ref, rank, size in wanted], missing)


def _reader(ref, codec):
    def read(stream):
        header = next(stream).header
        return codec.assemble(header.type, (m.chunk for m in stream),
                              str(ref).strip())

    return read
