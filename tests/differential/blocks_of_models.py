"""Blocks as models have them."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.differential.block import FLAGS, HIDDEN, Block, block

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU,
               "silu": nn.SiLU, "sigmoid": nn.Sigmoid}


@block
class Chain(Block):
    """Linears after each other."""

    CHOICES = {"hidden": [[n] for n in HIDDEN] + [[8, 6], [5, 17, 4]],
               "act": list(ACTIVATIONS), "bias": FLAGS}

    def build(self, width):
        sizes = [width, *self.hidden, width]
        self.layers = nn.Sequential()
        for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
            if i:
                self.layers.append(ACTIVATIONS[self.act]())
            self.layers.append(nn.Linear(inputs, outputs, bias=self.bias))

    def forward(self, x):
        return self.layers(x)


@block
class Residual(Block):
    CHOICES = {"hidden": HIDDEN + [64], "act": list(ACTIVATIONS),
               "bias": FLAGS}

    def build(self, width):
        self.up = nn.Linear(width, self.hidden, bias=self.bias)
        self.act_fn = ACTIVATIONS[self.act]()
        self.down = nn.Linear(self.hidden, width, bias=self.bias)

    def forward(self, x):
        return x + self.down(self.act_fn(self.up(x)))


@block
class Gated(Block):
    CHOICES = {"hidden": HIDDEN, "fused": FLAGS}

    def build(self, width):
        if self.fused:
            self.both = nn.Linear(width, 2 * self.hidden, bias=False)
        else:
            self.gate = nn.Linear(width, self.hidden, bias=False)
            self.up = nn.Linear(width, self.hidden, bias=False)
        self.down = nn.Linear(self.hidden, width, bias=False)

    def forward(self, x):
        gate, up = (self.both(x).chunk(2, -1) if self.fused
                    else (self.gate(x), self.up(x)))
        return self.down(F.silu(gate) * up)


ROTARY = [*FLAGS, "complex"]


def rotate(x, form):
    """Rotary positions on [batch, head, sequence, even head dim]."""
    length, half = x.shape[-2], x.shape[-1] // 2
    speed = 0.5 ** torch.arange(half, dtype=x.dtype)
    angle = torch.arange(length, dtype=x.dtype)[:, None] * speed
    if form == "complex":
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], half, 2))
        turned = pairs * torch.polar(torch.ones_like(angle), angle)
        return torch.view_as_real(turned).flatten(3)
    left, right = x.chunk(2, -1)
    return torch.cat([left * angle.cos() - right * angle.sin(),
                      right * angle.cos() + left * angle.sin()], -1)


@block
class Attention(Block):
    CHOICES = {
        "heads": [[1, 1], [2, 2], [4, 4], [3, 3], [8, 8], [4, 2], [2, 1],
                  [6, 3], [8, 2]],  # and kv heads
        "head_dim": [2, 1, 3, 4],
        "form": ["plain", "causal", "mask", "float_mask", "by_hand",
                 "einsum"],
        "projections": ["three", "fused"], "bias": FLAGS, "rotary": ROTARY}

    def build(self, width):
        heads, kv_heads = self.heads
        inner, kv = heads * self.head_dim, kv_heads * self.head_dim
        if self.projections == "fused":
            self.qkv = nn.Linear(width, inner + 2 * kv, bias=self.bias)
        else:
            self.q = nn.Linear(width, inner, bias=self.bias)
            self.k = nn.Linear(width, kv, bias=self.bias)
            self.v = nn.Linear(width, kv, bias=self.bias)
        self.o = nn.Linear(inner, width, bias=self.bias)

    def project(self, x):
        if self.projections == "three":
            return self.q(x), self.k(x), self.v(x)
        heads, kv_heads = self.heads
        return self.qkv(x).split(
            [n * self.head_dim for n in (heads, kv_heads, kv_heads)], -1)

    def forward(self, x):
        b, s, _ = x.shape
        q, k, v = (t.view(b, s, -1, self.head_dim).transpose(1, 2)
                   for t in self.project(x))
        if self.rotary and self.head_dim % 2 == 0:
            q, k = rotate(q, self.rotary), rotate(k, self.rotary)
        y = self.attend(q, k, v)
        return self.o(y.transpose(1, 2).reshape(b, s, -1))

    def attend(self, q, k, v):
        gqa = self.heads[0] != self.heads[1]
        if self.form in ("plain", "causal"):
            return F.scaled_dot_product_attention(
                q, k, v, is_causal=self.form == "causal", enable_gqa=gqa)
        if gqa:
            groups = self.heads[0] // self.heads[1]
            k, v = (t.repeat_interleave(groups, 1) for t in (k, v))
        length = q.shape[-2]
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        if self.form == "mask":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        if self.form == "float_mask":
            bias = torch.zeros(length, length, dtype=q.dtype)
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=bias.masked_fill(~seen, -math.inf))
        if self.form == "einsum":
            weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
            return torch.einsum("bhij,bhjd->bhid", weights, v)
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
        return scores.masked_fill(~seen, -math.inf).softmax(-1) @ v


class WrittenOutNorm(nn.Module):
    """RMS or layer norm, of plain operators."""

    def __init__(self, width, centered):
        super().__init__()
        self.centered = centered
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        if self.centered:
            x = x - x.mean(-1, keepdim=True)
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3)
        return x * scale * self.weight


@block
class Norm(Block):
    CHOICES = {"kind": ["rms", "layer", "rms_by_hand", "layer_by_hand",
                        "plain"]}

    def build(self, width):
        self.norm = {
            "rms": lambda: nn.RMSNorm(width),
            "layer": lambda: nn.LayerNorm(width),
            "plain": lambda: nn.LayerNorm(width, elementwise_affine=False),
            "rms_by_hand": lambda: WrittenOutNorm(width, False),
            "layer_by_hand": lambda: WrittenOutNorm(width, True),
        }[self.kind]()

    def forward(self, x):
        return self.norm(x)


class RunningMean(nn.Module):
    """Adds an average of what it has seen, and counts its calls."""

    def __init__(self, width, momentum):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        now = x.detach().mean((0, 1))
        self.mean.mul_(1 - self.momentum).add_(now, alpha=self.momentum)
        return x + self.mean / self.calls


class BatchNorm(nn.BatchNorm1d):
    """Over batch and sequence; of one row there is nothing to normalise."""

    def forward(self, x):
        rows = x.shape[0] * x.shape[1]
        return x if rows == 1 else super().forward(x.mT).mT


@block
class Running(Block):
    """Buffers that the forward pass changes."""

    CHOICES = {"kind": ["average", "batch_norm"], "momentum": [0.5, 0.1],
               "calls": [1, 2]}

    def build(self, width):
        self.lin = nn.Linear(width, width)
        self.norm = (RunningMean(width, self.momentum)
                     if self.kind == "average" else
                     BatchNorm(width, eps=0.1, momentum=self.momentum))

    def forward(self, x):
        x = self.lin(x)
        for _ in range(self.calls):
            x = self.norm(x)
        return x


@block
class Positions(Block):
    CHOICES = {"spare": [0, 1, 4]}

    def build(self, width):
        self.pos = nn.Embedding(self.sizes.sequence + self.spare, width)

    def forward(self, x):
        return x + self.pos(torch.arange(x.shape[1]))


ELEMENTWISE = {
    "scale": lambda x: 0.5 * x + 1,
    "tanh": torch.tanh,
    "bell": lambda x: torch.exp(-x * x),
    "ratio": lambda x: x / (1 + x.abs()),
    "power": lambda x: (x.pow(2) + 0.1).rsqrt() - x ** 3 / 9,
    "waves": lambda x: x.sin() - 2 * x.cos(),
    "clamp": lambda x: x.clamp(-0.5, 0.7) + F.softplus(x),
    "cast": lambda x: (x > 0).double() * x + x.to(torch.float64),
}


@block
class Elementwise(Block):
    CHOICES = {"ops": [[name] for name in ELEMENTWISE]
               + [["tanh", "power"], ["bell", "waves", "ratio"]]}

    def forward(self, x):
        for name in self.ops:
            x = ELEMENTWISE[name](x)
        return x


@block
class Softmax(Block):
    CHOICES = {"dim": [2, 1, 0, -1], "log": FLAGS}

    def build(self, width):
        self.lin = nn.Linear(width, width)

    def forward(self, x):
        function = F.log_softmax if self.log else F.softmax
        return function(self.lin(x), self.dim)


REDUCTIONS = {
    "mean": lambda y, dims: y.mean(dims, keepdim=True),
    "sum": lambda y, dims: y.sum(dims, keepdim=True) / 9,
    "amax": lambda y, dims: y.amax(dims, keepdim=True),
    "norm": lambda y, dims: (y.pow(2).sum(dims, keepdim=True) + 1).sqrt(),
    "mean_square": lambda y, dims: (y * y).mean(dims, keepdim=True),
}


@block
class Reduce(Block):
    """What each element lacks to a value of its row, column or both."""

    CHOICES = {"kind": list(REDUCTIONS),
               "dims": [[2], [1], [0], [-1], [1, 2], [0, 2], [0, 1, 2]]}

    def build(self, width):
        self.lin = nn.Linear(width, width)

    def forward(self, x):
        y = self.lin(x)
        return y - REDUCTIONS[self.kind](y, self.dims)


@block
class Pooled(Block):
    """A dim is summed away before a linear, and broadcast after it."""

    CHOICES = {"dim": [1, 0], "mean": FLAGS}

    def build(self, width):
        self.lin = nn.Linear(width, width)

    def forward(self, x):
        y = x.mean(self.dim) if self.mean else x.sum(self.dim)
        return x + self.lin(y).unsqueeze(self.dim)
