"""Dropout masks: those of the whole tensor, whatever the mesh and the plan.

PyTorch's own masks depend on both (E5, E9), so they are no oracle: what one
rank does is, and what any mask must be like.
"""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, RowwiseParallel, SequenceParallel)
from torch.nn import functional as F

import shardplane as sp
from tests.models import (
    Transformer, TransformerArgs, rand, tokens, transformer_cuts,
    transformer_plan)
from tests.parity import (
    assert_bytes, assert_close, assert_counts, check_placements, total)

F64 = 8
BATCH, LENGTH, DIM = 3, 10, 7  # uneven on 2, 3 or 4 ranks, each
SEED = 11


def ones(*shape, requires_grad=False):
    return torch.ones(*shape, dtype=torch.float64,
                      requires_grad=requires_grad)


class Masked(nn.Module):
    """x -> x @ 1, with `drop`: nothing but the mask changes from 1."""

    def __init__(self, p=0.5):
        super().__init__()
        self.lin = nn.Linear(DIM, DIM, bias=False, dtype=torch.float64)
        nn.init.eye_(self.lin.weight)
        self.drop = nn.Dropout(p)

    def forward(self, x):
        return self.drop(self.lin(x))


# How the activation that is dropped from lies.
LAYOUTS = {
    "replicated": {},
    "sequence": {"drop": SequenceParallel()},
    "batch": {"drop": SequenceParallel(sequence_dim=0)},
    "columns": {"lin": ColwiseParallel()},
    "reduced": {"lin": RowwiseParallel()},
}


def masks(m, x):
    """Of the forward at hand and of the next step's."""
    first = m(x)
    assert total(m.comm_counts(), ["forward"]) <= 1  # rowwise reduces
    assert_bytes(m, forward=BATCH * LENGTH * DIM * F64)
    m.step(x, loss="sum", optimizer=sp.SGD(lr=0.0))
    return torch.stack([first, m(x)])


@pytest.fixture(scope="module")
def masks_of_one_rank(shared_cluster):
    with shared_cluster.parallelize_module(Masked(), {"tp": 1}, {},
                                           seed=SEED) as m:
        return masks(m, ones(BATCH, LENGTH, DIM))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_masks_are_the_same_bits_on_any_mesh(cluster, masks_of_one_rank,
                                             ranks, layout):
    x = ones(BATCH, LENGTH, DIM)
    with cluster.parallelize_module(Masked(), {"tp": ranks}, LAYOUTS[layout],
                                    seed=SEED) as m:
        actual = masks(m, x)
        expected = "[S(0)]" if layout == "columns" else (
            "[S(1)]" if layout == "reduced" else "[R]")
        assert m.report.placements["lin.weight"] == expected
    assert torch.equal(actual, masks_of_one_rank)
    assert set(actual.unique().tolist()) == {0.0, 2.0}


class Attend(nn.Module):
    """Attention itself: q, k, v [batch, head, sequence, head dim]."""

    def __init__(self, p, causal=False):
        super().__init__()
        self.p, self.causal = p, causal

    def forward(self, q, k, v, mask=None):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=self.causal,
            dropout_p=self.p if self.training else 0.0)


HEADS, KEYS = 4, 6


def bare_attention():
    """Every query weighs all keys alike, and the values are the unit vectors:
    the result is the mask, over KEYS (1 - p)."""
    zero = torch.zeros(2, HEADS, KEYS, KEYS, dtype=torch.float64)
    return zero, zero, torch.eye(KEYS, dtype=torch.float64).expand_as(zero)


@pytest.fixture(scope="module")
def attention_of_one_rank(shared_cluster):
    with shared_cluster.parallelize_module(Attend(0.5), {"tp": 1}, {},
                                           seed=SEED) as m:
        return m(*bare_attention())


@pytest.mark.parametrize("dim", [None, 0, 1, 2], ids=str)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_masks_of_attention(cluster, attention_of_one_rank, ranks, dim):
    """Cut by batch, by head (as columns of the projections are) or by
    query."""
    layouts = (Replicate() if dim is None else Shard(dim),) * 3
    plan = PrepareModuleInput(input_layouts=layouts,
                              desired_input_layouts=layouts)
    with cluster.parallelize_module(Attend(0.5), {"tp": ranks}, plan,
                                    seed=SEED) as m:
        y = m(*bare_attention())
        if dim in (None, 0, 1):
            assert total(m.comm_counts()) == 0
        else:  # keys and values are needed whole, or other cuts are cheaper
            assert total(m.comm_counts()) <= 4
        assert_bytes(m, forward=2 * 2 * HEADS * 8 * KEYS * F64)
    assert torch.equal(y != 0, attention_of_one_rank != 0)
    assert 0.35 < (y != 0).double().mean() < 0.65
    assert_close(y[y != 0], torch.full_like(y[y != 0], 2 / KEYS))


@pytest.mark.parametrize("causal, masked", [
    (False, False), (True, False), (False, True)],
    ids=["plain", "causal", "masked"])
def test_attention_without_dropout_is_pytorchs(cluster, causal, masked):
    """p > 0 in eval mode and p = 0 in train mode."""
    q, k, v = (rand(2, HEADS, KEYS, 5, seed=seed, requires_grad=True)
               for seed in range(3))
    mask = (rand(KEYS, KEYS, seed=4) > 0.3) if masked else None
    layouts = (Shard(1),) * 3
    plan = PrepareModuleInput(
        input_layouts=layouts + ((None,) if masked else ()),
        desired_input_layouts=layouts + ((None,) if masked else ()))
    inputs = (q, k, v, mask) if masked else (q, k, v)
    for module in (Attend(0.5, causal).eval(), Attend(0.0, causal).train()):
        with cluster.parallelize_module(module, {"tp": 4}, plan) as m:
            twins = [t.detach().clone().requires_grad_() for t in (q, k, v)]
            expected = module(*twins, mask)
            assert_close(m(*inputs), expected)
            expected.sum().backward()
            m.forward_backward(*inputs, loss="sum")
            for actual, twin in zip(m.input_gradients(), twins):
                assert_close(actual, twin.grad)
            assert total(m.comm_counts()) == 0


def test_dropped_attention_by_hand(cluster):
    """With the mask that it has drawn, attention is what it should be."""
    p = 0.5
    q, k, v = (rand(2, HEADS, KEYS, KEYS, seed=seed, requires_grad=True)
               for seed in range(3))
    module = Attend(p, causal=True)
    with cluster.parallelize_module(module, {"tp": 2}, {}, seed=SEED) as m:
        kept = m(*bare_attention())  # of the same node and step, so the same
        weights = torch.softmax(
            (q @ k.transpose(-1, -2) / KEYS ** 0.5).masked_fill(
                torch.ones(KEYS, KEYS).triu(1).bool(), float("-inf")), -1)
        causal = torch.ones(KEYS, KEYS, dtype=torch.float64).tril()
        expected = (weights * ((kept != 0) & (causal != 0)) / (1 - p)) @ v
        assert_close(m(q, k, v), expected)
        expected.sum().backward()
        m.forward_backward(q, k, v, loss="sum")
        for actual, twin in zip(m.input_gradients(), (q, k, v)):
            assert_close(actual, twin.grad)


def transformer_step(cluster, ranks, sequence_parallel):
    """Gradients of a step, and the logits after it."""
    x, target = tokens(4, 6), tokens(4, 6, seed=1)

    def loss(logits, target):
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    module = Transformer(TransformerArgs(dropout=0.3))
    with cluster.parallelize_module(
            module, {"tp": ranks}, transformer_plan(sequence_parallel),
            seed=SEED) as m:
        check_placements(m.report, module, transformer_cuts(module))
        m.step(x, targets=target, loss=loss, optimizer=sp.SGD(lr=0.1))
        return m.gradients() | {"logits": m(x)}


@pytest.fixture(scope="module")
def transformer_of_one_rank(shared_cluster):
    return transformer_step(shared_cluster, 1, False)


@pytest.mark.parametrize("sequence_parallel", [False, True],
                         ids=["q6", "q7"])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_transformer_with_dropout(cluster, transformer_of_one_rank, ranks,
                                  sequence_parallel):
    """Dropout after embeddings, of attention weights and on both residuals:
    one step is one rank's, to rounding."""
    actual = transformer_step(cluster, ranks, sequence_parallel)
    assert actual.keys() == transformer_of_one_rank.keys()
    for name, value in transformer_of_one_rank.items():
        assert_close(actual[name], value, name)


def kept(y):
    return (y != 0).double()


def agreement(a, b):
    """Of two masks: 1 if they are one, about half if they are independent."""
    return (kept(a) == kept(b)).double().mean().item()


def assert_independent(a, b):
    """Within 5 deviations of a half, for p = 0.5."""
    assert abs(agreement(a, b) - 0.5) < 5 * 0.5 / a.numel() ** 0.5


class Twice(nn.Module):
    """Two layers of dropout, and a third call, of the second's."""

    def __init__(self, p=0.5):
        super().__init__()
        self.first, self.second = nn.Dropout(p), nn.Dropout(p)

    def forward(self, x):
        return self.first(x), self.second(x), self.second(x), F.dropout(
            x, 0.5, self.training)


BIG = (40, 50)


def test_another_mask_for_each_layer_and_call(cluster):
    x = ones(*BIG)
    with cluster.parallelize_module(Twice(), {"tp": 4}, {}) as m:
        y = m(x)
        for i in range(len(y)):
            for j in range(i):
                assert_independent(y[i], y[j])
            assert torch.equal(y[i], m(x)[i])


def test_another_mask_for_each_step_and_seed(cluster):
    x = ones(*BIG)
    seen = []
    for seed in (0, 1, 2**40):
        with cluster.parallelize_module(nn.Dropout(0.5), {"tp": 4},
                                        SequenceParallel(), seed=seed) as m:
            for _ in range(3):
                seen.append(m(x))
                m.forward_backward(x.requires_grad_(), loss="sum")
                assert torch.equal(m.input_gradients()[0], seen[-1])
    for i, mask in enumerate(seen):
        for other in seen[:i]:
            assert_independent(mask, other)


def test_rows_and_columns_are_independent(cluster):
    with cluster.parallelize_module(nn.Dropout(0.5), {"tp": 4}, {}) as m:
        y = m(ones(*BIG))
    assert_independent(y[:-1], y[1:])
    assert_independent(y[:, :-1], y[:, 1:])


def test_a_repeated_forward_repeats_its_masks(cluster):
    """A forward draws for the step to come, as that step does; so a forward
    that is computed again, on whatever mesh, is the same."""
    x = rand(BATCH, LENGTH, DIM)
    for ranks in (1, 4):
        with cluster.parallelize_module(Masked(), {"tp": ranks},
                                        LAYOUTS["sequence"], seed=SEED) as m:
            before = m(x)
            assert torch.equal(m(x), before)
            loss = m.step(x, loss="sum", optimizer=sp.SGD(lr=0.0))
            assert_close(loss, before.sum())
            assert not torch.equal(m(x), before)


def test_an_error_changes_no_mask(cluster):
    """A step that took no effect took no number, and so no mask."""
    x = rand(BATCH, LENGTH, DIM)
    with cluster.parallelize_module(Masked(), {"tp": 4}, {}) as m:
        before = m(x)
        with pytest.raises(sp.ShardplaneError):
            m.step(x, loss="sum", targets=(x,), optimizer=sp.SGD(lr=0.1))
        assert torch.equal(m(x), before)


def test_accumulated_micro_batches_have_masks_of_their_own(cluster):
    x = ones(*BIG, requires_grad=True)
    with cluster.parallelize_module(nn.Dropout(0.5), {"tp": 4}, {}) as m:
        patterns = []
        for accumulate in (False, True, True):
            m.forward_backward(x, loss="sum", accumulate=accumulate)
            patterns.append(m.input_gradients()[0])
        for i in range(3):
            assert_independent(patterns[i], patterns[i - 1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_has_the_mask_of_the_forward(cluster, layout):
    x = ones(BATCH, LENGTH, DIM, requires_grad=True)
    with cluster.parallelize_module(Masked(), {"tp": 4}, LAYOUTS[layout],
                                    seed=SEED) as m:
        y = m(x)
        m.forward_backward(x, loss="sum")
        assert torch.equal(m.input_gradients()[0], y)
        assert_close(m.gradients()["lin.weight"],
                     y.sum((0, 1))[:, None].expand(DIM, DIM))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32,
                                   torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_and_scale(cluster, p, dtype):
    """As many kept as 1 - p says, within 5 deviations, scaled by 1 / (1 - p).
    """
    x = torch.ones(100, 201, dtype=dtype)
    with cluster.parallelize_module(nn.Dropout(p), {"tp": 3}, {}) as m:
        y = m(x)
        assert_counts(m, forward={})
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(kept(y).mean() - (1 - p)) < 5 * deviation
    for part in (kept(y).mean(0), kept(y).mean(1)):  # nor in any row
        assert (part - (1 - p)).abs().max() < 6 * (p * (1 - p) / 100) ** 0.5
    scaled = y[y != 0]
    torch.testing.assert_close(scaled, torch.full_like(scaled, 1 / (1 - p)))
    assert y.dtype == dtype


@pytest.mark.parametrize("layout", LAYOUTS)
def test_p_0_p_1_and_eval(cluster, layout):
    """Nothing is dropped, all of it is, and nothing: exactly."""
    x = rand(BATCH, LENGTH, DIM, requires_grad=True)
    for module, factor in ((Masked(0.0), 1.0), (Masked(1.0), 0.0),
                           (Masked(0.5).eval(), 1.0)):
        with cluster.parallelize_module(module, {"tp": 4},
                                        LAYOUTS[layout]) as m:
            assert_close(m(x), factor * x)
            m.forward_backward(x, loss="sum")
            assert_close(m.input_gradients()[0],
                         torch.full_like(x, factor))


def test_each_submodule_in_its_own_mode(cluster):
    module = Twice()
    module.first.eval()
    x = ones(*BIG)
    with cluster.parallelize_module(module, {"tp": 2}, {}) as m:
        first, second, _, function = m(x)
        assert torch.equal(first, x)
        assert not torch.equal(second, x)
        assert not torch.equal(function, x)
        module.eval()  # another mode is another program
        for y in m(x):
            assert torch.equal(y, x)
