"""sp.TensorParallelMultiheadAttention as a torch module: behaviour.md J1 to
J5. What ranks make of it: tests/conformance/test_old_attention.py."""

import warnings

import pytest
import torch
from torch import nn

import shardplane as sp
from tests.models import rand

Attention = sp.TensorParallelMultiheadAttention
E, HEADS = 16, 8
F64 = {"dtype": torch.float64}


def from_mha(tp_size=1, **options):
    torch.manual_seed(3)
    mha = nn.MultiheadAttention(E, HEADS, **F64, **options)
    for parameter in mha.parameters():  # biases begin as zeros
        nn.init.normal_(parameter)
    return mha, Attention.from_multihead_attention(mha, tp_size=tp_size)


def test_j1_constructor():
    attention = Attention(E, HEADS, 0.0, True, False, tp_size=4,
                          self_attention=True)
    shapes = {name: tuple(p.shape)
              for name, p in attention.named_parameters()}
    assert shapes == {"qkv.weight": (3 * E, E), "qkv.bias": (3 * E,),
                      "proj.weight": (E, E), "proj.bias": (E,)}
    x = torch.randn(8, 12, E)
    y = attention(x, x, x)
    assert y.shape == x.shape
    assert torch.equal(y, attention(x)) and torch.equal(
        y, attention(x, x.clone(), value=x))


@pytest.mark.parametrize("add_bias_kv", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_j5_bias_is_that_of_all_projections(bias, add_bias_kv):
    """add_bias_kv, which is about further keys, decided it for qkv."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attention = Attention(E, HEADS, bias=bias, add_bias_kv=add_bias_kv)
    assert (attention.qkv.bias is not None) == bias
    assert (attention.proj.bias is not None) == bias


@pytest.mark.parametrize("options, names", [
    ({"dropout": 0.1}, "dropout=0.1"), ({"add_bias_kv": True}, "add_bias_kv"),
    ({"add_zero_attn": True}, "add_zero_attn"), ({"kdim": 8}, "kdim=8"),
    ({"vdim": 8}, "vdim=8")])
def test_j1_what_is_ignored_warns(options, names):
    with pytest.warns(UserWarning, match=f"ignores.*{names}"):
        Attention(E, HEADS, **options)


def test_j1_what_changes_nothing_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention = Attention(E, HEADS, kdim=E, vdim=E, batch_first=True)
        attention(torch.ones(1, 2, E), need_weights=False)


@pytest.mark.parametrize("name", ["attn_mask", "key_padding_mask"])
def test_j1_masks_are_ignored_with_a_warning(name):
    attention, x = Attention(E, HEADS), torch.ones(1, 2, E)
    with pytest.warns(UserWarning, match=name):
        assert torch.equal(attention(x, **{name: torch.ones(2, 2)}),
                           attention(x))
    for option in ("is_causal", "need_weights"):
        with pytest.warns(UserWarning, match=option):
            attention(x, **{option: True})


def test_j2_inputs_are_equal():
    attention, x = Attention(E, HEADS), torch.ones(1, 2, E)
    for other in (x + 1, torch.ones(1, 3, E)):
        with pytest.raises(ValueError,
                           match="inputs are different for self-attention"):
            attention(x, other, other)


@pytest.mark.parametrize("sizes", [(16, 3), (16, 8, 3)])
def test_j4_heads_divide(sizes):
    with pytest.raises(ValueError, match="num_heads"):
        Attention(*sizes[:2], tp_size=(*sizes, 1)[2])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_j3_weights_in_another_order_are_the_same_function(bias, batch_first):
    mha, attention = from_mha(tp_size=4, bias=bias, batch_first=batch_first)
    assert not torch.equal(attention.qkv.weight, mha.in_proj_weight)
    x = rand(8, 12, E)
    twin = x.clone().requires_grad_()
    x.requires_grad_()
    expected = mha(twin, twin, twin, need_weights=False)[0]
    actual = attention(x)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    actual.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        attention._interleaved(mha.in_proj_weight.grad),
        attention.qkv.weight.grad, rtol=1e-12, atol=1e-12)


def test_j3_the_weight_as_it_stands_is_another_function():
    mha, attention = from_mha(batch_first=True)
    with torch.no_grad():
        attention.qkv.weight.copy_(mha.in_proj_weight)
        attention.qkv.bias.copy_(mha.in_proj_bias)
    x = rand(2, 3, E)
    assert not torch.allclose(attention(x), mha(x, x, x)[0])


def test_keys_of_other_sizes_have_their_own_projections():
    mha, attention = from_mha(kdim=6, vdim=10, batch_first=True)
    query, key, value = rand(2, 3, E), rand(2, 5, 6), rand(2, 5, 10)
    torch.testing.assert_close(
        attention(query, key, value), mha(query, key, value)[0],
        rtol=1e-12, atol=1e-12)


def test_copies_keep_mode_and_refuse_what_they_cannot_say():
    mha = nn.MultiheadAttention(E, HEADS, add_bias_kv=True)
    with pytest.raises(ValueError, match="add_bias_kv"):
        Attention.from_multihead_attention(mha)
    mha = nn.MultiheadAttention(E, HEADS, dropout=0.5).eval()
    with pytest.warns(UserWarning, match="dropout"):
        assert not Attention.from_multihead_attention(mha).training
