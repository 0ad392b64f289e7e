"""The handle's methods as CLIENT.md says, against plain PyTorch."""

import dataclasses
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel
from torch.nn import functional as F

import shardplane as sp
from tests.models import MLPModule, rand
from tests.parity import (
    assert_close, assert_counts, check_gradients, check_parameters,
    parallelized)

MESH = {"tp": 2}
PAIR = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
PAIR_CUTS = {"net1.weight": 0, "net1.bias": 0, "net2.weight": 1}


def pair(cluster, module=None, **options):
    return parallelized(cluster, module or MLPModule(), MESH, PAIR,
                        cuts=PAIR_CUTS, **options)


@pytest.mark.parametrize("options", [
    {}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.9, "dampening": 0.1}, {"weight_decay": 0.1},
    {"momentum": 0.5, "weight_decay": 0.01, "maximize": True}],
    ids=lambda options: "_".join(options) or "plain")
def test_sgd_like_torch(cluster, options):
    with pair(cluster, x=rand(6, 10)) as case:
        optimizer = torch.optim.SGD(case.reference.parameters(), lr=0.05,
                                    **options)
        for step in range(4):
            x = rand(6, 10, seed=step)
            optimizer.zero_grad()
            expected = case.reference(x).mean()
            expected.backward()
            optimizer.step()
            loss = case.m.step(x, loss="mean",
                               optimizer=sp.SGD(lr=0.05, **options))
            assert_close(loss, expected)
            assert_counts(case.m, optimizer={})
        check_parameters(case.m, case.reference, "after 4 steps:")


def test_reset_optimizer_forgets_momentum(cluster):
    x = rand(6, 10)
    with pair(cluster, x=x) as case:
        for _ in range(2):  # two optimizers of torch, one after the other
            optimizer = torch.optim.SGD(case.reference.parameters(), lr=0.1,
                                        momentum=0.9)
            for _ in range(2):
                optimizer.zero_grad()
                case.reference(x).sum().backward()
                optimizer.step()
                case.m.step(x, loss="sum",
                            optimizer=sp.SGD(lr=0.1, momentum=0.9))
            case.m.reset_optimizer()
        check_parameters(case.m, case.reference, "after two optimizers:")


def test_forward_backward_accumulates_and_update_applies(cluster):
    with pair(cluster) as case:
        for i in range(3):
            x = rand(6, 10, seed=i)
            case.reference(x).sum().backward()
            case.m.forward_backward(x, loss="sum", accumulate=i > 0)
        check_gradients(case.m, case.reference)
        torch.optim.SGD(case.reference.parameters(), lr=0.1).step()
        case.m.update(sp.SGD(lr=0.1))
        check_parameters(case.m, case.reference, "after the update:")
        assert case.m.last_step == 4
        case.reference.zero_grad()  # without accumulate they are replaced
        case.reference(x).sum().backward()
        case.m.forward_backward(x, loss="sum")
        check_gradients(case.m, case.reference)


def test_last_timing_tells_where_the_time_of_a_step_went(cluster):
    with pair(cluster, loss="sum") as case:
        assert case.m.last_timing() is None
        case.m.step(rand(6, 10), optimizer=sp.SGD(lr=0.1))
        timing = case.m.last_timing()
        assert 0 < timing.collective_seconds < timing.run_seconds
        # Each on its slowest rank, which need not be one: no sum of them.
        assert timing.run_seconds < timing.seconds
        assert 0 < timing.commit_call_seconds < timing.seconds
        case.m.update(sp.SGD(lr=0.1))
        assert case.m.last_timing().run_seconds == 0
        assert case.m.last_timing().commit_call_seconds > 0


def test_callable_loss_with_targets_and_constants(cluster):
    weight = torch.rand(10, dtype=torch.float64)
    x, target = rand(6, 10), rand(6, 10, seed=1)

    def loss(output, target):
        return ((output - target) * weight).pow(2).mean()

    with pair(cluster) as case:
        for _ in range(2):
            expected = loss(case.reference(x), target)
            case.reference.zero_grad()
            expected.backward()
            actual = case.m.forward_backward(x, targets=(target,), loss=loss)
            assert_close(actual, expected)
            check_gradients(case.m, case.reference)


def test_cross_entropy(cluster):
    x = rand(12, 10)
    target = torch.arange(12) % 10
    loss = lambda output, target: F.cross_entropy(output, target)
    with pair(cluster, x=x, loss=loss, example_targets=(target,)) as case:
        expected = F.cross_entropy(case.reference(x), target)
        expected.backward()
        assert_close(case.m.forward_backward(x, targets=target), expected)
        check_gradients(case.m, case.reference)


@dataclasses.dataclass
class Result:
    total: torch.Tensor
    parts: dict


class Structured(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = MLPModule()

    def forward(self, x, *, scale=1.0, extra=None):
        y = self.mlp(x) * scale
        z = y if extra is None else y + extra
        return Result(z, {"y": (y, 3, None)})


def test_structured_inputs_and_outputs(cluster):
    x, extra = rand(6, 10), rand(6, 10, seed=1)
    module = Structured()
    with cluster.parallelize_module(module, MESH, {"mlp": PAIR}) as m:
        for kwargs in ({}, {"scale": 2.0}, {"extra": extra},
                       {"extra": extra, "scale": 0.5}):
            actual, expected = m(x, **kwargs), module(x, **kwargs)
            assert isinstance(actual, Result)
            assert_close(actual.total, expected.total)
            assert not actual.total.requires_grad
            y, three, none = actual.parts["y"]
            assert_close(y, expected.parts["y"][0])
            assert (three, none) == (3, None)
        assert len(m.output_shards()) == 2
        with pytest.raises(sp.InvalidArgumentError, match="output"):
            m.forward_backward(x, loss="sum")
        m.forward_backward(x, loss=lambda output: output.total.sum())


def test_shapes_are_programs(cluster):
    with pair(cluster, x=rand(6, 10)) as case:
        for rows in (6, 3, 6, 1):
            case.check_forward(rand(rows, 10))
        case.check_step(rand(5, 10))
        case.check_forward(rand(5, 10))


class Doubling(MLPModule):
    """Gives twice as much in train mode, and so does its `relu`'s mode."""

    def forward(self, x):
        return super().forward(x) * (1 + self.training) * (
            1 + self.relu.training)


def test_modes_are_programs(cluster):
    module, x = Doubling(), rand(6, 10)
    with pair(cluster, module, x=x) as case:
        for mode, mode_of_relu in ((True, True), (False, True),
                                   (False, False), (True, True)):
            for copy in (module, case.reference):
                copy.train(mode)
                copy.relu.train(mode_of_relu)
            case.check_forward(x)
            case.check_step(x)


def test_dropout_is_off_where_the_module_is_in_eval(cluster):
    module = nn.Sequential(MLPModule(), nn.Dropout(0.5)).eval()
    x = rand(6, 10)
    with parallelized(cluster, module, MESH, {"0": PAIR}, x=x) as case:
        case.check_forward(x)


def test_state_dict_and_load(cluster):
    other = MLPModule(seed=9)
    with pair(cluster) as case:
        case.m.load_state_dict(other.state_dict())
        check_parameters(case.m, other, "loaded:")
        with pytest.raises(ValueError, match="net2.bias"):
            case.m.load_state_dict({k: v for k, v in
                                    other.state_dict().items()
                                    if k != "net2.bias"})
        case.m.load_state_dict({"net2.bias": torch.ones(10)}, strict=False)
        assert_close(case.m.state_dict()["net2.bias"],
                     torch.ones(10, dtype=torch.float64))
        case.reference.load_state_dict(case.m.state_dict())
        case.check_step(rand(6, 10))


class Tied(nn.Module):
    """One weight under two names, and one module under two."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8, dtype=torch.float64)
        self.b = nn.Linear(8, 8, dtype=torch.float64)
        self.b.weight = self.a.weight
        self.again = self.a

    def forward(self, x):
        return self.again(self.b(torch.relu(self.a(x))))


def test_tied_weights_stay_tied(cluster):
    torch.manual_seed(1)
    module = Tied()
    x = rand(4, 8)
    out = ColwiseParallel(output_layouts=Replicate())
    with parallelized(cluster, module, MESH, {"a": out, "b": out}, x=x,
                      cuts={"a.weight": 0, "a.bias": 0, "b.bias": 0}) as case:
        case.check_forward(x)
        case.check_backward(x)
        gradients = case.m.gradients()
        assert set(gradients) >= {"a.weight", "b.weight", "again.weight"}
        assert torch.equal(gradients["a.weight"], gradients["b.weight"])
        optimizer = torch.optim.SGD(case.reference.parameters(), lr=0.25)
        optimizer.step()
        case.m.update(sp.SGD(lr=0.25))
        check_parameters(case.m, case.reference, "tied:")
        for left, right in zip(case.m.shards("a.weight"),
                               case.m.shards("b.weight")):
            assert torch.equal(left, right)


def test_frozen_parameters_stay_frozen(cluster):
    module = MLPModule()
    module.net1.weight.requires_grad_(False)
    x = rand(6, 10)
    with pair(cluster, module, x=x) as case:
        case.check_all(x)
        assert "net1.weight" not in case.m.gradients()


def test_buffers_and_constants(cluster):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = MLPModule()
            self.register_buffer("scale", torch.full((10,), 2.0,
                                                     dtype=torch.float64))
            self.register_buffer("shift", torch.ones(
                10, dtype=torch.float64), persistent=False)

        def forward(self, x):
            return self.mlp(x) * self.scale + self.shift

    x = rand(6, 10)
    with parallelized(cluster, Scaled(), MESH, {"mlp": PAIR}, x=x, cuts={
            f"mlp.{name}": dim for name, dim in PAIR_CUTS.items()}) as case:
        case.check_forward(x)
        case.check_step(x)
        assert list(case.m.state_dict()) == list(
            case.reference.state_dict())


def test_meta_parameters_depend_on_the_seed_alone(cluster):
    def state(workers, seed):
        with torch.device("meta"):
            module = MLPModule()
        with cluster.parallelize_module(
                module, {"tp": workers}, PAIR, seed=seed,
                example_inputs=(rand(6, 10),)) as m:
            assert m.comm_counts()["materialize"] == {}
            return m.state_dict()

    first = state(4, 1)
    assert all(not value.is_meta for value in first.values())
    assert first["net1.weight"].std() > 0
    for name, value in state(2, 1).items():
        assert torch.equal(value, first[name]), name
    assert not torch.equal(state(2, 2)["net1.weight"], first["net1.weight"])


def test_validate_only_touches_no_worker(cluster):
    report = cluster.parallelize_module(
        MLPModule(), {"tp": 64}, PAIR, example_inputs=(rand(6, 10),),
        loss="sum", validate_only=True)
    assert cluster.deployments() == []
    assert report.collectives["forward"] == {"all_reduce": 1}
    assert report.collectives["materialize"] == {"scatter": 3, "broadcast": 1}
    assert report.collectives["backward"]["all_gather"] == 0
    assert report.collective_bytes["forward"]["all_reduce"] == 6 * 10 * 8
    assert report.placements["net2.weight"] == "[S(1)]"
    assert [(a.fqn, a.pattern) for a in report.assignments] == [
        ("net1", "net1"), ("net2", "net2")]
    assert len(report.memory) == 64 and report.flops_per_rank > 0
    assert "ColwiseParallel" in str(report) and "all_reduce" in str(report)
    assert report.to_dict()["assignments"][0]["fqn"] == "net1"


def test_what_was_predicted_is_what_ran(cluster):
    x = rand(6, 10)
    with cluster.parallelize_module(MLPModule(), {"tp": 3}, PAIR, loss="sum",
                                    example_inputs=(x,)) as m:
        m.step(x, optimizer=sp.SGD(lr=0.1))
        counts, sizes = m.comm_counts(), m.comm_bytes()
        # Beside the program's: whether all ranks can commit.
        assert counts.pop("commit") == {"all_reduce": 1}
        assert set(sizes.pop("commit")) == {"all_reduce"}
        assert counts == m.report.collectives
        assert sizes == m.report.collective_bytes


def test_module_is_left_as_it_is(cluster):
    module = MLPModule().train()
    module.relu.eval()
    twin = deepcopy(module)
    parameters = dict(module.named_parameters())
    with cluster.parallelize_module(module, MESH, PAIR) as m:
        m.step(rand(6, 10), loss="sum", optimizer=sp.SGD(lr=0.5))
    assert all(p is parameters[n] for n, p in module.named_parameters())
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(),
                                                 twin.parameters()))
    assert [m.training for m in module.modules()] == [
        m.training for m in twin.modules()]
    assert not module._forward_hooks and all(
        p.grad is None for p in module.parameters())
