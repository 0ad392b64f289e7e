"""numpy arrays <-> bytes; tensors.py is the same for torch tensors.

numpy has no bfloat16: such a tensor comes as float32, which holds its values
exactly, and float32 is rounded to it on its way to the workers.
"""

import dataclasses

import numpy as np

from shardplane import streams
from shardplane.errors import unimplemented
from shardplane.v1 import types_pb2 as pb

_DTYPES = {
    "float32": pb.DTYPE_FLOAT32,
    "float64": pb.DTYPE_FLOAT64,
    "float16": pb.DTYPE_FLOAT16,
    "int64": pb.DTYPE_INT64,
    "int32": pb.DTYPE_INT32,
    "int16": pb.DTYPE_INT16,
    "int8": pb.DTYPE_INT8,
    "uint8": pb.DTYPE_UINT8,
    "bool": pb.DTYPE_BOOL,
    "complex64": pb.DTYPE_COMPLEX64,
    "complex128": pb.DTYPE_COMPLEX128,
}
_NUMPY_DTYPES = {number: np.dtype(name).newbyteorder("<")
                 for name, number in _DTYPES.items()}
DTYPES = {**_DTYPES, "bfloat16": pb.DTYPE_BFLOAT16}  # by name


@dataclasses.dataclass(frozen=True)
class _BFloat16:
    """The upper halves of float32 values."""

    halves: np.ndarray  # uint16

    @property
    def shape(self):
        return self.halves.shape

    @property
    def nbytes(self):
        return self.halves.nbytes


def _to_bfloat16(array):
    """Rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.asarray(array, dtype="<f4").view("<u4")
    rounded = bits + np.uint32(0x7fff) + ((bits >> 16) & np.uint32(1))
    halves = np.where(np.isnan(array), np.uint32(0x7fc0), rounded >> 16)
    return _BFloat16(halves.astype("<u2"))


def is_tensor(value):
    return isinstance(value, (np.ndarray, np.generic))


def converted(array, type_):
    """As the dtype of `type_`, a TensorType of the same shape."""
    if type_.dtype == pb.DTYPE_BFLOAT16:
        return _to_bfloat16(array)
    return np.asarray(array).astype(_NUMPY_DTYPES[type_.dtype])


def type_of(array, where):
    if isinstance(array, _BFloat16):
        dtype = pb.DTYPE_BFLOAT16
    elif array.dtype.name in _DTYPES:
        dtype = _DTYPES[array.dtype.name]
    else:
        raise unimplemented(f"dtype {array.dtype}", f"in {where}")
    return pb.TensorType(dtype=dtype, shape=array.shape)


def to_array(array):
    """All bytes of an array as a flat uint8 array; a view where it can be."""
    if isinstance(array, _BFloat16):
        array = array.halves
    dtype = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)


def from_bytes(type_, data):
    """`data`: a bytearray, which the array then owns, or bytes."""
    shape = tuple(type_.shape)
    if not isinstance(data, bytearray):
        data = bytearray(data)
    if type_.dtype != pb.DTYPE_BFLOAT16:
        return np.frombuffer(data, _NUMPY_DTYPES[type_.dtype]).reshape(shape)
    bits = np.frombuffer(data, "<u2").astype("<u4") << 16
    return bits.view("<f4").reshape(shape)


def inline(array, where):
    return pb.Tensor(type=type_of(array, where),
                     inline=to_array(array).tobytes())


def chunks(array):
    """TensorData messages; at least one, also of an empty array."""
    return streams.chunks(to_array(array))


def assemble(type_, pieces, where):
    """The array of a stream of TensorData."""
    return from_bytes(type_, streams.joined(pieces, where))
