"""What has no row: replicated with a warning and its cost, or refused in words
that say what and where.
"""

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel
from torch.nn import functional as F

import shardplane as sp
from tests.models import rand
from tests.parity import assert_close

ROWS, IN, OUT = 4, 6, 8


class Inner(nn.Module):
    """A projection, cut by its columns, and an operator on it."""

    def __init__(self, function):
        super().__init__()
        self.proj = nn.Linear(IN, OUT, dtype=torch.float64)
        self.function = function

    def forward(self, x):
        return self.function(self.proj(x))


class Outer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.inner = Inner(function)

    def forward(self, x):
        return self.inner(x)


PLAN = {"inner.proj": ColwiseParallel(use_local_output=False)}


def refused(cluster, function, **options):
    module = Outer(function)
    with pytest.raises(sp.UnimplementedError) as raised:
        cluster.parallelize_module(
            module, {"tp": 2}, PLAN, example_inputs=(rand(ROWS, IN),),
            **options)
    return raised.value


REFUSED = {
    "aten.linalg_householder_product.default": (
        lambda y: torch.linalg.householder_product(y.T, y[0, :4]),
        "no sharding rule and is not known to be safe"),
    "aten.bernoulli.default": (
        torch.bernoulli, "draws random numbers, which would differ by rank"),
    "aten.rand_like.default": (
        lambda y: y + torch.rand_like(y), "draws random numbers"),
    "aten.randn.default": (
        lambda y: y + torch.randn(OUT), "draws random numbers"),
    "aten.feature_dropout.default": (
        lambda y: F.dropout1d(y, 0.5), "draws random numbers"),
    "aten.index_put.default": (
        lambda y: y.index_put((y[:, 0] > 0,), y[0]), "a mask as index"),
    "aten.embedding.default": (
        lambda y: F.embedding(torch.tensor([1, 0]), y,
                              scale_grad_by_freq=True), "scale_grad_by_freq"),
}


@pytest.mark.parametrize("target", REFUSED)
def test_an_op_is_refused_by_name_and_place(cluster, target):
    function, why = REFUSED[target]
    error = refused(cluster, function)
    assert target in str(error) and why in str(error)
    assert "inner, node " in str(error)


def test_an_op_without_a_row_costs_what_the_warning_says(cluster):
    x = rand(ROWS, IN)
    module = Outer(lambda y: torch.rot90(y, 1, (0, 1)) * 2)
    with cluster.parallelize_module(module, {"tp": 2}, PLAN,
                                    example_inputs=(x,)) as m:
        (warning,) = m.report.warnings
        assert "inner: aten.rot90.default has no sharding rule" in str(warning)
        assert f"after gathering {ROWS * OUT * 8} bytes" in str(warning)
        assert_close(m(x), module(x))


def test_strict_takes_no_op_without_a_row(cluster):
    error = refused(cluster, lambda y: torch.rot90(y, 1, (0, 1)), strict=True)
    assert "aten.rot90.default has no sharding rule" in str(error)

