"""nn.MultiheadAttention by heads, under PairwiseParallel: every way of calling
it, beside the same module unsharded. Section J of behaviour.md, where PyTorch
has no way (J5), or needs the user to count heads (J6, J7, J9)."""

import math

import pytest
import torch
from torch import nn

import shardplane as sp
from tests.models import rand
from tests.parity import (
    Packed, assert_bytes, assert_close, assert_counts, assert_predicted,
    check_gradients, check_parameters, check_placements, check_shards)

E, BATCH, LENGTH, KEYS = 16, 2, 5, 7
ACTIVATION = BATCH * LENGTH * E * 8
UNSEEN = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
PADDING = torch.arange(LENGTH).expand(BATCH, -1) >= torch.tensor([[5], [3]])


class Call(nn.Module):
    """`call(attention, *inputs)`."""

    def __init__(self, heads, call, options):
        super().__init__()
        torch.manual_seed(7)
        self.attn = nn.MultiheadAttention(E, heads, dtype=torch.float64,
                                          **options)
        self.call = call
        with torch.no_grad():
            for parameter in self.attn.parameters():
                if parameter.dim() == 1:  # they begin as zeros
                    parameter.uniform_(-0.5, 0.5)

    def forward(self, *inputs):
        return self.call(self.attn, *inputs)


def itself(attention, x, **options):
    return attention(x, x, x, need_weights=False, **options)[0]


def weights(attention, x):
    return attention(x, x, x)


def weights_by_head(attention, x):
    return attention(x, x, x, average_attn_weights=False)


def others(attention, x, memory):
    return attention(x, memory, memory, need_weights=False)[0]


def three(attention, query, key, value):
    return attention(query, key, value, need_weights=False)[0]


def masked(attention, x, mask):
    return itself(attention, x, attn_mask=mask)


def padded(attention, x, mask):
    return itself(attention, x, key_padding_mask=mask)


def both_masks(attention, x, mask, padding):
    return itself(attention, x, attn_mask=mask, key_padding_mask=padding)


def causal(attention, x, mask):
    return itself(attention, x, attn_mask=mask, is_causal=True)


def numbers(length=LENGTH, width=E, seed=0):
    return rand(BATCH, length, width, seed=seed)


SELF = (numbers(),)
KDIM = {"kdim": 6, "vdim": 10}
# name: call, inputs (batch first), options
CALLS = {
    "itself": (itself, SELF, {}),
    "no_bias": (itself, SELF, {"bias": False}),
    "weights": (weights, SELF, {}),
    "weights_by_head": (weights_by_head, SELF, {}),
    "others": (others, (numbers(), numbers(KEYS, seed=1)), {}),
    "three": (three, (numbers(), numbers(KEYS, seed=1),
                      numbers(KEYS, seed=2)), {}),
    "separate": (three, (numbers(), numbers(KEYS, 6, 1),
                         numbers(KEYS, 10, 2)), KDIM),
    "bias_kv": (itself, SELF, {"add_bias_kv": True}),
    "bias_kv_weights": (weights, SELF, {"add_bias_kv": True}),
    "zero_attn": (itself, SELF, {"add_zero_attn": True}),
    "mask": (masked, (*SELF, UNSEEN), {}),
    "float_mask": (masked, (*SELF, rand(LENGTH, LENGTH, seed=3)), {}),
    "padding": (padded, (*SELF, PADDING), {}),
    "padding_bias_kv": (padded, (*SELF, PADDING), {"add_bias_kv": True}),
    "both_masks": (both_masks, (*SELF, UNSEEN, PADDING), {}),
    "causal": (causal, (*SELF, UNSEEN), {}),
}


def cuts_of(module, heads, ranks):
    """Whole heads: of each of query, key and value by itself."""
    chunk = -(-heads // ranks) * (E // heads)
    own = (E,) if chunk == -(-E // ranks) else (E, math.gcd(chunk, E))
    one = {dim: Packed(dim, (own,)) if len(own) > 1 else dim
           for dim in (0, 1, 2)}
    fused = Packed(0, (own,) * 3)
    by_name = {"in_proj_weight": fused, "in_proj_bias": fused,
               "q_proj_weight": one[0], "k_proj_weight": one[0],
               "v_proj_weight": one[0], "bias_k": one[2], "bias_v": one[2],
               "out_proj.weight": one[1]}
    return {f"attn.{name}": cut for name, cut in by_name.items()
            if f"attn.{name}" in dict(module.named_parameters())}


def squares(*outputs):
    return sum((y * y).sum() for y in outputs)


def loss_of_one(y):
    return squares(y)


def loss_of_two(pair):
    return squares(*pair)


def check(cluster, module, inputs, heads, ranks):
    cuts = cuts_of(module, heads, ranks)
    outputs = module(*inputs)
    loss = loss_of_two if isinstance(outputs, tuple) else loss_of_one
    with cluster.parallelize_module(
            module, {"tp": ranks}, {"attn": sp.PairwiseParallel()},
            example_inputs=inputs) as m:
        check_placements(m.report, module, cuts)
        check_shards(m, module, cuts)
        actual = m(*inputs)
        if not isinstance(outputs, tuple):
            actual, outputs = (actual,), (outputs,)
        assert len(actual) == len(outputs)
        for own, expected in zip(actual, outputs):
            assert_close(own, expected, "forward")
        assert_predicted(m)
        assert_counts(m, forward={"all_reduce": 1})
        assert_bytes(m, forward=ACTIVATION)
        expected = squares(*outputs)
        expected.backward()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
        assert_close(m.step(*inputs, loss=loss, optimizer=sp.SGD(lr=0.05)),
                     expected, "loss")
        check_gradients(m, module)
        optimizer.step()
        check_parameters(m, module, "after the step:")
        check_shards(m, module, cuts)


def turned(inputs):
    """Sequence first: of what has a batch, but masks."""
    return tuple(x.transpose(0, 1) if x.dim() == 3 else x for x in inputs)


@pytest.mark.parametrize("batch_first", [True, False],
                         ids=["batch_first", "sequence_first"])
@pytest.mark.parametrize("name", CALLS)
def test_calls(cluster, name, batch_first):
    call, inputs, options = CALLS[name]
    module = Call(8, call, options | {"batch_first": batch_first})
    inputs = inputs if batch_first else turned(inputs)
    ranks = 4 if batch_first else 2
    if call is weights_by_head:
        check_weights_by_head(cluster, module, inputs, ranks)
    else:
        check(cluster, module, inputs, 8, ranks)


def check_weights_by_head(cluster, module, inputs, ranks):
    """Each rank has the weights of its heads: gathered where they leave."""
    y, w = module(*inputs)
    with cluster.parallelize_module(
            module, {"tp": ranks}, {"attn": sp.PairwiseParallel()},
            example_inputs=inputs) as m:
        check_placements(m.report, module, cuts_of(module, 8, ranks))
        own_y, own_w = m(*inputs)
        assert_close(own_y, y, "forward")
        assert_close(own_w, w, "weights")
        assert_counts(m, forward={"all_reduce": 1})
        assert [tuple(shard[1].shape) for shard in m.output_shards()] == [
            (BATCH, 8 // ranks, LENGTH, LENGTH)] * ranks


def test_a_mask_for_each_head(cluster):
    """[batch * heads, query, key]: each rank takes its heads'."""
    mask = rand(BATCH * 8, LENGTH, LENGTH, seed=3)
    module = Call(8, masked, {"batch_first": True})
    check(cluster, module, (*SELF, mask), 8, 4)


@pytest.mark.parametrize("heads, ranks", [(2, 4), (4, 3), (8, 3)])
@pytest.mark.parametrize("name", ["itself", "bias_kv", "separate", "weights"])
def test_heads_that_ranks_do_not_divide(cluster, name, heads, ranks):
    """Uneven cuts: the last ranks have fewer heads, or none."""
    call, inputs, options = CALLS[name]
    module = Call(heads, call, options | {"batch_first": True})
    check(cluster, module, inputs, heads, ranks)


def test_one_head(cluster):
    """Nothing to cut an attention by: its projections are cut within the head,
    and gathered for it."""
    call, inputs, _ = CALLS["itself"]
    module = Call(1, call, {"batch_first": True})
    with cluster.parallelize_module(
            module, {"tp": 2}, {"attn": sp.PairwiseParallel()},
            example_inputs=inputs) as m:
        check_placements(m.report, module, {
            "attn.in_proj_weight": 0, "attn.in_proj_bias": 0,
            "attn.out_proj.weight": 1})
        assert any("falls inside a dim" in note.message
                   for note in m.report.notes)
        assert_close(m(*inputs), module(*inputs), "forward")
        assert_counts(m, forward={"all_gather": 1, "all_reduce": 1})
        expected = squares(module(*inputs))
        expected.backward()
        assert_close(m.forward_backward(*inputs, loss=loss_of_one), expected,
                     "loss")
        check_gradients(m, module)


def test_dropout_is_drawn_for_each_head(cluster):
    """Training with dropout: the mask follows from global indices, so that
    one rank and four drop the same."""
    call, inputs, options = CALLS["itself"]

    def outputs(ranks, plan):
        module = Call(8, call, {"batch_first": True, "dropout": 0.4}).train()
        with cluster.parallelize_module(module, {"tp": ranks}, plan,
                                        example_inputs=inputs, seed=5) as m:
            return m(*inputs)
    with pytest.warns(UserWarning, match="nothing is sharded"):
        whole = outputs(1, None)
    by_heads = outputs(4, {"attn": sp.PairwiseParallel()})
    assert_close(by_heads, whole, "dropout")
    plain = Call(8, call, {"batch_first": True})(*inputs)
    assert not torch.allclose(whole, plain)


@pytest.mark.parametrize("ranks", [2, 4])
def test_transformer_layers(cluster, ranks):
    """Encoder and decoder, self- and cross-attention, one style for all: two
    sums a layer in the encoder, three in the decoder."""
    torch.manual_seed(2)
    module = nn.Transformer(E, 4, 2, 2, 32, dropout=0.0, batch_first=True,
                            dtype=torch.float64)
    source, target = numbers(KEYS), numbers(LENGTH, seed=1)
    with cluster.parallelize_module(
            module, {"tp": ranks}, sp.PairwiseParallel(),
            example_inputs=(source, target), loss=loss_of_one) as m:
        for name, placed in m.report.placements.items():
            if "in_proj" in name:
                assert placed == "[S(0: 16, 16, 16)]", name
        expected = module(source, target)
        assert_close(m(source, target), expected, "forward")
        assert_counts(m, forward={"all_reduce": 2 * 2 + 2 * 3})
        squares(expected).backward()
        m.forward_backward(source, target, loss=loss_of_one)
        check_gradients(m, module)
