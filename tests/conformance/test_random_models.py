"""Random modules under random plans, beside the same module unsharded."""

import random

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.models import rand
from tests.parity import (
    LR, assert_bytes, assert_close, check_gradients, check_parameters, check_shards,
    parallelized)

BATCH, SEQUENCE = 4, 6


class Residual(nn.Module):
    def __init__(self, rng, width):
        super().__init__()
        hidden = rng.choice([3, 8, 16, 17])
        bias = rng.random() < 0.7
        self.up = nn.Linear(width, hidden, bias=bias)
        self.act = rng.choice([nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU])()
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x):
        return x + self.down(self.act(self.up(x)))


class Heads(nn.Module):
    """Two projections, viewed as heads, multiplied, and projected back."""

    def __init__(self, rng, width):
        super().__init__()
        self.heads = rng.choice([2, 3, 4, 8])
        inner = self.heads * rng.choice([1, 2])
        self.q = nn.Linear(width, inner, bias=False)
        self.k = nn.Linear(width, inner, bias=rng.random() < 0.5)
        self.o = nn.Linear(inner, width)
        self.scale = rng.choice([1.0, 0.5])

    def forward(self, x):
        b, s, _ = x.shape
        q = self.q(x).view(b, s, self.heads, -1).transpose(1, 2)
        k = self.k(x).view(b, s, self.heads, -1).transpose(1, 2)
        y = (q * self.scale) * torch.tanh(k)
        return self.o(y.transpose(1, 2).reshape(b, s, -1))


class Center(nn.Module):
    """What each position lacks to the mean over one dim."""

    def __init__(self, rng, width):
        super().__init__()
        self.dim = rng.choice([0, 1, -1])
        self.lin = nn.Linear(width, width)

    def forward(self, x):
        y = self.lin(x)
        return y - y.mean(self.dim, keepdim=True)


class Mix(nn.Module):
    def __init__(self, rng, width):
        super().__init__()
        self.a = nn.Linear(width, rng.choice([5, 8]))
        self.b = nn.Linear(width, self.a.out_features)
        self.c = nn.Linear(self.a.out_features, width)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        return self.c((a + b) * 0.5 - a.sum(1, keepdim=True) / 8)


def random_module(rng):
    width = rng.choice([5, 8, 10])
    blocks = [rng.choice([Residual, Heads, Center, Mix])(rng, width)
              for _ in range(rng.randint(1, 3))]
    return nn.Sequential(*blocks).double(), width


def random_style(rng):
    layouts = [Replicate(), Shard(0), Shard(1), Shard(-1)]
    options = {}
    if rng.random() < 0.5:
        options["input_layouts"] = rng.choice(layouts)
    if rng.random() < 0.6:
        options["output_layouts"] = rng.choice(layouts + [Partial()])
    return rng.choice([ColwiseParallel, RowwiseParallel])(**options)


def random_plan(rng, module):
    """Styles of most linears, and which parameters they cut."""
    plan, cuts = {}, {}
    for name, child in module.named_modules():
        if not isinstance(child, nn.Linear) or rng.random() < 0.2:
            continue
        plan[name] = random_style(rng)
        colwise = isinstance(plan[name], ColwiseParallel)
        cuts[f"{name}.weight"] = 0 if colwise else 1
        if child.bias is not None and colwise:
            cuts[f"{name}.bias"] = 0
    return plan, cuts


def freeze_some(rng, module):
    for parameter in module.parameters():
        if rng.random() < 0.15:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in module.parameters()):
        next(module.parameters()).requires_grad_(True)


def square_error(y, target):
    return ((y - target) * (y - target)).mean()


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_module_under_a_random_plan(cluster, seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    module, width = random_module(rng)
    freeze_some(rng, module)
    plan, cuts = random_plan(rng, module)
    x = rand(BATCH, SEQUENCE, width, requires_grad=rng.random() < 0.5)
    target = rand(BATCH, SEQUENCE, width)
    mesh = {"tp": rng.choice([2, 3, 4])}
    print(f"seed {seed}: {mesh} {plan}\n{module}")
    with parallelized(cluster, module, mesh, plan, cuts=cuts, x=x) as case:
        case.check_start()
        case.check_forward(x)
        twin = x.detach().clone().requires_grad_(x.requires_grad)
        optimizer = torch.optim.SGD(
            [p for p in case.reference.parameters() if p.requires_grad],
            lr=LR, momentum=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            twin.grad = None
            expected = square_error(case.reference(twin), target)
            expected.backward()
            actual = case.m.step(x, targets=(target,), loss=square_error,
                                 optimizer=sp.SGD(lr=LR, momentum=0.5))
            assert_close(actual, expected, "loss")
            check_gradients(case.m, case.reference)
            if x.requires_grad:
                (gradient,) = case.m.input_gradients()
                assert_close(gradient, twin.grad, "input gradient")
            optimizer.step()
        # A few moves of its activations for each linear, at the most.
        linears = sum(isinstance(c, nn.Linear) for c in module.modules())
        largest = (BATCH + 4) * (SEQUENCE + 2) * (17 + 3) * x.element_size()
        assert_bytes(case.m, forward=3 * linears * largest,
                     backward=4 * linears * largest)
        check_parameters(case.m, case.reference, "after two steps:")
        check_shards(case.m, case.reference, cuts)
