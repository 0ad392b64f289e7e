"""Bytes of numpy arrays: the same as of torch tensors of the same values."""

import numpy as np
import pytest
import torch

import shardplane as sp
from shardplane import arrays, streams, tensors
from shardplane.v1 import types_pb2 as pb

SHAPES = [(), (0, 3), (3, 5)]


def pair(dtype, shape):
    """The same values in both worlds."""
    tensor = (torch.arange(15) % 7).to(dtype)[:max(
        torch.Size(shape).numel(), 0)].reshape(shape)
    return tensor, tensor.numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "dtype", [d for d in tensors._DTYPES if d != torch.bfloat16], ids=str)
def test_every_dtype_as_torch_has_it(dtype, shape):
    tensor, array = pair(dtype, shape)
    type_ = tensors.type_of(tensor, "x")
    assert arrays.type_of(array, "x") == type_
    assert list(arrays.chunks(array)) == list(tensors.chunks(tensor))
    assert arrays.inline(array, "x") == tensors.inline(tensor, "x")
    back = arrays.assemble(type_, arrays.chunks(array), "x")
    assert back.dtype == array.dtype and back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    back[...] = 0  # it owns its memory


def test_bytes_are_row_major_and_little_endian_whatever_the_array():
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    message = arrays.inline(array, "x")
    assert message.type == pb.TensorType(dtype=pb.DTYPE_INT32, shape=[3, 2])
    assert message.inline == np.array([0, 3, 1, 4, 2, 5], "<i4").tobytes()
    np.testing.assert_array_equal(
        arrays.from_bytes(message.type, message.inline), array)


VALUES = np.array([0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1.1, 3e38,
                   3.4e38, 1e-40, np.inf, -np.inf, np.nan], "f4")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bfloat16_is_rounded_as_torch_does(dtype):
    type_ = pb.TensorType(dtype=pb.DTYPE_BFLOAT16, shape=VALUES.shape)
    rounded = arrays.converted(VALUES.astype(dtype), type_)
    assert arrays.type_of(rounded, "x") == type_
    expected = torch.from_numpy(VALUES).to(torch.bfloat16)
    back = arrays.assemble(type_, arrays.chunks(rounded), "x")
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, expected.float().numpy())


def test_converted_takes_the_dtype_asked_for():
    type_ = pb.TensorType(dtype=pb.DTYPE_FLOAT64, shape=[2])
    assert arrays.converted(np.ones(2, "f4"), type_).dtype == np.float64


def test_dtypes_that_nobody_has():
    with pytest.raises(sp.UnimplementedError, match="dtype uint16.*in x"):
        arrays.type_of(np.zeros(2, np.uint16), "x")


def test_a_large_array_goes_in_chunks():
    array = np.arange(streams.CHUNK_BYTES // 8 + 1)
    sizes = [len(chunk.data) for chunk in arrays.chunks(array)]
    assert sizes == [streams.CHUNK_BYTES, 8]
