"""sp.TensorParallelMultiheadAttention and nn.MultiheadAttention under
PairwiseParallel, by the numbers J1 to J5 of behaviour.md."""

import pytest
import torch
from torch import nn

import shardplane as sp
from tests.conformance.test_old_api import F64, MESH, PAIRS, cut, pairs_of
from tests.models import rand
from tests.parity import (
    assert_bytes, assert_close, assert_counts, parallelized)

E, HEADS = 16, 8


class Wrapped(nn.Module):
    """As upstream's test calls it."""

    def __init__(self, attention):
        super().__init__()
        self.attn = attention

    def forward(self, query, key, value):
        return self.attn(query, key, value)


def attention(**options):
    torch.manual_seed(4)
    return sp.TensorParallelMultiheadAttention(E, HEADS, **F64, **options)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("sequence", [False, True])
def test_j4_one_sum_each_way(cluster, ranks, sequence):
    style = sp.PairwiseSequenceParallel() if sequence else PAIRS
    x = rand(8, 12, E, requires_grad=True)
    cuts = cut(["qkv"], ["proj"], bias=True)
    with parallelized(cluster, attention(tp_size=ranks), {"tp": ranks}, style,
                      cuts=cuts, x=x) as case:
        case.check_backward(x)
        counts = ({"all_gather": 1, "reduce_scatter": 1} if sequence else
                  {"all_reduce": 1})
        assert_counts(case.m, forward=counts, backward=counts)
        for _ in range(3):
            case.check_step(x, "mean")  # SGD, lr 0.25
        whole = 8 * 12 * E * 8
        assert_bytes(case.m, forward=2 * whole if sequence else whole)


def test_j4_three_inputs(cluster):
    x = rand(8, 12, E)
    reference = Wrapped(attention())
    with cluster.parallelize_module(
            Wrapped(attention()), MESH, {"attn": PAIRS},
            example_inputs=(x, x, x)) as m:
        optimizer = torch.optim.SGD(reference.parameters(), lr=0.25)
        for _ in range(3):
            optimizer.zero_grad()
            expected = reference(x, x, x).mean()
            expected.backward()
            optimizer.step()
            loss = m.step(x, x, x, loss="mean", optimizer=sp.SGD(lr=0.25))
            assert_close(loss, expected)
            assert_counts(m, forward={"all_reduce": 1}, backward={})
        for name, value in reference.state_dict().items():
            assert_close(m.state_dict()[name], value, name)


def test_j2_three_inputs_of_a_deployment_each_give_their_part(cluster):
    module, inputs = attention(), [rand(2, 6, E, seed=i) for i in range(3)]
    x = rand(2, 6, E)
    with cluster.parallelize_module(Wrapped(module), MESH, {"attn": PAIRS},
                                    example_inputs=(x, x, x)) as m:
        actual = m(*inputs)
    parts = (module._heads(x)[i].transpose(1, 2)
             for i, x in enumerate(inputs))
    y = nn.functional.scaled_dot_product_attention(*parts)
    assert_close(actual, module.proj(y.transpose(1, 2).flatten(2)))


def test_j3_the_same_function_as_pytorchs(cluster):
    torch.manual_seed(4)
    mha = nn.MultiheadAttention(E, HEADS, batch_first=True, **F64)
    copied = sp.TensorParallelMultiheadAttention.from_multihead_attention(mha)
    x = rand(8, 12, E)
    with cluster.parallelize_module(copied, MESH, PAIRS,
                                    example_inputs=(x,)) as m:
        assert_close(m(x), mha(x, x, x)[0])
        assert_counts(m, forward={"all_reduce": 1})


@pytest.mark.parametrize("self_attention", [True, False])
def test_j2_other_inputs_than_the_query(cluster, self_attention):
    """Where keys may differ they have projections of their own."""
    module = Wrapped(attention(self_attention=self_attention))
    query, key = rand(2, 6, E), rand(2, 6, E, seed=1)
    if self_attention:
        with pytest.raises(ValueError, match="inputs are different"):
            module(query, key, key)
        return
    with cluster.parallelize_module(
            module, MESH, PAIRS, example_inputs=(query, key, key)) as m:
        assert pairs_of(m.report) == {
            "attn": "pairs query, key, value (colwise) -> proj (rowwise)"}
        assert_close(m(query, key, key), module(query, key, key))
        assert_counts(m, forward={"all_reduce": 1})


class SelfAttention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(6)
        self.attn = nn.MultiheadAttention(E, HEADS, **F64, **options)

    def forward(self, x):
        return self.attn(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("style", [
    PAIRS, sp.PairwiseSequenceParallel(),
    sp.PairwiseParallel(sp.make_input_shard_1d(dim=1),
                        sp.make_output_shard_1d(dim=1))],
    ids=["whole", "dim0", "dim1"])
@pytest.mark.parametrize("options", [
    {}, {"batch_first": True}, {"bias": False}, {"add_bias_kv": True}],
    ids=lambda options: "_".join(options) or "plain")
def test_j5_multihead_attention_as_it_is(cluster, style, options):
    """By heads: no other module takes its place, and no bias is lost."""
    x = rand(8, 12, E)
    with cluster.parallelize_module(
            SelfAttention(**options), MESH, style, example_inputs=(x,)) as m:
        reference = SelfAttention(**options)
        placed = m.report.placements
        assert placed["attn.in_proj_weight"] == "[S(0: 16, 16, 16)]"
        assert placed["attn.out_proj.weight"] == "[S(1)]"
        if options.get("add_bias_kv"):
            assert placed["attn.bias_k"] == placed["attn.bias_v"] == "[S(2)]"
        optimizer = torch.optim.SGD(reference.parameters(), lr=0.25)
        for _ in range(2):
            optimizer.zero_grad()
            expected = reference(x).pow(2).mean()
            expected.backward()
            optimizer.step()
            loss = m.step(x, loss=lambda y: y.pow(2).mean(),
                          optimizer=sp.SGD(lr=0.25))
            assert_close(loss, expected)
        for name, value in reference.state_dict().items():
            assert_close(m.state_dict()[name], value, name)
