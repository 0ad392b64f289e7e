"""Blocks around operators, and of modules that are shared, nested or idle."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.differential.block import FLAGS, Block, block
from tests.differential.blocks_of_models import (
    ROTARY, Attention, Chain, Gated, Norm, Residual)


@block
class Split(Block):
    """Parts along a dim, joined in another order."""

    CHOICES = {"dim": [2, 1, 0], "how": ["chunk", "split", "slice", "unbind"],
               "act": FLAGS}

    def build(self, width):
        self.lin = nn.Linear(width, width)

    def forward(self, x):
        y = self.lin(x)
        size = y.shape[self.dim]
        if self.how == "chunk":
            parts = y.chunk(min(3, size), self.dim)
        elif self.how == "split":
            parts = y.split([1, size - 1] if size > 1 else 1, self.dim)
        elif self.how == "slice":
            parts = (y.narrow(self.dim, 0, size // 2),
                     y.narrow(self.dim, size // 2, size - size // 2))
        else:
            return torch.stack(y.unbind(self.dim)[::-1], self.dim)
        first = torch.tanh(parts[0]) if self.act else -parts[0]
        return torch.cat([*parts[1:], first], self.dim)


@block
class Shift(Block):
    """Each position sees the one before it: slices, padded with zeros."""

    CHOICES = {"dim": [1, 2, 0]}

    def build(self, width):
        self.lin = nn.Linear(width, width)

    def forward(self, x):
        y = self.lin(x)
        before = y.narrow(self.dim, 0, y.shape[self.dim] - 1)
        first = torch.zeros_like(y.narrow(self.dim, 0, 1))
        return x + torch.cat([first, before], self.dim)


@block
class Stack(Block):
    CHOICES = {"dim": [0, 1, -1], "how": ["sum", "mean", "amax", "select"]}

    def build(self, width):
        self.left = nn.Linear(width, width)
        self.right = nn.Linear(width, width, bias=False)

    def forward(self, x):
        y = torch.stack([self.left(x), self.right(x)], self.dim)
        if self.how == "select":
            return y.select(self.dim, 0) * torch.sigmoid(y.select(self.dim, 1))
        return getattr(y, self.how)(self.dim)


@block
class Cat(Block):
    CHOICES = {"parts": [[2, 3], [8, 8], [1, 16]], "dim": [-1, 1, 0]}

    def build(self, width):
        if self.dim == -1:
            self.left = nn.Linear(width, self.parts[0])
            self.right = nn.Linear(width, self.parts[1])
            self.down = nn.Linear(sum(self.parts), width)
        else:
            self.left = nn.Linear(width, self.parts[0])
            self.right = nn.Linear(width, self.parts[0])
            self.down = nn.Linear(self.parts[0], width)

    def forward(self, x):
        y = self.down(torch.cat([self.left(x), self.right(x)], self.dim))
        if self.dim == -1:
            return y
        first, second = y.chunk(2, self.dim)
        return first - 0.5 * second


EINSUMS = {  # of two [b, s, w] -> [b, s, w]
    "sequence": "bsw,btw->bst;bst,btv->bsv",
    "width": "bsw,bsv->bwv;bwv,bsw->bsv",
    "batch": "bsw,csw->bcs;bcs,csw->bsw",
    "outer": "bsw,bsv->bswv;bswv,bsw->bsv",
}


@block
class Einsum(Block):
    CHOICES = {"kind": list(EINSUMS)}

    def build(self, width):
        self.left = nn.Linear(width, width)
        self.right = nn.Linear(width, width)

    def forward(self, x):
        first, second = EINSUMS[self.kind].split(";")
        left, right = self.left(x), self.right(x)
        return torch.einsum(second, torch.einsum(first, left, right) / 4,
                            left)


@block
class Products(Block):
    """Matrix products of activations."""

    CHOICES = {"how": ["matmul", "bmm", "flat"], "left": FLAGS}

    def build(self, width):
        self.a = nn.Linear(width, width, bias=False)
        self.b = nn.Linear(width, width)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        if self.how == "flat":  # [w, w], of all positions
            a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
            return x @ torch.tanh(a.t() @ b)
        product = torch.bmm if self.how == "bmm" else torch.matmul
        if self.left:
            return product(product(a, b.mT) / 8, x)
        return product(x, product(a.mT, b) / 8)


@block
class Index(Block):
    CHOICES = {"how": ["index", "select", "gather", "flip", "roll"],
               "dim": [1, 2, 0]}

    def build(self, width):
        self.lin = nn.Linear(width, width)
        count = (self.sizes.batch, self.sizes.sequence, width)[self.dim]
        order = torch.arange(count - 1, -1, -1) // 2
        self.register_buffer("order", order)

    def forward(self, x):
        y = self.lin(x)
        if self.how == "index":
            index = [slice(None)] * self.dim + [self.order]
            return x + y[tuple(index)]
        if self.how == "select":
            return x + y.index_select(self.dim, self.order)
        if self.how == "gather":
            shape = [1, 1, 1]
            shape[self.dim] = -1
            return x * y.gather(self.dim, self.order.view(shape).expand_as(y))
        return (y.flip(self.dim) if self.how == "flip"
                else y.roll(1, self.dim)) - x


@block
class Where(Block):
    CHOICES = {"how": ["where", "masked_fill", "buffer", "compare"]}

    def build(self, width):
        self.lin = nn.Linear(width, width)
        self.register_buffer(
            "keep", torch.arange(self.sizes.sequence)[:, None] % 3 > 0)

    def forward(self, x):
        y = self.lin(x)
        if self.how == "where":
            return torch.where(y > 0, y, 0.1 * x)
        if self.how == "masked_fill":
            return y.masked_fill(x < 0, 0.5)
        if self.how == "buffer":
            return y.masked_fill(self.keep, 0.0) + x
        return y * (x > y) + torch.where(self.keep, x, 0.25)


@block
class Dropped(Block):
    """Dropout of nothing, in training mode."""

    CHOICES = {"before": FLAGS}

    def build(self, width):
        self.lin = nn.Linear(width, width)
        self.drop = nn.Dropout(0.0)

    def forward(self, x):
        return (self.lin(self.drop(x)) if self.before
                else self.drop(self.lin(x)))


@block
class Buffers(Block):
    CHOICES = {"shape": ["width", "sequence", "all"]}

    def build(self, width):
        b, s = self.sizes.batch, self.sizes.sequence
        shape = {"width": (width,), "sequence": (s, 1),
                 "all": (b, s, width)}[self.shape]
        self.register_buffer("scale", torch.rand(shape) + 0.5)
        self.lin = nn.Linear(width, width)

    def forward(self, x):
        return self.lin(x) * self.scale - self.scale


@block
class Twice(Block):
    """One module called twice, also with another shape."""

    CHOICES = {"act": FLAGS, "other_shape": FLAGS}

    def build(self, width):
        self.lin = nn.Linear(width, width)

    def forward(self, x):
        y = torch.tanh(x) if self.act else x
        if self.other_shape:
            return self.lin(y) + self.lin(y.sum(1)).unsqueeze(1)
        return self.lin(torch.tanh(self.lin(y)))


@block
class Tied(Block):
    """Two linears of one weight."""

    CHOICES = {"bias": FLAGS}

    def build(self, width):
        self.a = nn.Linear(width, width, bias=self.bias)
        self.b = nn.Linear(width, width, bias=self.bias)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


@block
class Views(Block):
    """A linear on other dims than those of x."""

    CHOICES = {"how": ["flat", "groups", "swap", "merge", "expand",
                       "unflatten"], "groups": [1, 2, 3, 4]}

    def build(self, width):
        self.inner = 2 * self.groups
        self.up = nn.Linear(width, self.inner)
        self.down = nn.Linear(self.inner, width)

    def forward(self, x):
        b, s, _ = x.shape
        y = self.up(x)
        if self.how == "flat":
            y = torch.tanh(y.reshape(b * s, -1)).view(b, s, -1)
        elif self.how == "groups":
            y = y.view(b, s, self.groups, 2)
            y = (y * y.sum(-1, keepdim=True)).flatten(2)
        elif self.how == "swap":
            y = y.view(b, s, self.groups, 2).transpose(2, 3).reshape(b, s, -1)
        elif self.how == "merge":
            y = torch.sigmoid(y.permute(1, 0, 2).flatten(1))
            y = y.view(s, b, -1).transpose(0, 1)
        elif self.how == "expand":
            y = y[:, :, None].expand(b, s, 3, self.inner).sum(2) / 2
        else:
            y = y.unflatten(-1, (self.groups, 2)).squeeze(0)
            y = y.mean(-1, keepdim=True).expand(*y.shape).reshape(b, s, -1)
        return self.down(y)


@block
class Outer(Block):
    CHOICES = {"hidden": [2, 3, 5]}

    def build(self, width):
        self.a = nn.Linear(width, self.hidden)
        self.b = nn.Linear(width, self.hidden)
        self.down = nn.Linear(self.hidden * self.hidden, width)

    def forward(self, x):
        y = self.a(x).unsqueeze(-1) * self.b(x).unsqueeze(-2)
        return self.down(y.flatten(-2))


@block
class Running(Block):
    """Along a dim: sums so far, or a triangle of weights."""

    CHOICES = {"how": ["cumsum", "tril"], "dim": [1, 2, 0]}

    def build(self, width):
        self.lin = nn.Linear(width, width)

    def forward(self, x):
        y = self.lin(x)
        if self.how == "cumsum":
            return y.cumsum(self.dim) / 3
        return (y @ y.mT).tril() @ x / 5


@block
class Unused(Block):
    """A module that is not called, and one whose result nobody reads."""

    CHOICES = {"called": FLAGS}

    def build(self, width):
        self.lin = nn.Linear(width, width)
        self.idle = nn.Linear(width, 3)

    def forward(self, x):
        if self.called:
            self.idle(x)
        return self.lin(x)


@block
class Scaled(Block):
    """Parameters of the block's own, whole on every rank."""

    CHOICES = {"shape": ["width", "sequence", "scalar"]}

    def build(self, width):
        shape = {"width": (width,), "sequence": (self.sizes.sequence, 1),
                 "scalar": ()}[self.shape]
        self.gain = nn.Parameter(torch.rand(shape) + 0.5)
        self.shift = nn.Parameter(torch.rand(shape) - 0.5)

    def forward(self, x):
        return x * self.gain + self.shift


@block
class Layer(Block):
    """Of a transformer: norms, attention and a network, each with a way
    around it."""

    CHOICES = {"norm": ["rms", "layer", "rms_by_hand"],
               "norm_first": [True, False], "gated": FLAGS,
               "heads": [[2, 2], [4, 2], [4, 4], [3, 3], [8, 1]],
               "head_dim": [2, 1, 3], "form": ["causal", "mask", "by_hand"],
               "rotary": ROTARY, "hidden": [8, 13, 3]}

    def build(self, width):
        self.norm1 = Norm(self.sizes, kind=self.norm).norm
        self.norm2 = Norm(self.sizes, kind=self.norm).norm
        self.attention = Attention(
            self.sizes, heads=self.heads, head_dim=self.head_dim,
            form=self.form, projections="three", bias=self.gated,
            rotary=self.rotary)
        if self.gated:
            self.network = Gated(self.sizes, hidden=self.hidden, fused=False)
        else:
            self.network = Chain(self.sizes, hidden=[self.hidden],
                                 act="gelu", bias=True)

    def forward(self, x):
        if self.norm_first:
            x = x + self.attention(self.norm1(x))
            return x + self.network(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.network(x))


@block
class Nested(Block):
    """Modules at a depth of their own, for patterns and nested plans."""

    CHOICES = {"depth": [1, 2, 3], "hidden": [3, 8, 7]}

    def build(self, width):
        inner = Residual(self.sizes, hidden=self.hidden, act="tanh",
                         bias=True)
        for _ in range(self.depth - 1):
            inner = nn.Sequential(inner)
        self.inner = inner
        self.last = nn.Linear(width, width)

    def forward(self, x):
        return self.last(self.inner(x))
