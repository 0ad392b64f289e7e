"""Torch tensors as bytes and back."""

import pytest
import torch

from shardplane import tensors

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16,
          torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
          torch.bool, torch.complex64, torch.complex128]


def there_and_back(tensor):
    data = tensors.to_array(tensor).tobytes()
    return tensors.from_bytes(tensors.type_of(tensor, "a test"), data)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape(dtype, shape):
    tensor = torch.randint(0, 2, shape).to(dtype)
    result = there_and_back(tensor)
    assert result.dtype == dtype and result.shape == tensor.shape
    assert torch.equal(result, tensor)


def numbers():
    return torch.arange(6, dtype=torch.float64).reshape(2, 3)


@pytest.mark.parametrize("make", [
    lambda: numbers().t(), lambda: numbers()[:, 1:],
    lambda: numbers().expand(4, 2, 3), lambda: numbers().requires_grad_(),
    # Negative, or conjugate, by a bit beside their memory.
    lambda: torch._neg_view(numbers()),
    lambda: torch.complex(numbers(), numbers()).conj().imag,
    lambda: torch.complex(numbers(), numbers()).conj(),
    lambda: torch.complex(numbers(), numbers()).mH],
    ids=["transposed", "part", "expanded", "requires_grad", "negative",
         "imaginary", "conjugate", "adjoint"])
def test_every_way_to_lie_in_memory(make):
    assert torch.equal(there_and_back(make()), make())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_comes_back_may_be_written(dtype):
    result = there_and_back(torch.ones(3, dtype=dtype))
    result += 1
    assert torch.equal(result, torch.full((3,), 2, dtype=dtype))


def test_contiguous_tensors_are_not_copied():
    tensor = numbers()
    tensors.to_array(tensor)[:8] = 255
    assert torch.isnan(tensor[0, 0])
