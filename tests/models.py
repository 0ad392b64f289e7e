"""The models of the tests: small, seeded, float64 unless told otherwise."""

import dataclasses

import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, RowwiseParallel, SequenceParallel)
from torch.nn import functional as F


class MLPModule(nn.Module):
    """Linear, ReLU, Linear: children net1, relu, net2."""

    def __init__(self, inputs=10, hidden=16, bias=True, seed=5,
                 dtype=torch.float64):
        super().__init__()
        torch.manual_seed(seed)
        self.net1 = nn.Linear(inputs, hidden, bias=bias, dtype=dtype)
        self.relu = nn.ReLU()
        self.net2 = nn.Linear(hidden, inputs, bias=bias, dtype=dtype)

    def forward(self, x):
        return self.net2(self.relu(self.net1(x)))


class MLPStacked(nn.Module):
    def __init__(self, n_layers=2, **options):
        super().__init__()
        self.layers = nn.ModuleList(
            MLPModule(**options) for _ in range(n_layers))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class DummyModule(nn.Module):
    def forward(self, x):
        return x


class RMSNormPython(nn.Module):
    """Root mean square norm, written out."""

    def __init__(self, dim, eps=1e-6, dtype=torch.float64):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim, dtype=dtype))

    def forward(self, x):
        mean_square = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(mean_square + self.eps) * self.weight


@dataclasses.dataclass
class TransformerArgs:
    layers: int = 2
    vocabulary: int = 8
    positions: int = 16
    dim: int = 16
    heads: int = 4
    dropout: float = 0.0
    tied: bool = False
    dtype: torch.dtype = torch.float64
    seed: int = 5


class Attention(nn.Module):
    """Causal self-attention, four projections without bias."""

    def __init__(self, args):
        super().__init__()
        self.heads, self.dropout_p = args.heads, args.dropout
        for name in ("wq", "wk", "wv", "wo"):
            setattr(self, name, nn.Linear(args.dim, args.dim, bias=False,
                                          dtype=args.dtype))
        self.resid_dropout = nn.Dropout(args.dropout)

    def _by_head(self, x):
        """[batch, sequence, dim] -> [batch, head, sequence, head dim]"""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x):
        q, k, v = (self._by_head(w(x)) for w in (self.wq, self.wk, self.wv))
        y = F.scaled_dot_product_attention(
            q, k, v, is_causal=True,
            dropout_p=self.dropout_p if self.training else 0.0)
        y = y.transpose(1, 2).contiguous().view(*x.shape)
        return self.resid_dropout(self.wo(y))


class FeedForward(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.w1 = nn.Linear(args.dim, 4 * args.dim, dtype=args.dtype)
        self.gelu = nn.GELU()
        self.w2 = nn.Linear(4 * args.dim, args.dim, dtype=args.dtype)
        self.resid_dropout = nn.Dropout(args.dropout)

    def forward(self, x):
        return self.resid_dropout(self.w2(self.gelu(self.w1(x))))


class TransformerBlock(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.attention_norm = nn.LayerNorm(args.dim, dtype=args.dtype)
        self.attention = Attention(args)
        self.ffn_norm = nn.LayerNorm(args.dim, dtype=args.dtype)
        self.feed_forward = FeedForward(args)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class Transformer(nn.Module):
    """behaviour.md Q4 and Q5: the decoder of PyTorch's own tests, with its
    names. Tokens [batch, sequence] -> logits [batch, sequence, vocabulary],
    in the dtype of the parameters."""

    def __init__(self, args):
        super().__init__()
        torch.manual_seed(args.seed)
        self.tok_embeddings = nn.Embedding(args.vocabulary, args.dim,
                                           dtype=args.dtype)
        self.pos_embeddings = nn.Embedding(args.positions, args.dim,
                                           dtype=args.dtype)
        self.dropout = nn.Dropout(args.dropout)
        self.layers = nn.ModuleList(
            TransformerBlock(args) for _ in range(args.layers))
        self.norm = nn.LayerNorm(args.dim, dtype=args.dtype)
        self.output = nn.Linear(args.dim, args.vocabulary, bias=False,
                                dtype=args.dtype)
        if args.tied:
            self.output.weight = self.tok_embeddings.weight

    def forward(self, tokens):
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tok_embeddings(tokens) + self.pos_embeddings(positions)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))


def transformer_plan(sequence_parallel):
    """behaviour.md Q6, and Q7 with `sequence_parallel`."""
    whole = {"input_layouts": Replicate()}
    plan = {
        "tok_embeddings": RowwiseParallel(**whole),
        "pos_embeddings": RowwiseParallel(**whole),
        "layers.*.attention.w[qkv]": ColwiseParallel(),
        "layers.*.attention.wo": RowwiseParallel(),
        "layers.*.feed_forward.w1": ColwiseParallel(),
        "layers.*.feed_forward.w2": RowwiseParallel(),
        "output": ColwiseParallel(output_layouts=Replicate()),
    }
    if not sequence_parallel:
        return plan
    cut = Shard(1)
    return plan | {
        "tok_embeddings": RowwiseParallel(**whole, output_layouts=cut),
        "pos_embeddings": RowwiseParallel(**whole, output_layouts=Shard(0)),
        "layers.*.*_norm": SequenceParallel(),
        "norm": SequenceParallel(),
        "layers.*.attention": PrepareModuleInput(
            input_layouts=cut, desired_input_layouts=Replicate()),
        "layers.*.attention.wo": RowwiseParallel(output_layouts=cut),
        "layers.*.feed_forward.w1": ColwiseParallel(input_layouts=cut),
        "layers.*.feed_forward.w2": RowwiseParallel(output_layouts=cut),
        "output": ColwiseParallel(input_layouts=cut,
                                  output_layouts=Replicate()),
    }


def transformer_cuts(module):
    """Which parameters either plan cuts, and along which tensor dim."""
    dims = {"tok_embeddings.weight": 0, "pos_embeddings.weight": 0,
            "wq.weight": 0, "wk.weight": 0, "wv.weight": 0, "wo.weight": 1,
            "w1.weight": 0, "w1.bias": 0, "w2.weight": 1, "output.weight": 0}
    return {name: dim for name, _ in module.named_parameters()
            for end, dim in dims.items() if name.endswith(end)}


def tokens(batch=8, length=8, vocabulary=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (batch, length), generator=generator)


def linear(inputs, outputs, dtype=torch.float64, seed=5, **options):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, dtype=dtype, **options)


def rand(*shape, dtype=torch.float64, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=dtype,
                      generator=generator).requires_grad_(requires_grad)
