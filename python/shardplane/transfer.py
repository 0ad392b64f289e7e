"""Tensors to and from a deployment: inline where small, else streamed."""

from shardplane import tensors
from shardplane.rpc import request_id
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2

# A call whose tensors are larger than this together uploads them before.
INLINE_BYTES = 256 << 10


def _upload(rpc, header, tensor):
    def messages():
        yield pb.UploadTensorRequest(header=header)
        for chunk in tensors.chunks(tensor):
            yield pb.UploadTensorRequest(chunk=chunk)

    rpc.upload(messages)


def _header(deployment, tensor, where, **destination):
    return pb.UploadTensorRequest.Header(
        deployment=deployment.name, epoch=deployment.epoch,
        request_id=request_id(), type=tensors.type_of(tensor, where),
        **destination)


def upload_parameter(rpc, deployment, fqn, tensor, rank):
    """Source data of `fqn`, for one rank of the plan's mesh dim or None."""
    header = _header(deployment, tensor, f"parameter {fqn!r}", parameter=fqn,
                     rank=rank)
    _upload(rpc, header, tensor)


def upload(rpc, deployment, tensor, where):
    """Uploads one tensor under an id of its own, and gives that."""
    upload_id = request_id()
    _upload(rpc, _header(deployment, tensor, where, upload=upload_id), tensor)
    return upload_id


def to_messages(rpc, deployment, values, where):
    """Tensor messages for the inputs of one call, uploaded where large."""
    size = sum(v.numel() * v.element_size() for v in values)
    if size <= INLINE_BYTES:
        return [tensors.inline(v, f"{where} {i}")
                for i, v in enumerate(values)]
    return [types_pb2.Tensor(
        type=tensors.type_of(v, f"{where} {i}"),
        upload=upload(rpc, deployment, v, f"{where} {i}"))
        for i, v in enumerate(values)]


def download(rpc, deployment, ref, rank=None):
    """The global value, or one rank's local shard, of a TensorRef."""
    request = pb.DownloadTensorRequest(
        deployment=deployment.name, tensor=ref, epoch=deployment.epoch,
        rank=rank)
    where = str(ref).strip()

    def read(stream):
        header = next(stream).header
        return tensors.assemble(header.type, (m.chunk for m in stream), where)

    return rpc.download(request, read)
