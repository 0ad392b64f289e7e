"""scaled_dot_product_attention in its argument forms, over inputs cut along
each of their dims."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import PrepareModuleInput
from torch.nn import functional as F

from tests.models import rand
from tests.parity import assert_bytes, assert_close, total

F64 = 8
BATCH, HEADS, QUERIES, KEYS, WIDTH = 3, 4, 6, 6, 4


class Attend(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, q, k, v, mask=None):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask,
                                              **self.options)


def shapes(heads=HEADS, kv_heads=HEADS, queries=QUERIES, keys=KEYS,
           width=WIDTH, values=WIDTH):
    return ((BATCH, heads, queries, width), (BATCH, kv_heads, keys, width),
            (BATCH, kv_heads, keys, values))


def mask(*shape):
    """Some keys are hidden, never all of them."""
    hidden = rand(*shape, seed=4) < 0.3
    hidden[..., 0] = False
    return ~hidden


# name: options, shapes, mask
FORMS = {
    "plain": ({}, shapes(), None),
    "scale": ({"scale": 0.3}, shapes(), None),
    "causal": ({"is_causal": True}, shapes(), None),
    "more_keys": ({}, shapes(queries=5, keys=9), None),
    "causal_more_keys": ({"is_causal": True}, shapes(queries=5, keys=9),
                         None),
    "wide_values": ({}, shapes(values=7), None),
    "grouped": ({"enable_gqa": True}, shapes(kv_heads=2), None),
    "one_kv_head": ({"enable_gqa": True, "is_causal": True},
                    shapes(kv_heads=1), None),
    "grouped_8": ({"enable_gqa": True, "is_causal": True},
                  shapes(heads=8, kv_heads=4), None),
    "mask": ({}, shapes(), mask(QUERIES, KEYS)),
    "mask_by_batch": ({}, shapes(), mask(BATCH, 1, 1, KEYS)),
    "mask_by_head": ({}, shapes(), mask(BATCH, HEADS, QUERIES, KEYS)),
    "bias": ({}, shapes(), rand(1, HEADS, QUERIES, KEYS, seed=5)),
    "without_heads": ({"is_causal": True}, (
        (BATCH, QUERIES, WIDTH), (BATCH, KEYS, WIDTH), (BATCH, KEYS, WIDTH)),
        None),
}


def inputs(form_shapes):
    return [rand(*shape, seed=seed, requires_grad=True)
            for seed, shape in enumerate(form_shapes)]


def check(cluster, options, form_shapes, own_mask, ranks, dim):
    """Values, gradients; returns the collectives of both directions."""
    cut = Replicate() if dim is None else Shard(dim)
    layouts = (cut,) * 3 + (() if own_mask is None else (Replicate(),))
    module = Attend(**options)
    values, twins = inputs(form_shapes), inputs(form_shapes)
    rest = () if own_mask is None else (own_mask,)
    with cluster.parallelize_module(
            module, {"tp": ranks}, PrepareModuleInput(
                input_layouts=layouts, desired_input_layouts=layouts),
            example_inputs=(*values, *rest)) as m:
        expected = module(*twins, *rest)
        assert_close(m(*values, *rest), expected, "forward")
        (expected * expected).sum().backward()
        m.forward_backward(*values, *rest, loss=lambda y: (y * y).sum())
        for i, (actual, twin) in enumerate(zip(m.input_gradients(), twins)):
            assert_close(actual, twin.grad, f"gradient {i}")
        largest = 4 * 8 * 12 * 8 * F64
        assert_bytes(m, forward=4 * largest, backward=5 * largest)
        return total(m.comm_counts())


@pytest.mark.parametrize("dim", [None, 0, 1, 2, -1], ids=str)
@pytest.mark.parametrize("name", FORMS)
def test_forms(cluster, name, dim):
    options, form_shapes, own_mask = FORMS[name]
    moves = check(cluster, options, form_shapes, own_mask, 4, dim)
    rank = len(form_shapes[0])
    if dim is None or dim == 0 or (
            dim == 1 and rank == 4 and form_shapes[1][1] % 4 == 0):
        assert moves == 0  # cut by batch or by head, each rank has its own


@pytest.mark.parametrize("heads, ranks", [(2, 3), (2, 4), (4, 3), (1, 2)])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}],
                         ids=["plain", "causal"])
def test_ranks_without_a_head(cluster, options, heads, ranks):
    """LibTorch divides by the number of heads."""
    check(cluster, options, shapes(heads, heads), None, ranks, 1)


@pytest.mark.parametrize("ranks, kv_heads", [(3, 2), (4, 2), (3, 4)])
def test_ranks_without_a_kv_head(cluster, ranks, kv_heads):
    check(cluster, {"enable_gqa": True, "is_causal": True},
          shapes(4, kv_heads), None, ranks, 1)
