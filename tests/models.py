"""The models of the tests: small, seeded, float64 unless told otherwise."""

import torch
from torch import nn


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


def linear(inputs, outputs, dtype=torch.float64, seed=5, **options):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, dtype=dtype, **options)


def rand(*shape, dtype=torch.float64, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=dtype,
                      generator=generator).requires_grad_(requires_grad)
