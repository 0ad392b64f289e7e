"""What GPUs compute. The same bodies also run on CPUs: so they are known to be
right where there is no GPU, on which they are marked gpu and left out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import shardplane as sp
from tests.gpu.clusters import (
    DEVICES, MLP_PLAN, SHARED_DEVICES, cluster_on, two_workers_on)
from tests.models import (
    MLPModule, Transformer, TransformerArgs, rand, tokens, transformer_cuts,
    transformer_plan)
from tests.parity import assert_close, assert_counts, parallelized

MLP_CUTS = {"net1.weight": 0, "net1.bias": 0, "net2.weight": 1}


@pytest.fixture(scope="module", params=DEVICES)
def one(request):
    with cluster_on(request.param, 1) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=SHARED_DEVICES)
def two(request):
    with two_workers_on(request.param) as cluster:
        yield cluster


def cross_entropy(logits, target):
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def test_the_registry_shows_the_device(one, request):
    kind = request.node.callspec.params["one"]
    (worker,) = one.workers()
    assert worker.device == ("cpu" if kind == "cpu" else "cuda:0")


def check_mlp(cluster, ranks):
    x = rand(7, 10)
    with parallelized(cluster, MLPModule(), {"tp": ranks}, MLP_PLAN,
                      cuts=MLP_CUTS, x=x) as case:
        case.check_all(x)


def test_an_mlp_on_one_rank(one):
    check_mlp(one, 1)


def test_an_mlp_on_two_ranks(two):
    check_mlp(two, 2)


def check_transformer(cluster, ranks, sequence_parallel):
    """Three Adam steps; every parameter and gradient."""
    x = tokens()
    module = Transformer(TransformerArgs())
    with parallelized(cluster, module, {"tp": ranks},
                      transformer_plan(sequence_parallel),
                      cuts=transformer_cuts(module), x=x) as case:
        case.check_start()
        case.check_forward(x)
        case.check_adam_steps(x, tokens(seed=1), cross_entropy)


def test_a_transformer_on_one_rank(one):
    check_transformer(one, 1, sequence_parallel=False)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_a_transformer_on_two_ranks(two, sequence_parallel):
    check_transformer(two, 2, sequence_parallel)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16,
                                   torch.float32])
def test_every_float_trains(one, dtype):
    """Against the same arithmetic in float64, to the dtype's precision."""
    module = MLPModule(dtype=dtype)
    exact = MLPModule(dtype=torch.float64)
    exact.load_state_dict(module.state_dict())
    x = rand(6, 10, dtype=dtype)
    with one.parallelize_module(module, {"tp": 1}, MLP_PLAN,
                                example_inputs=(x,)) as m:
        m.step(x, loss="sum", optimizer=sp.SGD(lr=0.01))
        exact(x.double()).sum().backward()
        with torch.no_grad():
            for parameter in exact.parameters():
                parameter -= 0.01 * parameter.grad
        tolerance = 16 * torch.finfo(dtype).eps
        for name, value in exact.state_dict().items():
            torch.testing.assert_close(m.state_dict()[name].double(), value,
                                       rtol=tolerance, atol=tolerance)


def test_clipping_sees_the_norm_of_all_ranks(two):
    x = rand(7, 10)
    module = MLPModule()
    with parallelized(two, module, {"tp": 2}, MLP_PLAN, x=x) as case:
        optimizer = torch.optim.SGD(case.reference.parameters(), lr=0.5)
        case.reference(x).sum().backward()
        norm = nn.utils.clip_grad_norm_(case.reference.parameters(), 0.1)
        optimizer.step()
        case.m.step(x, loss="sum", optimizer=sp.SGD(lr=0.5), clip_norm=0.1)
        assert norm > 0.1
        assert_counts(case.m, optimizer={"all_reduce": 1})
        for name, value in case.reference.state_dict().items():
            assert_close(case.m.state_dict()[name], value, name)


def test_meta_parameters_get_the_values_that_cpus_give_them(one, shared_cluster):
    def values(cluster):
        with torch.device("meta"):
            module = MLPModule(dtype=torch.float32)
        with cluster.parallelize_module(module, {"tp": 1}, MLP_PLAN,
                                        seed=3) as m:
            return m.state_dict()
    expected = values(shared_cluster)
    for name, value in values(one).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32,
                                   torch.bfloat16])
def test_dropout_draws_the_masks_that_cpus_draw(one, shared_cluster, dtype):
    x = torch.ones(64, 32, dtype=dtype)

    def masks(cluster):
        module = nn.Sequential(nn.Dropout(0.5))
        with cluster.parallelize_module(module, {"tp": 1}, {}, seed=7,
                                        example_inputs=(x,)) as m:
            return m(x)
    mask = masks(one)
    assert 0 < mask.count_nonzero() < mask.numel()
    assert torch.equal(mask, masks(shared_cluster))
