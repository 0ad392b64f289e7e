"""The language model of the demo: a decoder in plain PyTorch, and its plan.

Rotary position embedding, RMSNorm, SwiGLU, grouped-query attention. Nothing
here knows of ranks: head counts are the model's own, whatever the mesh.
"""

import dataclasses
import fnmatch

import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, RowwiseParallel, SequenceParallel)
from torch.nn import functional as F

ROTARY_BASE = 10_000.0
INITIAL_STD = 0.02


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of a Decoder. `dim` is `heads` times an even head size."""

    vocabulary: int
    sequence: int
    layers: int
    dim: int
    heads: int
    kv_heads: int
    hidden: int


def rotary_tables(sequence, head_dim):
    """cos and sin, each f[sequence, 1, head_dim]: one angle per pair."""
    rates = ROTARY_BASE ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(sequence), rates)
    angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """x f[batch, sequence, heads, head_dim], turned by its position."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.head_dim = sizes.dim // sizes.heads
        kv_dim = sizes.kv_heads * self.head_dim
        self.wq = nn.Linear(sizes.dim, sizes.dim, bias=False)
        self.wk = nn.Linear(sizes.dim, kv_dim, bias=False)
        self.wv = nn.Linear(sizes.dim, kv_dim, bias=False)
        self.wo = nn.Linear(sizes.dim, sizes.dim, bias=False)

    def forward(self, x, cos, sin):
        batch, sequence, _ = x.shape
        q, k, v = (w(x).view(batch, sequence, -1, self.head_dim)
                   for w in (self.wq, self.wk, self.wv))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
            is_causal=True, enable_gqa=True)
        return self.wo(y.transpose(1, 2).reshape(batch, sequence, -1))


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, sizes):
        super().__init__()
        self.w1 = nn.Linear(sizes.dim, sizes.hidden, bias=False)
        self.w2 = nn.Linear(sizes.hidden, sizes.dim, bias=False)
        self.w3 = nn.Linear(sizes.dim, sizes.hidden, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.attention_norm = nn.RMSNorm(sizes.dim)
        self.attention = Attention(sizes)
        self.ffn_norm = nn.RMSNorm(sizes.dim)
        self.feed_forward = FeedForward(sizes)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.feed_forward(self.ffn_norm(x))


class Decoder(nn.Module):
    """Tokens i64[batch, sequence] -> logits f[batch, sequence, vocabulary].

    The sequence may be shorter than that of `sizes`.
    """

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.tok_embeddings = nn.Embedding(sizes.vocabulary, sizes.dim)
        self.layers = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.dim)
        self.output = nn.Linear(sizes.dim, sizes.vocabulary, bias=False)
        cos, sin = rotary_tables(sizes.sequence, sizes.dim // sizes.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    def _initialise(self):
        """Small normal weights; what is added to the stream, smaller."""
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                continue
            std = INITIAL_STD
            if name.endswith(("wo.weight", "w2.weight")):
                std /= (2 * self.sizes.layers) ** 0.5
            nn.init.normal_(weight, std=std)

    def forward(self, tokens):
        sequence = tokens.shape[1]
        cos, sin = self.cos[:sequence], self.sin[:sequence]
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.output(self.norm(x))


# As a PyTorch user writes it: between the blocks the sequence is cut (dim 1),
# inside them heads and hidden columns are, and so is the vocabulary.
PLAN = {
    "tok_embeddings": RowwiseParallel(input_layouts=Replicate(),
                                      output_layouts=Shard(1)),
    "layers.*.attention_norm": SequenceParallel(),
    "layers.*.attention": PrepareModuleInput(
        input_layouts=(Shard(1), None, None),
        desired_input_layouts=(Replicate(), None, None)),
    "layers.*.attention.wq": ColwiseParallel(),
    "layers.*.attention.wk": ColwiseParallel(),
    "layers.*.attention.wv": ColwiseParallel(),
    "layers.*.attention.wo": RowwiseParallel(output_layouts=Shard(1)),
    "layers.*.ffn_norm": SequenceParallel(),
    "layers.*.feed_forward": PrepareModuleInput(
        input_layouts=(Shard(1),), desired_input_layouts=(Replicate(),)),
    "layers.*.feed_forward.w1": ColwiseParallel(),
    "layers.*.feed_forward.w2": RowwiseParallel(output_layouts=Shard(1)),
    "layers.*.feed_forward.w3": ColwiseParallel(),
    "norm": SequenceParallel(),
    "output": ColwiseParallel(input_layouts=Shard(1),
                              output_layouts=Shard(-1),
                              use_local_output=False),
}


# Parameters without weight decay: globs on their names.
NORMS = ("norm.*", "layers.*.attention_norm.*", "layers.*.ffn_norm.*")


def cross_entropy(logits, targets):
    """The mean over all tokens; vocabulary-parallel on the workers."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def parameter_groups(module, weight_decay):
    """torch.optim's groups: NORMS are not decayed."""
    decayed, plain = [], []
    for name, weight in module.named_parameters():
        norm = any(fnmatch.fnmatch(name, pattern) for pattern in NORMS)
        (plain if norm else decayed).append(weight)
    return [{"params": decayed, "weight_decay": weight_decay},
            {"params": plain, "weight_decay": 0.0}]
