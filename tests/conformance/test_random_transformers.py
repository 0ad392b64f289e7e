"""Random decoders under random plans, beside the same module unsharded: norms,
attention with fewer kv heads, rotary positions, gates, embeddings, losses."""

import random

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, RowwiseParallel, SequenceParallel)
from torch.nn import functional as F

import shardplane as sp
from tests.models import RMSNormPython, tokens
from tests.parity import (
    assert_bytes, assert_close, check_gradients, check_parameters,
    check_shards, parallelized)

BATCH = 3
LR = 1e-2


def make_norm(kind, dim):
    if kind == "python":
        return RMSNormPython(dim)
    cls = nn.LayerNorm if kind == "layer" else nn.RMSNorm
    return cls(dim, dtype=torch.float64)


def linear(inputs, outputs, bias=False):
    return nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64)


def rotate(x):
    """Rotary positions on [batch, head, sequence, head dim]."""
    length, half = x.shape[-2], x.shape[-1] // 2
    speed = 0.5 ** torch.arange(half, dtype=x.dtype)
    angle = torch.arange(length, dtype=x.dtype)[:, None] * speed
    cos, sin = angle.cos(), angle.sin()
    left, right = x.chunk(2, -1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)


class Attention(nn.Module):
    def __init__(self, rng, dim, heads, kv_heads):
        super().__init__()
        size = dim // heads
        self.heads, self.kv_heads = heads, kv_heads
        self.rotary = size % 2 == 0 and rng.random() < 0.5
        self.form = rng.choice(["causal", "mask", "by_hand"])
        bias = rng.random() < 0.4
        self.wq = linear(dim, dim, bias)
        self.wk = linear(dim, kv_heads * size, bias)
        self.wv = linear(dim, kv_heads * size, bias)
        self.wo = linear(dim, dim, bias)

    def forward(self, x):
        b, s, _ = x.shape
        q = self.wq(x).view(b, s, self.heads, -1).transpose(1, 2)
        k = self.wk(x).view(b, s, self.kv_heads, -1).transpose(1, 2)
        v = self.wv(x).view(b, s, self.kv_heads, -1).transpose(1, 2)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        y = self.attend(q, k, v)
        return self.wo(y.transpose(1, 2).reshape(b, s, -1))

    def attend(self, q, k, v):
        if self.form == "causal":
            return F.scaled_dot_product_attention(
                q, k, v, is_causal=True,
                enable_gqa=self.kv_heads != self.heads)
        groups = self.heads // self.kv_heads
        k, v = (t.repeat_interleave(groups, 1) for t in (k, v))
        seen = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril()
        if self.form == "mask":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v


class FeedForward(nn.Module):
    def __init__(self, rng, dim):
        super().__init__()
        hidden = rng.choice([dim, 3 * dim, 13])
        self.gated = rng.random() < 0.5
        self.w1 = linear(dim, hidden, not self.gated)
        self.w2 = linear(hidden, dim, not self.gated)
        if self.gated:
            self.w3 = linear(dim, hidden)

    def forward(self, x):
        if self.gated:
            return self.w2(F.silu(self.w1(x)) * self.w3(x))
        return self.w2(F.gelu(self.w1(x)))


class Block(nn.Module):
    def __init__(self, rng, dim, heads, kv_heads, norm):
        super().__init__()
        self.norm_first = rng.random() < 0.8
        self.attention_norm = make_norm(norm, dim)
        self.attention = Attention(rng, dim, heads, kv_heads)
        self.ffn_norm = make_norm(norm, dim)
        self.feed_forward = FeedForward(rng, dim)

    def forward(self, x):
        if self.norm_first:
            x = x + self.attention(self.attention_norm(x))
            return x + self.feed_forward(self.ffn_norm(x))
        x = self.attention_norm(x + self.attention(x))
        return self.ffn_norm(x + self.feed_forward(x))


class Decoder(nn.Module):
    def __init__(self, rng):
        super().__init__()
        heads = rng.choice([2, 4, 8])
        kv_heads = rng.choice([h for h in (1, 2, 4, 8) if heads % h == 0])
        dim = heads * rng.choice([2, 4])
        norm = rng.choice(["layer", "rms", "python"])
        self.vocabulary = rng.choice([5, 8, 11])
        self.length = rng.choice([4, 6, 7])
        self.tok = nn.Embedding(self.vocabulary, dim, dtype=torch.float64)
        self.pos = (nn.Embedding(9, dim, dtype=torch.float64)
                    if rng.random() < 0.5 else None)
        self.layers = nn.ModuleList(
            Block(rng, dim, heads, kv_heads, norm)
            for _ in range(rng.randint(1, 2)))
        self.norm = make_norm(norm, dim)
        self.output = linear(dim, self.vocabulary)
        if rng.random() < 0.5:
            self.output.weight = self.tok.weight

    def forward(self, x):
        y = self.tok(x)
        if self.pos is not None:
            y = y + self.pos(torch.arange(x.shape[1]))
        for layer in self.layers:
            y = layer(y)
        return self.output(self.norm(y))


def plan_of(rng, sequence_parallel):
    """The usual plan, with a part of it left out or done otherwise."""
    cut = Shard(1) if sequence_parallel else Replicate()
    whole = Replicate()
    plan = {
        "tok": RowwiseParallel(input_layouts=whole, output_layouts=cut),
        "pos": RowwiseParallel(
            input_layouts=whole,
            output_layouts=Shard(0) if sequence_parallel else whole),
        "layers.*.attention.w[qkv]": ColwiseParallel(),
        "layers.*.attention.wo": RowwiseParallel(output_layouts=cut),
        "layers.*.feed_forward.w[13]": ColwiseParallel(input_layouts=cut),
        "layers.*.feed_forward.w2": RowwiseParallel(output_layouts=cut),
        "output": ColwiseParallel(
            input_layouts=cut, output_layouts=rng.choice([Shard(-1), whole])),
    }
    if sequence_parallel:
        plan |= {"layers.*.*_norm": SequenceParallel(),
                 "norm": SequenceParallel(),
                 "layers.*.attention": PrepareModuleInput(
                     input_layouts=cut, desired_input_layouts=whole)}
    others = {
        "tok": [ColwiseParallel(), ColwiseParallel(output_layouts=whole)],
        "pos": [ColwiseParallel()],
        "layers.*.feed_forward.w2": [
            RowwiseParallel(output_layouts=layout)
            for layout in (Shard(0), Shard(2), Partial(), whole)],
        "layers.*.attention.wo": [
            RowwiseParallel(output_layouts=layout)
            for layout in (Shard(0), Partial(), cut)],
        "layers.*.*_norm": [SequenceParallel(sequence_dim=dim)
                            for dim in (0, 1, -1)],
        "output": [RowwiseParallel(), ColwiseParallel()],
    }
    for key in list(plan):
        if rng.random() < 0.15:
            del plan[key]
        elif key in others and rng.random() < 0.25:
            plan[key] = rng.choice(others[key])
    return plan


def cuts_of(report, module):
    """What the report says is cut. That a linear or an embedding with a style
    is cut is checked with the plan itself."""
    cuts = {}
    for name, _ in module.named_parameters():
        text = report.placements[name]
        if text != "[R]":
            cuts[name] = int(text.removeprefix("[S(").removesuffix(")]"))
    return cuts


def make_loss(rng, vocabulary):
    options = {"reduction": rng.choice(["mean", "sum"])}
    if rng.random() < 0.4:
        options["label_smoothing"] = 0.1
    if rng.random() < 0.4:
        options["ignore_index"] = 1
    if rng.random() < 0.3:
        options["weight"] = torch.rand(vocabulary, dtype=torch.float64) + 0.5
    flat = rng.random() < 0.5

    def loss(logits, target):
        if flat:
            return F.cross_entropy(logits.flatten(0, 1), target.flatten(),
                                   **options)
        return F.cross_entropy(logits.transpose(1, 2), target, **options)

    return loss


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_decoder_under_a_random_plan(cluster, seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    module = Decoder(rng)
    plan = plan_of(rng, rng.random() < 0.6)
    mesh = {"tp": rng.choice([2, 3, 4])}
    loss = make_loss(rng, module.vocabulary)
    x = tokens(BATCH, module.length, module.vocabulary, seed=seed)
    target = tokens(BATCH, module.length, module.vocabulary, seed=seed + 99)
    print(f"seed {seed}: {mesh} {plan}\n{module}")
    with parallelized(cluster, module, mesh, plan, x=x) as case:
        case.cuts = cuts_of(case.m.report, module)
        assert len(case.cuts) >= 3
        case.check_start()
        case.check_forward(x)
        optimizer = torch.optim.SGD(case.reference.parameters(), lr=LR,
                                    momentum=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            expected = loss(case.reference(x), target)
            expected.backward()
            actual = case.m.step(x, targets=(target,), loss=loss,
                                 optimizer=sp.SGD(lr=LR, momentum=0.5))
            assert_close(actual, expected, "loss")
            check_gradients(case.m, case.reference)
            optimizer.step()
        check_parameters(case.m, case.reference, "after two steps:")
        check_shards(case.m, case.reference, case.cuts)
        # A few moves of an activation for each module, at the most.
        modules = len(list(module.modules()))
        largest = 4 * 8 * 96 * 8
        assert_bytes(case.m, forward=2 * modules * largest,
                     backward=2 * modules * largest)
