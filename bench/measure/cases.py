"""The models that `bench step` trains: alike for every side."""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (ColwiseParallel,
                                               PrepareModuleInput,
                                               RowwiseParallel,
                                               SequenceParallel)
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True)
class Case:
    """A model with its plan, one batch, its loss and its optimizer."""

    title: str
    make: Callable          # () -> the module; seeded before
    plan: Callable          # (module) -> PyTorch's styles by FQN
    inputs: Callable        # (generator) -> tensors
    targets: Callable       # (generator) -> tensors
    loss: Callable          # (output, *targets) -> 0-dim
    optimizer: str          # class name: sp.X and torch.optim.X
    options: dict           # its keywords
    torch_options: dict = dataclasses.field(default_factory=dict)  # further
    loss_parallel: bool = False

    def module(self):
        torch.manual_seed(0)
        return self.make()

    def batch(self):
        """(inputs, targets)."""
        generator = torch.Generator().manual_seed(1)
        return self.inputs(generator), self.targets(generator)


class MLP(nn.Module):
    """Linear layers of these widths, with ReLU between them."""

    def __init__(self, *widths):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


class Attention(nn.Module):
    """Causal. `heads`: those that the projections yield."""

    def __init__(self, dim, heads, head_dim):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        inner = heads * head_dim
        self.wq = nn.Linear(dim, inner, bias=False)
        self.wk = nn.Linear(dim, inner, bias=False)
        self.wv = nn.Linear(dim, inner, bias=False)
        self.wo = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = (w(x).view(batch, length, self.heads, self.head_dim)
                   .transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.wo(y.transpose(1, 2).reshape(
            batch, length, self.heads * self.head_dim))


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.w2(F.gelu(self.w1(x)))


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dim // heads)
        self.ffn_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, 4 * dim)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class Transformer(nn.Module):
    """A decoder, pre-norm, with learned positions: token ids -> logits."""

    def __init__(self, dim, layers, heads, vocabulary, length):
        super().__init__()
        self.tok_embeddings = nn.Embedding(vocabulary, dim)
        self.pos_embeddings = nn.Embedding(length, dim)
        self.layers = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, vocabulary, bias=False)

    def forward(self, ids):
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.tok_embeddings(ids) + self.pos_embeddings(positions)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x)).float()


def two_layers(_):
    return {"layers.0": ColwiseParallel(), "layers.1": RowwiseParallel()}


def digits_plan(_):
    return {**two_layers(_),
            "layers.2": ColwiseParallel(output_layouts=Replicate())}


def transformer_plan(module):
    """Tensor and sequence parallel; the logits stay cut for the loss."""
    plan = {
        "tok_embeddings": RowwiseParallel(input_layouts=Replicate(),
                                          output_layouts=Shard(1)),
        "pos_embeddings": RowwiseParallel(input_layouts=Replicate(),
                                          output_layouts=Shard(0)),
        "norm": SequenceParallel(),
        "output": ColwiseParallel(input_layouts=Shard(1),
                                  output_layouts=Shard(-1),
                                  use_local_output=False),
    }
    for i in range(len(module.layers)):
        layer = {
            "attention_norm": SequenceParallel(),
            "ffn_norm": SequenceParallel(),
            "attention": PrepareModuleInput(
                input_layouts=Shard(1), desired_input_layouts=Replicate()),
            "attention.wq": ColwiseParallel(),
            "attention.wk": ColwiseParallel(),
            "attention.wv": ColwiseParallel(),
            "attention.wo": RowwiseParallel(output_layouts=Shard(1)),
            "feed_forward.w1": ColwiseParallel(input_layouts=Shard(1)),
            "feed_forward.w2": RowwiseParallel(output_layouts=Shard(1)),
        }
        plan.update({f"layers.{i}.{name}": style
                     for name, style in layer.items()})
    return plan


def normal(*shape):
    return lambda generator: (torch.randn(*shape, generator=generator),)


def ids(high, *shape):
    return lambda generator: (
        torch.randint(high, shape, generator=generator),)


def class_loss(logits, target):
    return F.cross_entropy(logits.flatten(0, -2), target.flatten())


def square_loss(output, target):
    return (output - target).square().mean()


CASES = {
    "digits": Case(
        title="MLP 64-256-256-10 of the digits demo, batch 64",
        make=functools.partial(MLP, 64, 256, 256, 10), plan=digits_plan,
        inputs=normal(64, 64), targets=ids(10, 64), loss=class_loss,
        optimizer="SGD", options={"lr": 0.1, "momentum": 0.9}),
    "small": Case(
        title="MLP 10-16-10, batch 8",
        make=functools.partial(MLP, 10, 16, 10), plan=two_layers,
        inputs=normal(8, 10), targets=normal(8, 10), loss=square_loss,
        optimizer="SGD", options={"lr": 0.01}),
    "mlp": Case(
        title="MLP 1024-4096-1024, batch 64",
        make=functools.partial(MLP, 1024, 4096, 1024), plan=two_layers,
        inputs=normal(64, 1024), targets=normal(64, 1024), loss=square_loss,
        optimizer="SGD", options={"lr": 0.1}),
    "transformer": Case(
        title="Transformer, dim 256, 4 layers, 8 heads, vocabulary 1024, "
              "batch 4 x 64; tensor, sequence and loss parallel",
        make=functools.partial(Transformer, 256, 4, 8, 1024, 64),
        plan=transformer_plan, inputs=ids(1024, 4, 64),
        targets=ids(1024, 4, 64), loss=class_loss,
        optimizer="Adam", options={"lr": 1e-3},
        # DTensor has no fused SGD. Of Adam this is PyTorch's fastest, which
        # reduces gradients of norms once and not thrice.
        torch_options={"fused": True}, loss_parallel=True),
}
