"""Steps of SGD whose large weights are updated by products that nobody makes:
the same as PyTorch's, whatever is asked of the gradients afterwards."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.models import MLPModule, rand
from tests.parity import (assert_close, assert_predicted, check_gradients,
                          check_parameters, check_shards, parallelized)

# A rank of 4 has 1 MiB of each weight, a batch row of it 10 KiB.
WIDTHS = {"inputs": 512, "hidden": 1024}
WEIGHT = 512 * 1024 * 8
ROWS = 6
PAIR = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
CUTS = {"net1.weight": 0, "net1.bias": 0, "net2.weight": 1}
ranks = pytest.mark.parametrize("tp", [1, 2, 4])


def batch(seed):
    return rand(ROWS, 512, seed=seed), rand(ROWS, 512, seed=seed + 50)


def loss(output, target):
    return (output - target).square().mean()


class Both:
    """A deployment and its reference, step by step."""

    def __init__(self, case, cuts=None, **sgd):
        self.m, self.reference, self._cuts = case.m, case.reference, cuts
        self._own = sp.SGD(**sgd)
        self.torch = torch.optim.SGD(self.reference.parameters(), **sgd)

    def reference_loss(self, seed, accumulate=False):
        if not accumulate:
            self.torch.zero_grad()
        x, y = batch(seed)
        value = loss(self.reference(x), y)
        value.backward()
        return value

    def step(self, seed):
        x, y = batch(seed)
        actual = self.m.step(x, targets=y, loss=loss, optimizer=self._own)
        assert_close(actual, self.reference_loss(seed), "loss")
        assert_predicted(self.m)
        self.torch.step()

    def update(self):
        self.m.update(self._own)
        self.torch.step()

    def check(self):
        check_gradients(self.m, self.reference)
        check_parameters(self.m, self.reference, "now:")
        check_shards(self.m, self.reference, self._cuts or CUTS)


def check_less_memory(m, weights):
    """Of the last step: so many bytes of gradients less than a step has that
    makes them, but for the products' factors."""
    predicted = [line.peak_run_bytes for line in m.program_report().memory]
    for rank, measured in enumerate(m.peak_run_bytes):
        assert measured <= predicted[rank] - 0.9 * weights, f"rank {rank}"


@ranks
@pytest.mark.parametrize("sgd", [{}, {"weight_decay": 0.5},
                                 {"weight_decay": 0.5, "maximize": True}],
                         ids=["plain", "decay", "maximize"])
def test_steps(cluster, tp, sgd):
    with parallelized(cluster, MLPModule(**WIDTHS), {"tp": tp}, PAIR,
                      cuts=CUTS, x=batch(0)[0]) as case:
        both = Both(case, lr=0.25, **sgd)
        for seed in range(3):
            both.step(seed)
        check_less_memory(both.m, 2 * WEIGHT // tp)
        both.check()


@ranks
def test_gradients_are_there_when_they_are_asked_for(cluster, tp):
    with parallelized(cluster, MLPModule(**WIDTHS, bias=False), {"tp": tp},
                      PAIR, cuts={"net1.weight": 0, "net2.weight": 1}) as case:
        both = Both(case, {"net1.weight": 0, "net2.weight": 1}, lr=0.25)
        both.step(0)
        both.check()
        both.update()  # by the same gradients once more
        both.check()
        x, y = batch(1)
        both.m.forward_backward(x, targets=y, loss=loss, accumulate=True)
        both.reference_loss(1, accumulate=True)
        both.check()
        both.update()
        both.check()


@ranks
def test_clipping_by_gradients_that_were_products(cluster, tp):
    with parallelized(cluster, MLPModule(**WIDTHS), {"tp": tp}, PAIR) as case:
        both = Both(case, lr=0.25)
        both.step(0)
        norm = nn.utils.clip_grad_norm_(both.reference.parameters(), 1e-3)
        both.m.update(sp.SGD(lr=0.25), clip_norm=1e-3)
        assert both.m.gradient_norm == pytest.approx(norm.item(), rel=1e-10)
        both.torch.step()
        check_parameters(both.m, both.reference, "clipped:")


@ranks
def test_train(cluster, tp):
    with parallelized(cluster, MLPModule(**WIDTHS), {"tp": tp}, PAIR) as case:
        both = Both(case, lr=0.25)
        batches = [((x,), (y,)) for x, y in map(batch, range(5))]
        losses = [float(value) for value in both.m.train(
            batches, loss=loss, optimizer=sp.SGD(lr=0.25))]
        expected = []
        for seed in range(5):
            expected.append(both.reference_loss(seed).item())
            both.torch.step()
        assert losses == pytest.approx(expected, rel=1e-10)
        check_less_memory(both.m, 2 * WEIGHT // tp)
        both.check()


def test_momentum_and_adam_make_them(cluster):
    """And their peak is the predicted one."""
    for own, other in ((sp.SGD(lr=0.1, momentum=0.9),
                        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
                       (sp.Adam(lr=0.1),
                        lambda p: torch.optim.Adam(p, lr=0.1))):
        with parallelized(cluster, MLPModule(**WIDTHS), {"tp": 2},
                          PAIR) as case:
            optimizer = other(case.reference.parameters())
            for seed in range(2):
                x, y = batch(seed)
                optimizer.zero_grad()
                loss(case.reference(x), y).backward()
                optimizer.step()
                case.m.step(x, targets=y, loss=loss, optimizer=own)
            check_parameters(case.m, case.reference, "now:")
            for line, measured in zip(case.m.program_report().memory,
                                      case.m.peak_run_bytes):
                assert measured >= 2 * WEIGHT // 2
                assert measured <= 1.1 * line.peak_run_bytes


class Tied(nn.Module):
    """One weight twice: the sum of two products is made."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(512, 512, dtype=torch.float64)
        self.second = nn.Linear(512, 512, dtype=torch.float64)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def test_tied_weights(cluster):
    torch.manual_seed(3)
    with parallelized(cluster, Tied(), {"tp": 2},
                      {"first": ColwiseParallel(
                          output_layouts=torch.distributed.tensor.Replicate()),
                       "second": ColwiseParallel(
                           output_layouts=torch.distributed.tensor.Replicate())
                       }) as case:
        both = Both(case, {"first.weight": 0, "second.weight": 0,
                           "first.bias": 0, "second.bias": 0}, lr=0.25)
        for seed in range(2):
            both.step(seed)
        both.check()


def test_a_replicated_weight_among_batch_parts(cluster):
    """Under data parallel its gradient is a sum over ranks, which is made."""
    reference = MLPModule(**WIDTHS)
    module = deepcopy(reference)
    x, y = rand(8, 512), rand(8, 512, seed=9)
    with cluster.parallelize_module(
            module, {"dp": 2}, {}, data_parallel="replicate",
            example_inputs=(x,), loss=loss, example_targets=(y,)) as m:
        optimizer = torch.optim.SGD(reference.parameters(), lr=0.25)
        loss(reference(x), y).backward()
        optimizer.step()
        m.step(x, targets=y, optimizer=sp.SGD(lr=0.25))
        check_gradients(m, reference)
        check_parameters(m, reference, "now:")
