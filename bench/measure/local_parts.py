"""What a rank computes, and nothing else: each case's model with the shapes
that one rank's operators have under its plan, and no collectives.

What a collective would bring is there already, zeros of its shape. So a step of
these, on as many processes as there are ranks, is the least that a step of the
sharded model can take on this machine with these operators, collectives apart.
The sizes are rank 0's: the largest, where ranks do not divide.
"""

import torch
from torch import nn
from torch.nn import functional as F

from measure.cases import CASES, MLP, Attention, FeedForward


def _part(extent, ranks):
    """Rank 0's of a dim."""
    return -(-extent // ranks)


class _Into(torch.autograd.Function):
    """A tensor of another shape, and its gradient's way back."""

    @staticmethod
    def forward(ctx, x, into):
        ctx.back = torch.zeros_like(x)
        return into.detach()

    @staticmethod
    def backward(ctx, gradient):
        del gradient
        return ctx.back, None


class _Resize(nn.Module):
    """In place of a gather or a reduce-scatter along dim 1."""

    def __init__(self, length, batch, dim):
        super().__init__()
        self._into = torch.zeros(batch, length, dim)

    def forward(self, x):
        return _Into.apply(x, self._into)


class _Block(nn.Module):
    """As cases.Block, a rank's heads and hidden units."""

    def __init__(self, gather, scatter, dim, heads, ranks):
        super().__init__()
        self.gather, self.scatter = gather, scatter
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, _part(heads, ranks), dim // heads)
        self.ffn_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, _part(4 * dim, ranks))

    def forward(self, x):
        y = self.gather(self.attention_norm(x))
        x = x + self.scatter(self.attention(y))
        y = self.gather(self.ffn_norm(x))
        return x + self.scatter(self.feed_forward(y))


class _Transformer(nn.Module):
    """As cases.Transformer."""

    def __init__(self, ranks, batch, dim, layers, heads, vocabulary, length):
        super().__init__()
        part = _part(length, ranks)
        self.gather = _Resize(length, batch, dim)
        self.scatter = _Resize(part, batch, dim)
        self.tok_embeddings = nn.Embedding(_part(vocabulary, ranks), dim)
        self.pos_embeddings = nn.Embedding(part, dim)
        self.layers = nn.ModuleList(
            _Block(self.gather, self.scatter, dim, heads, ranks)
            for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, _part(vocabulary, ranks), bias=False)

    def forward(self, ids):
        ids = ids % self.tok_embeddings.num_embeddings
        x = self.scatter(self.tok_embeddings(ids))
        x = x + self.pos_embeddings.weight
        for layer in self.layers:
            x = layer(x)
        return self.output(self.gather(self.norm(x)))


class _Digits(nn.Module):
    """Its third layer takes the second's whole output."""

    def __init__(self, ranks, *widths):
        super().__init__()
        self.first = _two_layers(ranks, *widths[:3])
        self.last = nn.Linear(widths[2], _part(widths[3], ranks))
        self.outputs = widths[3]

    def forward(self, x):
        x = self.last(torch.relu(self.first(x)))
        return F.pad(x, (0, self.outputs - x.shape[-1]))


def _two_layers(ranks, inputs, hidden, outputs):
    return MLP(inputs, _part(hidden, ranks), outputs)


# By case: (ranks, rows of the batch, the whole model's arguments).
_MODULES = {
    "digits": lambda ranks, _, *widths: _Digits(ranks, *widths),
    "small": lambda ranks, _, *widths: _two_layers(ranks, *widths),
    "mlp": lambda ranks, _, *widths: _two_layers(ranks, *widths),
    "transformer": _Transformer,
}


class LocalTrainer:
    """A case's step with a rank's operators alone."""

    def __init__(self, name, ranks):
        self._case = CASES[name]
        self._inputs, self._targets = self._case.batch()
        torch.manual_seed(0)
        self._module = _MODULES[name](ranks, len(self._inputs[0]),
                                      *self._case.make.args)
        if self._case.loss_parallel:  # a rank has its classes
            classes = self._module.output.out_features
            self._targets = tuple(t % classes for t in self._targets)
        self._optimizer = getattr(torch.optim, self._case.optimizer)(
            self._module.parameters(), **self._case.options, fused=True)

    def step(self):
        self._optimizer.zero_grad()
        loss = self._case.loss(self._module(*self._inputs), *self._targets)
        loss.backward()
        self._optimizer.step()
        return loss.item()
