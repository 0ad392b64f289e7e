"""Buffers that the forward pass changes: norms in training mode, counters,
averages, caches; in steps, forwards and failed steps.
"""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, RowwiseParallel)
from torch.nn import functional as F

import shardplane as sp
from tests.models import rand
from tests.parity import (
    assert_at_most, assert_close, check_gradients, check_parameters,
    check_placements, check_shards)

ROWS, IN, HIDDEN, OUT = 6, 10, 8, 3
PLAN = {"up": ColwiseParallel(output_layouts=Shard(-1)),
        "down": RowwiseParallel()}
CUTS = {"up.weight": 0, "up.bias": 0, "down.weight": 1}


class Block(nn.Module):
    """Linear, a norm of its own, Linear: cut by columns, then rows."""

    def __init__(self, norm, calls=1):
        super().__init__()
        torch.manual_seed(3)
        self.up = nn.Linear(IN, HIDDEN, dtype=torch.float64)
        self.norm = norm
        self.act = nn.ReLU(inplace=True)
        self.down = nn.Linear(HIDDEN, OUT, dtype=torch.float64)
        self.calls = calls

    def forward(self, x):
        x = self.up(x)
        x += 1
        for _ in range(self.calls):
            x = self.norm(x)
        return self.down(self.act(x))


class Average(nn.Module):
    """Keeps an average, a count and the last few inputs; all are used."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(HIDDEN, dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("kept", torch.ones(ROWS, HIDDEN,
                                                dtype=torch.float64))

    def forward(self, x):
        self.calls += 1
        self.mean.mul_(0.75).add_(x.detach().mean(0), alpha=0.25)
        old = self.kept.clone()
        self.kept.copy_(x.detach())
        return x * self.mean + old / self.calls


class Cache(nn.Module):
    """Writes to a part of its buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(ROWS, HIDDEN,
                                                 dtype=torch.float64))

    def forward(self, x):
        self.rows[1:3] = x[1:3].detach() * 2
        return x + self.rows


def batch_norm(**options):
    return nn.BatchNorm1d(HIDDEN, dtype=torch.float64, **options)


NORMS = {"batch_norm": batch_norm,
         "momentum": lambda: batch_norm(momentum=0.5, eps=1e-3),
         "last_batch": lambda: batch_norm(momentum=1),  # an int
         "not_affine": lambda: batch_norm(affine=False),
         "average": Average, "cache": Cache}
BATCH_NORMS = ("batch_norm", "momentum", "last_batch", "not_affine")


def batches(count):
    return [(rand(ROWS, IN, seed=i), rand(ROWS, OUT, seed=100 + i))
            for i in range(count)]


def deploy(cluster, module, ranks, **options):
    return cluster.parallelize_module(
        module, {"tp": ranks}, PLAN, example_inputs=(rand(ROWS, IN),),
        **options)


def loss(y, target):
    return F.mse_loss(y, target)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("norm", NORMS)
def test_steps_change_them_as_pytorch_does(cluster, norm, ranks):
    module = Block(NORMS[norm]())
    twin = deepcopy(module)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    with deploy(cluster, module, ranks) as m:
        check_placements(m.report, twin, CUTS)
        for x, target in batches(3):
            expected = loss(twin(x), target)
            optimizer.zero_grad()
            expected.backward()
            optimizer.step()
            assert_close(m.step(x, targets=target, loss=loss,
                                optimizer=sp.SGD(lr=0.1)), expected)
            check_gradients(m, twin)
            check_parameters(m, twin, "after a step")  # buffers, too
        check_shards(m, twin, CUTS)
        if norm in BATCH_NORMS:
            # Channels are cut as the columns are: statistics by rank, and a
            # gather of them for buffers that each rank has whole; backward
            # one of each gradient of the norm's own parameters.
            assert_at_most(m, forward={"all_reduce": 1, "all_gather": 2},
                           backward={"all_gather": 2, "all_reduce": 1})


@pytest.mark.parametrize("norm", NORMS)
def test_a_forward_that_changes_buffers_is_a_step(cluster, norm):
    module = Block(NORMS[norm]())
    twin = deepcopy(module)
    with deploy(cluster, module, 2) as m:
        for number, (x, _) in enumerate(batches(3), start=1):
            assert_close(m(x), twin(x), "output")
            assert m.last_step == number
            check_parameters(m, twin, "after a forward")
        twin.eval()
        module.eval()
        x, _ = batches(1)[0]
        if norm in BATCH_NORMS:
            assert_close(m(x), twin(x), "in eval mode")
            assert m.last_step == 3


def test_called_twice(cluster):
    """The second call sees what the first has written."""
    module = Block(batch_norm(), calls=2)
    twin = deepcopy(module)
    with deploy(cluster, module, 2) as m:
        for x, _ in batches(2):
            assert_close(m(x), twin(x), "output")
        check_parameters(m, twin, "after two forwards")
        assert m.state_dict()["norm.num_batches_tracked"] == 4


def test_gradients_stay_beside_a_forward(cluster):
    module = Block(batch_norm())
    twin = deepcopy(module)
    (x, target), (other, _) = batches(2)
    with deploy(cluster, module, 2) as m:
        m.forward_backward(x, targets=target, loss=loss)
        loss(twin(x), target).backward()
        m(other)
        twin(other)
        check_gradients(m, twin)
        m.forward_backward(x, targets=target, loss=loss, accumulate=True)
        loss(twin(x), target).backward()
        check_gradients(m, twin)
        m.update(sp.SGD(lr=0.1))
        torch.optim.SGD(twin.parameters(), lr=0.1).step()
        check_parameters(m, twin, "after an update")


def test_rows_that_are_cut(cluster):
    """The statistics are those of the whole batch."""
    module = Block(batch_norm())
    twin = deepcopy(module)
    x, target = batches(1)[0]
    cut = PrepareModuleInput(input_layouts=Shard(0),
                             desired_input_layouts=Shard(0))
    with cluster.parallelize_module(module, {"tp": 4}, cut,
                                    example_inputs=(x,)) as m:
        expected = loss(twin(x), target)
        expected.backward()
        assert_close(m.forward_backward(x, targets=target, loss=loss),
                     expected)
        check_gradients(m, twin)
        check_parameters(m, twin, "statistics")


def test_train_is_steps(cluster):
    module = Block(batch_norm())
    twin = deepcopy(module)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    data = batches(5)
    with deploy(cluster, module, 2) as m:
        losses = list(m.train(data, loss=loss, optimizer=sp.SGD(lr=0.1)))
        for (x, target), got in zip(data, losses, strict=True):
            expected = loss(twin(x), target)
            assert_close(got, expected)
            optimizer.zero_grad()
            expected.backward()
            optimizer.step()
        check_parameters(m, twin, "after train")


class Picky(Block):
    """Looks up a table, where bad ids make a step fail."""

    def __init__(self):
        super().__init__(batch_norm())
        self.table = nn.Embedding(5, IN, dtype=torch.float64)

    def forward(self, ids):
        return super().forward(self.table(ids))


def test_a_step_that_fails_changes_none(cluster):
    module = Picky()
    twin = deepcopy(module)
    good, bad = torch.arange(5), torch.tensor([0, 1, 2, 3, 9])
    with cluster.parallelize_module(
            module, {"tp": 2}, PLAN, example_inputs=(good,)) as m:
        with pytest.raises(sp.InvalidArgumentError, match="9"):
            m(bad)
        with pytest.raises(sp.InvalidArgumentError, match="9"):
            m.step(bad, loss="sum", optimizer=sp.SGD(lr=0.1))
        check_parameters(m, twin, "after failures")
        assert m.last_step == 0
        assert_close(m(good), twin(good))
        check_parameters(m, twin, "after a success")


def test_a_parameter_is_not_changed_in_place(cluster):
    class Changes(nn.Linear):
        def forward(self, x):
            with torch.no_grad():
                self.weight.mul_(0.5)
            return super().forward(x)

    with pytest.raises(sp.UnimplementedError, match="changes a parameter"):
        cluster.parallelize_module(Changes(IN, OUT), {"tp": 2}, PLAN,
                                   example_inputs=(torch.rand(2, IN),))


def test_an_input_is_not_changed_in_place(cluster):
    class Changes(nn.Linear):
        def forward(self, x):
            x += 1
            return super().forward(x)

    with pytest.raises(sp.UnimplementedError,
                       match="changes its input .*let it change a copy"):
        cluster.parallelize_module(Changes(IN, OUT), {"tp": 2}, PLAN,
                                   example_inputs=(torch.rand(2, IN),))
