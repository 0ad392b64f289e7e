"""PrepareModule* on modules with several inputs and outputs (C51 to C62)."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, PrepareModuleInputOutput,
    PrepareModuleOutput, RowwiseParallel)

import shardplane as sp
from tests.models import MLPModule, rand
from tests.parity import (
    assert_bytes, assert_close, assert_counts, chunk, parallelized)

MESH = {"tp": 4}
R, S0 = Replicate(), Shard(0)


class Gate(nn.Module):
    def forward(self, x, mask, *, scale):
        return x * mask, x + scale


class Caller(nn.Module):
    """Calls its child in another order than it got its own inputs."""

    def __init__(self):
        super().__init__()
        self.gate = Gate()

    def forward(self, a, b, c):
        return self.gate(b, a, scale=c)


def inputs(requires_grad=False):
    return [rand(8, 4, seed=seed, requires_grad=requires_grad)
            for seed in range(3)]


def test_c53_c55_layouts_by_position_and_by_name(cluster):
    a, b, c = inputs()
    plan = {"gate": [
        PrepareModuleInput(
            input_layouts=(R, None), desired_input_layouts=(S0, None),
            input_kwarg_layouts={"scale": R},
            desired_input_kwarg_layouts={"scale": S0}),
        PrepareModuleOutput(output_layouts=(S0, S0),
                            desired_output_layouts=(R, S0))]}
    with cluster.parallelize_module(Caller(), MESH, plan) as m:
        expected = Caller()(a, b, c)
        for actual, value in zip(m(a, b, c), expected, strict=True):
            assert_close(actual, value)
        pieces = chunk(expected[1], 0, 4)
        for (whole, piece), own in zip(m.output_shards(), pieces):
            assert_close(whole, expected[0])
            assert_close(piece, own)
        assert_counts(m, forward={"all_gather": 1})
        assert_bytes(m, forward=8 * 4 * 8)


@pytest.mark.parametrize("style", [
    PrepareModuleInput(input_layouts=(None,), desired_input_layouts=(R,)),
    PrepareModuleOutput(output_layouts=(None,), desired_output_layouts=(R,))],
    ids=["input", "output"])
def test_c53_a_wish_without_a_claim_moves_nothing(cluster, style):
    x = rand(6, 10)
    plan = {"net1": ColwiseParallel(), "relu": style, "net2": RowwiseParallel()}
    with cluster.parallelize_module(MLPModule(), MESH, plan) as m:
        assert_close(m(x), MLPModule()(x))
        assert m.report.placements["net1.weight"] == "[S(0)]"
        assert_counts(m, forward={"all_reduce": 1})
        assert_bytes(m, forward=6 * 10 * 8)


def test_gradients_of_several_inputs(cluster):
    twins, values = inputs(True), inputs(True)
    plan = {"gate": PrepareModuleInput(
        input_layouts=(R, R), desired_input_layouts=(S0, S0))}
    with cluster.parallelize_module(Caller(), MESH, plan) as m:
        m.forward_backward(*values, loss=lambda o: (o[0] * o[1]).sum())
        first, second = Caller()(*twins)
        (first * second).sum().backward()
        gradients = m.input_gradients()
        assert len(gradients) == 3
        for gradient, twin in zip(gradients, twins):
            assert_close(gradient, twin.grad)


@pytest.mark.parametrize("style, culprit", [
    (PrepareModuleInput(input_layouts=(R, R, R),
                        desired_input_layouts=(S0, S0, S0)), "3"),
    (PrepareModuleInput(input_layouts=(R,), desired_input_layouts=(S0,)),
     "1"),
    (PrepareModuleOutput(output_layouts=(R,), desired_output_layouts=(S0,)),
     "1"),
    (PrepareModuleInputOutput(
        output_layouts=(R, R, R), desired_output_layouts=(S0, S0, S0)),
     "3")])
def test_c52_c61_another_number_than_the_module_has(cluster, style, culprit):
    with pytest.raises(sp.InvalidArgumentError) as raised:
        cluster.parallelize_module(Caller(), MESH, {"gate": style},
                                   example_inputs=tuple(inputs()))
    assert "gate" in raised.value.message
    assert culprit in raised.value.message
    assert cluster.deployments() == []


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = MLPModule()
        self.unused = nn.Linear(4, 4, dtype=torch.float64)

    def forward(self, x):
        return self.mlp(x)


def test_parameters_without_gradient_stay_as_they_are(cluster):
    """Weight decay and momentum leave them alone too, as in PyTorch."""
    plan = {"mlp": {"net1": ColwiseParallel(), "net2": RowwiseParallel()},
            "unused": ColwiseParallel()}
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    cuts = {"mlp.net1.weight": 0, "mlp.net1.bias": 0, "mlp.net2.weight": 1,
            "unused.weight": 0, "unused.bias": 0}
    x = rand(6, 10)
    with parallelized(cluster, Unused(), MESH, plan, cuts=cuts) as case:
        case.check_start()
        optimizer = torch.optim.SGD(case.reference.parameters(), **options)
        for _ in range(2):
            optimizer.zero_grad()
            case.reference(x).sum().backward()
            optimizer.step()
            case.m.step(x, loss="sum", optimizer=sp.SGD(**options))
        assert set(case.m.gradients()) == {
            f"mlp.{name}" for name, _ in MLPModule().named_parameters()}
        state = case.m.state_dict()
        for name, value in case.reference.state_dict().items():
            assert_close(state[name], value, name)
