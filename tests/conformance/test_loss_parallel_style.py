"""LossParallel as a style: what behaviour.md F asks of a context."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel
from torch.nn import functional as F

import shardplane as sp
from tests.conformance.test_old_api import MESH, linear
from tests.models import rand
from tests.parity import (
    assert_bytes, assert_close, assert_counts, chunk, parallelized)

CLASSES = 12


def cross_entropy(logits, target):
    return F.cross_entropy(logits, target)


def check_loss(cluster, plan, cuts, forward):
    x, target = rand(6, 8), torch.arange(6)
    with parallelized(cluster, linear(8, CLASSES, bias=True), MESH, plan,
                      cuts=cuts, example_targets=(target,), x=x,
                      loss=cross_entropy) as case:
        case.check_adam_steps(x, target, cross_entropy)
        assert_counts(case.m, forward=forward, backward={})
        # Some numbers a row, where there are 12 logits.
        assert_bytes(case.m, forward=6 * 6 * 8)


@pytest.mark.parametrize("output", [sp.Shard(-1), sp.Replicate()])
def test_the_loss_of_cut_logits_is_taken_on_the_parts(cluster, output):
    """Also where a style before it makes them whole: F2, F9."""
    plan = {"": [ColwiseParallel(output_layouts=output), sp.LossParallel()]}
    check_loss(cluster, plan, {"weight": 0, "bias": 0}, {"all_reduce": 2})


def test_logits_that_are_whole_are_cut_for_the_loss(cluster):
    x, target = rand(6, 8), torch.arange(6)
    with parallelized(cluster, linear(8, CLASSES), MESH, sp.LossParallel(),
                      cuts={}, x=x, example_targets=(target,),
                      loss=cross_entropy) as case:
        logits = case.check_forward(x)
        for (own,), piece in zip(case.m.output_shards(),
                                 chunk(logits, -1, 4)):
            assert_close(own, piece)
        case.check_adam_steps(x, target, cross_entropy)


def test_logits_are_the_first_of_several_outputs(cluster):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.lin = linear(8, CLASSES)

        def forward(self, x):
            return self.lin(x), x * 2

    x = rand(6, 8)
    with cluster.parallelize_module(Head(), MESH, sp.LossParallel(),
                                    example_inputs=(x,)) as m:
        (row,) = m.report.assignments
        assert row.style == "LossParallel" and row.output_layouts == "S(-1)"
        for actual, value in zip(m(x), Head()(x), strict=True):
            assert_close(actual, value)
        assert all(logits.shape == (6, CLASSES // 4) and rest.shape == x.shape
                   for logits, rest in m.output_shards())


def test_loss_parallel_as_a_context(cluster):
    plan = {"": ColwiseParallel(output_layouts=sp.Replicate())}
    with sp.loss_parallel():
        check_loss(cluster, plan, {"weight": 0, "bias": 0}, {"all_reduce": 2})


def test_beside_data_parallelism(cluster):
    """F10: each part of the batch has its own parts of the classes."""
    x, target = rand(6, 8), torch.arange(6)
    plan = {"": [ColwiseParallel(output_layouts=sp.Replicate()),
                 sp.LossParallel()]}
    reference = linear(8, CLASSES)
    with cluster.parallelize_module(
            linear(8, CLASSES), {"dp": 2, "tp": 2}, plan,
            example_inputs=(x,), example_targets=(target,),
            loss=cross_entropy, data_parallel="replicate") as m:
        reference.load_state_dict(m.state_dict())
        loss = m.forward_backward(x, targets=target)
        expected = cross_entropy(reference(x), target)
        expected.backward()
        assert_close(loss, expected)
        assert_close(m.gradients()["weight"], reference.weight.grad)


def test_classes_that_are_not_there(cluster):
    with pytest.raises(sp.InvalidArgumentError,
                       match=r"LossParallel.*output 0 as S\(3\)"):
        cluster.parallelize_module(linear(), MESH, sp.LossParallel(3),
                                   example_inputs=(rand(6, 8),))
    assert cluster.deployments() == []

