"""What a rank computes, and nothing else: each case's model with the shapes that
one rank's operators have under its plan, and no collectives.

What a collective would bring is there already, zeros of its shape. So a step of
these, on as many processes as there are ranks, is the least that a step of the
sharded model can take on this machine with these operators, collectives apart.
The sizes are rank 0's: the largest, where ranks do not divide.
"""

import torch
from torch import nn
from torch.nn import functional as F

from measure.cases import CASES, MLP


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


class _Heads(nn.Module):
    """A rank's heads of causal attention; the whole sequence."""

    def __init__(self, dim, heads, head_dim):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.wq = nn.Linear(dim, heads * head_dim, bias=False)
        self.wk = nn.Linear(dim, heads * head_dim, bias=False)
        self.wv = nn.Linear(dim, heads * head_dim, bias=False)
        self.wo = nn.Linear(heads * head_dim, dim, bias=False)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = (w(x).view(batch, length, self.heads, self.head_dim)
                   .transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.wo(y.transpose(1, 2).reshape(batch, length, -1))


class _Block(nn.Module):
    def __init__(self, gather, scatter, dim, heads, head_dim, ranks):
        super().__init__()
        self.gather, self.scatter = gather, scatter
        self.attention_norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = _Heads(dim, heads, head_dim)
        self.w1 = nn.Linear(dim, 4 * dim // ranks)
        self.w2 = nn.Linear(4 * dim // ranks, dim)

    def forward(self, x):
        y = self.gather(self.attention_norm(x))
        x = x + self.scatter(self.attention(y))
        y = self.gather(self.ffn_norm(x))
        return x + self.scatter(self.w2(F.gelu(self.w1(y))))


class _Transformer(nn.Module):
    def __init__(self, ranks, dim, layers, heads, vocabulary, batch, length):
        super().__init__()
        part = -(-length // ranks)
        gather, scatter = _Resize(length, batch, dim), _Resize(part, batch, dim)
        self.tok_embeddings = nn.Embedding(-(-vocabulary // ranks), dim)
        self.pos_embeddings = nn.Embedding(part, dim)
        self.scatter, self.gather = scatter, gather
        self.layers = nn.ModuleList(
            _Block(gather, scatter, dim, -(-heads // ranks), dim // heads, ranks)
            for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, -(-vocabulary // ranks), bias=False)

    def forward(self, ids):
        ids = ids % self.tok_embeddings.num_embeddings
        x = self.scatter(self.tok_embeddings(ids))
        x = x + self.pos_embeddings.weight
        for layer in self.layers:
            x = layer(x)
        return self.output(self.gather(self.norm(x)))


def _mlp(widths, cut, ranks):
    """`cut`: the widths, by index, of which a rank has its part."""
    return MLP(*(-(-width // ranks) if i in cut else width
                 for i, width in enumerate(widths)))


class _Digits(nn.Module):
    """Its third layer takes the second's whole output."""

    def __init__(self, ranks):
        super().__init__()
        self.first = _mlp((64, 256, 256), {1}, ranks)
        self.last = nn.Linear(256, -(-10 // ranks))

    def forward(self, x):
        return F.pad(self.last(torch.relu(self.first(x))),
                     (0, 10 - self.last.out_features))


_MODULES = {
    "digits": _Digits,
    "small": lambda ranks: _mlp((10, 16, 10), {1}, ranks),
    "mlp": lambda ranks: _mlp((1024, 4096, 1024), {1}, ranks),
    "transformer": lambda ranks: _Transformer(
        ranks, 256, 4, 8, 1024, batch=4, length=64),
}


class LocalTrainer:
    """A case's step with a rank's operators alone."""

    def __init__(self, name, ranks):
        self._case = CASES[name]
        torch.manual_seed(0)
        self._module = _MODULES[name](ranks)
        inputs, targets = self._case.batch()
        classes = -(-1024 // ranks) if self._case.loss_parallel else None
        self._inputs = inputs
        self._targets = (tuple(t % classes for t in targets) if classes
                         else targets)
        self._optimizer = getattr(torch.optim, self._case.optimizer)(
            self._module.parameters(), **self._case.options, fused=True)

    def step(self):
        self._optimizer.zero_grad()
        loss = self._case.loss(self._module(*self._inputs), *self._targets)
        loss.backward()
        self._optimizer.step()
        return loss.item()
