"""Collectives by the numbers of behaviour.md, which the names give."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, PrepareModuleInputOutput,
    PrepareModuleOutput, RowwiseParallel)

from tests.models import DummyModule, MLPModule, linear, rand
from tests.parity import (
    assert_at_most, assert_bytes, assert_counts, assert_no_more,
    parallelized)

MESH = {"tp": 4}
F64 = 8
COLWISE_CUTS = {"weight": 0, "bias": 0}
ROWWISE_CUTS = {"weight": 1}
PAIR_CUTS = {"net1.weight": 0, "net1.bias": 0, "net2.weight": 1}
BOTH_CUTS = {**PAIR_CUTS, "net2.weight": 0, "net2.bias": 0}

both_grads = pytest.mark.parametrize("grad", [False, True],
                                     ids=["x", "x_grad"])


def check(cluster, module, plan, cuts, x, *, forward, backward,
          forward_bytes, backward_bytes=0, assertion=assert_counts):
    """Values against the unsharded copy, counts and bytes as said."""
    with parallelized(cluster, module, MESH, plan, cuts=cuts, x=x) as case:
        case.check_start()
        case.check_forward(x)
        assertion(case.m, forward=forward, backward={}, optimizer={})
        if backward is None:
            return
        case.check_backward(x)
        assertion(case.m, forward=forward, backward=backward, optimizer={})
        assert_bytes(case.m, forward=forward_bytes, backward=backward_bytes)


@both_grads
def test_c7_colwise_default(cluster, grad):
    check(cluster, linear(16, 16), ColwiseParallel(), COLWISE_CUTS,
          rand(8, 16, requires_grad=grad), forward={},
          backward={"all_reduce": 1} if grad else {}, forward_bytes=0,
          backward_bytes=8 * 16 * F64)


@both_grads
def test_c8_colwise_input_shard_0(cluster, grad):
    check(cluster, linear(16, 16), ColwiseParallel(input_layouts=Shard(0)),
          COLWISE_CUTS, rand(8, 16, requires_grad=grad),
          forward={"all_gather": 1},
          backward={"reduce_scatter": 1} if grad else {},
          forward_bytes=8 * 16 * F64, backward_bytes=8 * 16 * F64)


@both_grads
def test_c9_colwise_output_replicate(cluster, grad):
    check(cluster, linear(16, 16),
          ColwiseParallel(output_layouts=Replicate()), COLWISE_CUTS,
          rand(8, 16, requires_grad=grad), forward={"all_gather": 1},
          backward={"all_reduce": 1} if grad else {},
          forward_bytes=8 * 16 * F64, backward_bytes=8 * 16 * F64)


def test_c10_colwise_input_partial(cluster):
    check(cluster, linear(16, 16), ColwiseParallel(input_layouts=Partial()),
          COLWISE_CUTS, rand(8, 16, requires_grad=True),
          forward={"all_reduce": 1}, backward={"all_reduce": 1},
          forward_bytes=8 * 16 * F64, backward_bytes=8 * 16 * F64,
          assertion=assert_at_most)


def test_c10_colwise_shard_0_to_shard_0(cluster):
    check(cluster, linear(16, 16),
          ColwiseParallel(input_layouts=Shard(0), output_layouts=Shard(0)),
          COLWISE_CUTS, rand(8, 16, requires_grad=True),
          forward={"all_gather": 1, "all_to_all": 1},
          backward={"all_to_all": 1, "reduce_scatter": 1},
          forward_bytes=2 * 8 * 16 * F64, backward_bytes=2 * 8 * 16 * F64,
          assertion=assert_at_most)


@both_grads
def test_c24_rowwise_default(cluster, grad):
    check(cluster, linear(16, 16), RowwiseParallel(), ROWWISE_CUTS,
          rand(8, 16, requires_grad=grad), forward={"all_reduce": 1},
          backward={}, forward_bytes=8 * 16 * F64)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_c25_rowwise_output_shard(cluster, dim):
    check(cluster, linear(16, 16),
          RowwiseParallel(output_layouts=Shard(dim)), ROWWISE_CUTS,
          rand(8, 16, requires_grad=True), forward={"reduce_scatter": 1},
          backward={"all_gather": 1}, forward_bytes=8 * 16 * F64,
          backward_bytes=8 * 16 * F64)


def test_c26_rowwise_input_replicate(cluster):
    check(cluster, linear(16, 16),
          RowwiseParallel(input_layouts=Replicate()), ROWWISE_CUTS,
          rand(8, 16, requires_grad=True), forward={"all_reduce": 1},
          backward={"all_gather": 1}, forward_bytes=8 * 16 * F64,
          backward_bytes=8 * 16 * F64, assertion=assert_at_most)


def test_c26_rowwise_output_partial(cluster):
    check(cluster, linear(16, 16), RowwiseParallel(output_layouts=Partial()),
          ROWWISE_CUTS, rand(8, 16, requires_grad=True), forward={},
          backward={}, forward_bytes=0, assertion=assert_at_most)


def test_c56_prepare_module_input(cluster):
    check(cluster, DummyModule(),
          PrepareModuleInput(input_layouts=Shard(0),
                             desired_input_layouts=Replicate()),
          {}, rand(20, 7), forward={"all_gather": 1}, backward=None,
          forward_bytes=20 * 7 * F64)


def test_c63_replicate_to_shard(cluster):
    check(cluster, DummyModule(),
          PrepareModuleOutput(output_layouts=Replicate(),
                              desired_output_layouts=Shard(0)),
          {}, rand(16, 7), forward={}, backward=None, forward_bytes=0)


def test_c63_shard_to_replicate(cluster):
    plan = [PrepareModuleInput(input_layouts=Replicate(),
                               desired_input_layouts=Shard(0)),
            PrepareModuleOutput(output_layouts=Shard(0),
                                desired_output_layouts=Replicate())]
    check(cluster, nn.ReLU(), plan, {}, rand(16, 7),
          forward={"all_gather": 1}, backward=None,
          forward_bytes=16 * 7 * F64)


def test_c63_what_is_cut_and_made_whole_stays(cluster):
    """PyTorch gathers: nothing works on what is cut."""
    plan = [PrepareModuleInput(input_layouts=Replicate(),
                               desired_input_layouts=Shard(0)),
            PrepareModuleOutput(output_layouts=Shard(0),
                                desired_output_layouts=Replicate())]
    check(cluster, DummyModule(), plan, {}, rand(16, 7), forward={},
          backward=None, forward_bytes=0)


@both_grads
def test_c70_colwise_rowwise(cluster, grad):
    check(cluster, MLPModule(),
          {"net1": ColwiseParallel(), "net2": RowwiseParallel()}, PAIR_CUTS,
          rand(8, 10, requires_grad=grad), forward={"all_reduce": 1},
          backward={"all_reduce": 1} if grad else {},
          forward_bytes=8 * 10 * F64, backward_bytes=8 * 10 * F64)


SEQUENCE_PARALLEL = {"net1": ColwiseParallel(input_layouts=Shard(0)),
                     "net2": RowwiseParallel(output_layouts=Shard(0))}


@both_grads
def test_c71_sequence_parallel_mlp(cluster, grad):
    check(cluster, MLPModule(), SEQUENCE_PARALLEL, PAIR_CUTS,
          rand(8, 10, requires_grad=grad),
          forward={"all_gather": 1, "reduce_scatter": 1},
          backward={"all_gather": 1, "reduce_scatter": 1} if grad else
          {"all_gather": 1}, forward_bytes=2 * 8 * 10 * F64,
          backward_bytes=2 * 8 * 10 * F64)


def test_c72_inference(cluster):
    x = rand(8, 10)
    module = MLPModule().eval().requires_grad_(False)
    with parallelized(cluster, module, MESH, SEQUENCE_PARALLEL,
                      cuts=PAIR_CUTS, x=x) as case, torch.inference_mode():
        case.check_start()
        case.check_forward(x)
        assert_counts(case.m, backward={}, optimizer={},
                      forward={"all_gather": 1, "reduce_scatter": 1})
        assert_bytes(case.m, forward=2 * 8 * 10 * F64)


@both_grads
def test_c73_both_colwise(cluster, grad):
    check(cluster, MLPModule(),
          {"net*": ColwiseParallel(output_layouts=Replicate())}, BOTH_CUTS,
          rand(8, 10, requires_grad=grad), forward={"all_gather": 2},
          backward={"all_reduce": 2 if grad else 1},
          forward_bytes=8 * (16 + 12) * F64,
          backward_bytes=8 * (16 + 10) * F64)


def test_c74_root_shard_to_replicate(cluster):
    plan = {"": PrepareModuleInputOutput(
                input_layouts=Shard(0), desired_input_layouts=Replicate(),
                output_layouts=Replicate(), desired_output_layouts=Shard(0)),
            "net1": ColwiseParallel(), "net2": RowwiseParallel()}
    check(cluster, MLPModule(), plan, PAIR_CUTS, rand(8, 10),
          forward={"all_gather": 1, "all_reduce": 1},
          backward={"all_gather": 1}, forward_bytes=2 * 8 * 10 * F64,
          backward_bytes=8 * 10 * F64)


def test_c74_root_replicate_to_shard(cluster):
    plan = {"": PrepareModuleInputOutput(
                input_layouts=Replicate(), desired_input_layouts=Shard(0),
                output_layouts=Shard(0), desired_output_layouts=Replicate()),
            **SEQUENCE_PARALLEL}
    check(cluster, MLPModule(), plan, PAIR_CUTS, rand(8, 10),
          forward={"all_gather": 1, "reduce_scatter": 1},
          backward={}, forward_bytes=2 * 8 * 10 * F64)


def embedding():
    torch.manual_seed(0)
    return nn.Embedding(12, 16, dtype=torch.float64)


def test_c11_colwise_embedding(cluster):
    check(cluster, embedding(), ColwiseParallel(), {"weight": 1},
          torch.tensor([[1, 5, 11], [0, 5, 3]]), forward={}, backward={},
          forward_bytes=0)


def test_c27_rowwise_embedding(cluster):
    check(cluster, embedding(), RowwiseParallel(input_layouts=Replicate()),
          {"weight": 0}, torch.tensor([[1, 5, 11], [0, 5, 3]]),
          forward={"all_reduce": 1}, backward={},
          forward_bytes=12 * 16 * F64, assertion=assert_no_more)


def test_c27_rowwise_embedding_output_shard(cluster):
    check(cluster, embedding(), RowwiseParallel(
              input_layouts=Replicate(), output_layouts=Shard(1)),
          {"weight": 0}, torch.tensor([1, 5, 11, 0, 5, 3, 2, 9]),
          forward={"reduce_scatter": 1}, backward={"all_gather": 1},
          forward_bytes=12 * 16 * F64, backward_bytes=12 * 16 * F64,
          assertion=assert_no_more)


def test_b6_materialize_by_style(cluster):
    """B6: one collective a parameter."""
    for plan, counts in ((ColwiseParallel(), {"scatter": 2}),
                         (RowwiseParallel(), {"scatter": 1, "broadcast": 1})):
        with parallelized(cluster, linear(16, 16), MESH, plan) as case:
            assert_counts(case.m, materialize=counts)
        with parallelized(cluster, linear(16, 16), MESH, plan,
                          src_data_rank=None) as case:
            assert_counts(case.m, materialize={})
