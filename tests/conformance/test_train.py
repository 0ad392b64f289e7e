"""m.train: step after step is what m.step gives, bit for bit, and PyTorch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel
from torch.nn import functional as F

import shardplane as sp
from tests.models import MLPModule, rand
from tests.parity import assert_close

PAIR = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
SEQUENTIAL = {"0": ColwiseParallel(), "3": RowwiseParallel()}


def batches(count, rows=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, 10, generator=generator, dtype=torch.float64)
            for _ in range(count)]


def deploy(cluster, ranks, module, plan, **options):
    return cluster.parallelize_module(module, {"tp": ranks}, plan, **options)


def assert_same_state(a, b):
    state, expected = a.state_dict(), b.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


def with_dropout():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(10, 16, dtype=torch.float64), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(16, 10, dtype=torch.float64))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("options", [
    {"optimizer": sp.SGD(lr=0.01, momentum=0.9)},
    {"optimizer": sp.AdamW(lr=0.01), "clip_norm": 0.5},
], ids=["sgd", "adamw_clipped"])
def test_train_is_step_bit_for_bit(cluster, ranks, options):
    data = batches(40)

    def run(losses_of):
        with deploy(cluster, ranks, with_dropout(), SEQUENTIAL, loss="mean",
                    seed=11) as m:
            losses = torch.stack(list(losses_of(m)))
            return losses, m.state_dict(), m.gradients(), m.gradient_norm

    expected = run(lambda m: [m.step(x, **options) for x in data])
    losses, state, gradients, norm = run(lambda m: m.train(data, **options))
    assert torch.equal(losses, expected[0]) and losses.shape == (40,)
    for got, wanted in ((state, expected[1]), (gradients, expected[2])):
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            assert torch.equal(got[name], value), name
    assert norm == expected[3]


@pytest.mark.parametrize("ranks", [1, 3])
def test_train_is_torchs(cluster, ranks):
    """With a loss of targets, and values that change from step to step."""
    reference = MLPModule()
    optimizer = torch.optim.SGD(reference.parameters(), lr=1.0)
    inputs, targets = batches(12), batches(12, seed=1)
    expected = []
    for i, (x, y) in enumerate(zip(inputs, targets), 1):
        optimizer.param_groups[0]["lr"] = 0.5 / i
        loss = ((reference(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.detach())
    with deploy(cluster, ranks, MLPModule(), PAIR,
                loss=lambda out, y: ((out - y) ** 2).mean()) as m:
        losses = list(m.train(zip(inputs, targets),
                              optimizer=lambda n: sp.SGD(lr=0.5 / n)))
        assert_close(torch.stack(losses), torch.stack(expected))
        for name, value in reference.state_dict().items():
            assert_close(m.state_dict()[name], value, name)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = MLPModule()

    def forward(self, a, b, scale=1.0):
        return self.net(a) * scale + b


@pytest.mark.parametrize("wrap", [
    lambda a, b: (a, b), lambda a, b: [a, b], lambda a, b: {"b": b, "a": a},
    lambda a, b: {"b": b, "a": a, "scale": 1.0}],
    ids=["tuple", "list", "dict", "dict_of_more"])
def test_batches_are_arguments_of_forward(cluster, wrap):
    a, b = batches(2)
    with deploy(cluster, 2, TwoInputs(), None) as m:
        (loss,) = m.train([wrap(a, b)], loss="sum", optimizer=sp.SGD(lr=0.1))
        assert_close(loss, TwoInputs()(a, b).sum())


def test_targets_with_defaults_are_said(cluster):
    def loss(out, target=None):
        return out.sum() if target is None else (out - target).sum()
    x, y = batches(2)
    with deploy(cluster, 2, MLPModule(), PAIR, loss=loss) as m:
        optimizer = sp.SGD(lr=0.0)
        (plain,) = m.train([x], optimizer=optimizer)
        (less,) = m.train([(x, y)], optimizer=optimizer, has_targets=True)
        assert_close(plain, MLPModule()(x).sum())
        assert_close(less, (MLPModule()(x) - y).sum())


def test_other_shapes_in_the_middle(cluster):
    data = [*batches(5), *batches(3, rows=4), *batches(5), rand(1, 10)]
    optimizer = sp.SGD(lr=0.001)
    with deploy(cluster, 2, MLPModule(), PAIR, loss="sum") as m:
        expected = [m.step(x, optimizer=optimizer) for x in data]
    with deploy(cluster, 2, MLPModule(), PAIR, loss="sum") as m:
        assert list(m.train(data, optimizer=optimizer)) == expected
        assert m.last_step == len(data)


def test_reads_between_losses(cluster):
    """A read waits for what is under way; another step is refused."""
    data = batches(10)
    optimizer = sp.SGD(lr=0.01)
    with deploy(cluster, 2, MLPModule(), PAIR, loss="sum") as m:
        losses = m.train(data, optimizer=optimizer)
        next(losses)
        state = m.state_dict()
        assert m(data[0]).shape == (6, 10)
        for act in (lambda: m.step(data[0], optimizer=optimizer),
                    lambda: m.update(optimizer), m.reset_optimizer,
                    lambda: m.load_state_dict(state),
                    lambda: next(m.train(data, optimizer=optimizer))):
            with pytest.raises(sp.FailedPreconditionError) as raised:
                act()
            assert raised.value.reason == "TRAINING"
        assert len(list(losses)) == 9 and m.last_step == 10
        # All ten were under way when the state was read.
        for name, value in m.state_dict().items():
            assert torch.equal(state[name], value), name


def test_early_end_tells_how_many_steps_there_were(cluster):
    data = batches(200)
    optimizer = sp.SGD(lr=0.001)
    with deploy(cluster, 2, MLPModule(), PAIR, loss="sum") as m:
        for i, _ in enumerate(m.train(data, optimizer=optimizer)):
            if i == 2:
                break
        done = m.last_step
        assert 3 <= done <= 40
        state = m.state_dict()
        m.step(data[done], optimizer=optimizer)
        assert m.last_step == done + 1
    with deploy(cluster, 2, MLPModule(), PAIR, loss="sum") as m:
        for x in data[:done]:
            m.step(x, optimizer=optimizer)
        for name, value in m.state_dict().items():
            assert torch.equal(state[name], value), name


def test_large_batches(cluster):
    """Half a MiB inline, and 2 MiB, which are uploaded."""
    torch.manual_seed(1)
    module = nn.Linear(1024, 64)
    data = [torch.randn(rows, 1024) for rows in (128, 128, 512, 512, 128)]
    optimizer = sp.SGD(lr=1e-4)
    with deploy(cluster, 4, module, {"": ColwiseParallel()}, loss="sum") as m:
        expected = [m.step(x, optimizer=optimizer) for x in data]
    with deploy(cluster, 4, module, {"": ColwiseParallel()}, loss="sum") as m:
        assert list(m.train(data, optimizer=optimizer)) == expected


def test_what_the_last_loss_leaves(cluster):
    data = batches(3)
    with deploy(cluster, 2, MLPModule(), PAIR, loss="sum") as m:
        for x in data:
            x.requires_grad_()
        for number, _ in enumerate(m.train(data, optimizer=sp.SGD(lr=0.1),
                                           clip_norm=1.0), 1):
            assert m.gradient_norm > 0
            assert m.last_timing().seconds > 0
            assert m.last_step >= number
        assert m.comm_counts()["forward"] == {"all_reduce": 1}
        assert len(m.input_gradients()) == 1
        m.update(sp.SGD(lr=0.1))
        assert m.last_step == 4


def test_descriptions_train_on_arrays(cluster):
    description = {"type": "Linear", "dtype": "float64", "in_features": 10,
                   "out_features": 5}
    data = [x.numpy() for x in batches(6)]
    targets = [np.full((6, 5), float(i)) for i in range(6)]
    graph = {"graph": [
        {"name": "out", "op": "placeholder"},
        {"name": "target", "op": "placeholder"},
        {"name": "d", "op": "call_function", "target": "aten.sub.Tensor",
         "args": ["%out", "%target"]},
        {"name": "s", "op": "call_function", "target": "aten.sum.default",
         "args": ["%d"]},
        {"op": "output", "args": ["%s"]}]}
    optimizer = sp.SGD(lr=0.01)

    def run(loss, items, losses_of):
        with cluster.parallelize_module(
                description, {"tp": 2}, {"": ColwiseParallel()},
                example_inputs=(data[0],), loss=loss) as m:
            return [float(value) for value in losses_of(m, items)]

    for loss, items, step in (
            ("sum", data, lambda m, x: m.step(x, optimizer=optimizer)),
            (graph, list(zip(data, targets)), lambda m, xy: m.step(
                xy[0], targets=xy[1], optimizer=optimizer))):
        expected = run(loss, items, lambda m, items, step=step: [
            step(m, item) for item in items])
        assert run(loss, items, lambda m, items: m.train(
            items, optimizer=optimizer)) == expected


def test_cross_entropy_from_a_loader(cluster):
    """As a training loop has it: a DataLoader of pairs, the last one short."""
    torch.manual_seed(0)
    x, y = torch.randn(50, 10), torch.randint(0, 4, (50,))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, y), batch_size=16)
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 4))
    with deploy(cluster, 4, module, {"0": ColwiseParallel(),
                                     "2": RowwiseParallel()},
                loss=F.cross_entropy) as m:
        first = [loss.item() for loss in m.train(
            loader, optimizer=sp.Adam(lr=0.05))]
        for _ in range(10):
            last = [loss.item() for loss in m.train(
                loader, optimizer=sp.Adam(lr=0.05))]
        assert len(first) == 4 and sum(last) < 0.5 * sum(first)
        assert m.last_step == 44
