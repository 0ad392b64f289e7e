"""Tensors to and from a deployment: inline where small, else streamed.

`codec`: what makes bytes of the client's tensors and back, `tensors` (torch)
or `arrays` (numpy).
"""

from shardplane.rpc import request_id
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2

# A call whose tensors are larger than this together uploads them before.
INLINE_BYTES = 256 << 10


def _upload(rpc, header, tensor, codec):
    def messages():
        yield pb.UploadTensorRequest(header=header)
        for chunk in codec.chunks(tensor):
            yield pb.UploadTensorRequest(chunk=chunk)

    rpc.upload(messages)


def _header(deployment, type_, **destination):
    return pb.UploadTensorRequest.Header(
        deployment=deployment.name, epoch=deployment.epoch,
        request_id=request_id(), type=type_, **destination)


def upload_parameter(rpc, deployment, fqn, tensor, rank, codec):
    """Source data of `fqn`, for one rank of the plan's mesh dim or None."""
    type_ = codec.type_of(tensor, f"parameter {fqn!r}")
    _upload(rpc, _header(deployment, type_, parameter=fqn, rank=rank), tensor,
            codec)


def upload(rpc, deployment, tensor, where, codec):
    """Uploads one tensor under an id of its own, and gives that."""
    upload_id = request_id()
    type_ = codec.type_of(tensor, where)
    _upload(rpc, _header(deployment, type_, upload=upload_id), tensor, codec)
    return upload_id


def to_messages(rpc, deployment, values, where, codec):
    """Tensor messages for the inputs of one call, uploaded where large."""
    if sum(v.nbytes for v in values) <= INLINE_BYTES:
        return [codec.inline(v, f"{where} {i}")
                for i, v in enumerate(values)]
    return [types_pb2.Tensor(
        type=codec.type_of(v, f"{where} {i}"),
        upload=upload(rpc, deployment, v, f"{where} {i}", codec))
        for i, v in enumerate(values)]


def download(rpc, deployment, ref, codec, rank=None):
    """The global value, or one rank's local shard, of a TensorRef."""
    request = pb.DownloadTensorRequest(
        deployment=deployment.name, tensor=ref, epoch=deployment.epoch,
        rank=rank)
    where = str(ref).strip()

    def read(stream):
        header = next(stream).header
        return codec.assemble(header.type, (m.chunk for m in stream), where)

    return rpc.download(request, read)
