"""Torch tensors <-> bytes; arrays.py is the same for numpy's."""

import numpy as np
import torch

from shardplane import streams
from shardplane.errors import UnimplementedError, unimplemented
from shardplane.v1 import types_pb2 as pb

_DTYPES = {
    torch.float32: pb.DTYPE_FLOAT32,
    torch.float64: pb.DTYPE_FLOAT64,
    torch.float16: pb.DTYPE_FLOAT16,
    torch.bfloat16: pb.DTYPE_BFLOAT16,
    torch.int64: pb.DTYPE_INT64,
    torch.int32: pb.DTYPE_INT32,
    torch.int16: pb.DTYPE_INT16,
    torch.int8: pb.DTYPE_INT8,
    torch.uint8: pb.DTYPE_UINT8,
    torch.bool: pb.DTYPE_BOOL,
    torch.complex64: pb.DTYPE_COMPLEX64,
    torch.complex128: pb.DTYPE_COMPLEX128,
}
_TORCH_DTYPES = {number: dtype for dtype, number in _DTYPES.items()}


def dtype_to_proto(dtype, where):
    if dtype not in _DTYPES:
        raise unimplemented(f"dtype {dtype}", f"in {where}")
    return _DTYPES[dtype]


def is_tensor(value):
    return isinstance(value, torch.Tensor)


def converted(tensor, type_):
    """As the dtype of `type_`, a TensorType of the same shape."""
    return tensor.detach().to(_TORCH_DTYPES[type_.dtype])


def _extent(size, where):
    """Of an export; one that only a run could tell is refused."""
    if isinstance(size, int):
        return size
    from torch.fx.experimental import symbolic_shapes
    try:
        return int(size)
    except symbolic_shapes.GuardOnDataDependentSymNode:
        raise UnimplementedError(
            f"{where}: expected a shape that is fixed when the program is "
            f"compiled, got: {size}, which depends on values",
            {"reason": "DATA_DEPENDENT_SHAPE"}) from None


def type_of(tensor, where):
    return pb.TensorType(dtype=dtype_to_proto(tensor.dtype, where),
                         shape=[_extent(size, where) for size in tensor.shape])


# As numpy has them: such a tensor's bytes are had, or made a tensor, without
# torch's operators, each of which lets other threads in.
_NUMPYS = {dtype: torch.empty(0, dtype=dtype).numpy().dtype
           for dtype in _DTYPES if dtype != torch.bfloat16}


def to_array(tensor):
    """All bytes of a tensor as a flat uint8 array; a view where it can be."""
    if (tensor.dtype in _NUMPYS and not tensor.requires_grad and
            tensor.device.type == "cpu" and tensor.is_contiguous()):
        try:
            return tensor.numpy().reshape(-1).view(np.uint8)
        except RuntimeError:
            pass  # of its numbers' signs numpy would know nothing
    tensor = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy()


def from_bytes(type_, data):
    """`data`: a bytearray, which the tensor then owns, or bytes."""
    dtype = _TORCH_DTYPES[type_.dtype]
    if not data:
        return torch.empty(tuple(type_.shape), dtype=dtype)
    if not isinstance(data, bytearray):
        data = bytearray(data)
    if dtype in _NUMPYS:
        array = np.frombuffer(data, _NUMPYS[dtype])
        return torch.from_numpy(array.reshape(tuple(type_.shape)))
    return torch.frombuffer(data, dtype=dtype).reshape(tuple(type_.shape))


def empty_of(type_):
    """A tensor of that type whose memory is never touched."""
    dtype = _TORCH_DTYPES[type_.dtype]
    return torch.empty(tuple(type_.shape), dtype=dtype).requires_grad_(
        dtype.is_floating_point or dtype.is_complex)


def inline(tensor, where):
    return pb.Tensor(type=type_of(tensor, where),
                     inline=to_array(tensor).tobytes())


def chunks(tensor):
    """TensorData messages; at least one, also of an empty tensor."""
    return streams.chunks(to_array(tensor))


def assemble(type_, pieces, where):
    """The tensor of a stream of TensorData."""
    return from_bytes(type_, streams.joined(pieces, where))
