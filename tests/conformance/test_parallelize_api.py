"""Every test of PyTorch's test_parallelize_api, by its name.

There each rank runs the module and holds what is its own; here a client has
the global input and gets the global output. What a rank holds is asked with
`shards` and `output_shards`.
"""

import warnings
from collections import OrderedDict

import pytest
import torch
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, PrepareModuleInputOutput,
    PrepareModuleOutput, RowwiseParallel)

import shardplane as sp
from tests.models import DummyModule, MLPModule, MLPStacked, linear, rand
from tests.parity import (
    assert_at_most, assert_bytes, assert_close, assert_counts, check_shards,
    chunk, padded_bytes, parallelized, total)

RANKS = 4
MESH = {"tp": RANKS}
COLWISE_CUTS = {"net1.weight": 0, "net1.bias": 0,
                "net2.weight": 0, "net2.bias": 0}
PAIR_CUTS = {"net1.weight": 0, "net1.bias": 0, "net2.weight": 1}

pytestmark = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def colwise_replicated():
    return ColwiseParallel(output_layouts=Replicate())


def check_two_colwise(cluster, dtype, plan, module=None, prefix=""):
    """Both linears colwise, their outputs replicated: 16 is cut evenly, 10
    into 3, 3, 3, 1."""
    module = module or MLPModule(dtype=dtype)
    x = rand(12, 10, dtype=dtype)
    cuts = {prefix + name: dim for name, dim in COLWISE_CUTS.items()}
    with parallelized(cluster, module, MESH, plan, cuts=cuts, x=x) as case:
        case.check_all(x)
        moved = padded_bytes(torch.empty(12, 16, dtype=dtype), 1, RANKS) + (
            padded_bytes(torch.empty(12, 10, dtype=dtype), 1, RANKS))
        assert_counts(case.m, materialize={"scatter": 4},
                      forward={"all_gather": 2}, backward={"all_reduce": 1},
                      optimizer={})
        assert_bytes(case.m, forward=moved,
                     backward=12 * 16 * x.element_size())


def test_parallelize_mlp_with_module_api(cluster, dtype):
    check_two_colwise(cluster, dtype, {"net1": colwise_replicated(),
                                       "net2": colwise_replicated()})


def test_parallelize_mlp_with_module_api_nested(cluster, dtype):
    module = torch.nn.Sequential(
        OrderedDict([("dummy_encoder", MLPModule(dtype=dtype))]))
    plan = {"dummy_encoder.net1": colwise_replicated(),
            "dummy_encoder.net2": colwise_replicated()}
    check_two_colwise(cluster, dtype, plan, module, "dummy_encoder.")


def test_linear_row_wise_parallel(cluster, dtype):
    x = rand(9, 16, dtype=dtype)
    with parallelized(cluster, linear(16, 10, dtype), MESH, RowwiseParallel(),
                      cuts={"weight": 1}, x=x) as case:
        case.check_all(x)
        assert_counts(case.m, materialize={"scatter": 1, "broadcast": 1},
                      forward={"all_reduce": 1}, backward={}, optimizer={})
        assert_bytes(case.m, forward=9 * 10 * x.element_size())


def test_linear_col_wise_parallel(cluster, dtype):
    x = rand(8, 10, dtype=dtype)
    with parallelized(cluster, linear(10, 16, dtype), MESH,
                      colwise_replicated(), cuts={"weight": 0, "bias": 0},
                      x=x) as case:
        case.check_all(x)
        assert_counts(case.m, materialize={"scatter": 2},
                      forward={"all_gather": 1}, backward={}, optimizer={})
        assert_bytes(case.m, forward=8 * 16 * x.element_size())


def test_prepare_module_input(cluster, dtype):
    x = rand(20, 7, dtype=dtype)  # 5 rows a rank
    plan = PrepareModuleInput(input_layouts=Shard(0),
                              desired_input_layouts=Replicate())
    with parallelized(cluster, DummyModule(), MESH, plan, x=x) as case:
        case.check_forward(x)
        for (shard,) in case.m.output_shards():
            assert_close(shard, x)
        assert_counts(case.m, materialize={}, forward={"all_gather": 1})
        assert_bytes(case.m, forward=20 * 7 * x.element_size())


def test_prepare_module_output(cluster, dtype):
    x = rand(16, 7, dtype=dtype)
    plan = PrepareModuleOutput(output_layouts=Replicate(),
                               desired_output_layouts=Shard(0))
    with parallelized(cluster, DummyModule(), MESH, plan, x=x) as case:
        case.check_forward(x)
        for (shard,), piece in zip(case.m.output_shards(),
                                   chunk(x, 0, RANKS)):
            assert_close(shard, piece)
        assert_counts(case.m, materialize={}, forward={})


def test_prepare_module_input_output(cluster, dtype):
    x = rand(20, 7, dtype=dtype)  # 7 columns: 2, 2, 2, 1
    plan = PrepareModuleInputOutput(
        input_layouts=Shard(0), desired_input_layouts=Replicate(),
        output_layouts=Replicate(), desired_output_layouts=Shard(1))
    with parallelized(cluster, DummyModule(), MESH, plan, x=x) as case:
        case.check_forward(x)
        for (shard,), piece in zip(case.m.output_shards(),
                                   chunk(x, 1, RANKS)):
            assert_close(shard, piece)
        assert total(case.m.comm_counts()) <= 1
        assert_bytes(case.m, forward=20 * 8 * x.element_size())


def test_parallelize_module_with_star(cluster, dtype):
    check_two_colwise(cluster, dtype, {"net*": colwise_replicated()})


def test_parallelize_module_src_data_rank(cluster, dtype):
    modules = [MLPModule(seed=rank, dtype=dtype) for rank in range(RANKS)]

    m = cluster.parallelize_module(
        modules, MESH, {"net*": colwise_replicated()}, src_data_rank=1)
    assert_counts(m, materialize={"scatter": 4})
    state = m.state_dict()
    for name, value in modules[1].state_dict().items():
        assert torch.equal(state[name], value), name
    check_shards(m, modules[1], COLWISE_CUTS)
    m.close()

    m = cluster.parallelize_module(
        modules, MESH, {"net1": ColwiseParallel(), "net2": RowwiseParallel()},
        src_data_rank=None)
    assert total(m.comm_counts()) == 0
    for name, dim in PAIR_CUTS.items():  # each rank has cut its own
        for rank, shard in enumerate(m.shards(name)):
            own = modules[rank].get_parameter(name)
            assert_close(shard, chunk(own, dim, RANKS)[rank], name)
    for rank, shard in enumerate(m.shards("net2.bias")):
        assert_close(shard, modules[rank].net2.bias)
    m.close()


def test_parallelize_module_with_question(cluster, dtype):
    check_two_colwise(cluster, dtype, {"net?": colwise_replicated()})


def test_parallelize_module_with_digit(cluster, dtype):
    check_two_colwise(cluster, dtype, {"net[1-2]": colwise_replicated()})


def test_parallelize_module_multi_wildcard(cluster, dtype):
    x = rand(12, 10, dtype=dtype)
    plan = {"layers.*.net[1]": ColwiseParallel(),
            "layers.*.net[2]": RowwiseParallel()}
    cuts = {f"layers.{i}.{name}": dim
            for i in range(2) for name, dim in PAIR_CUTS.items()}
    with parallelized(cluster, MLPStacked(n_layers=2, dtype=dtype), MESH,
                      plan, cuts=cuts, x=x) as case:
        case.check_all(x)
        # The first layer's input needs no gradient, the second's does.
        assert_counts(case.m, materialize={"scatter": 6, "broadcast": 2},
                      forward={"all_reduce": 2}, backward={"all_reduce": 1})
        size = 12 * 10 * x.element_size()
        assert_bytes(case.m, forward=2 * size, backward=size)


def test_parallelize_module_with_root_module(cluster, dtype):
    x = rand(16, 10, dtype=dtype)
    plan = {
        "": PrepareModuleInputOutput(
            input_layouts=Replicate(), desired_input_layouts=Shard(0),
            output_layouts=Shard(0), desired_output_layouts=Replicate()),
        "net1": ColwiseParallel(input_layouts=Shard(0)),
        "net2": RowwiseParallel(output_layouts=Shard(0)),
    }
    with parallelized(cluster, MLPModule(dtype=dtype), MESH, plan,
                      cuts=PAIR_CUTS, x=x) as case:
        case.check_all(x)
        assert_at_most(case.m, materialize={"scatter": 3, "broadcast": 1},
                       forward={"all_gather": 2, "reduce_scatter": 1},
                       backward={"all_gather": 1, "reduce_scatter": 1,
                                 "all_reduce": 1})
        size = 16 * 10 * x.element_size()
        assert_bytes(case.m, forward=3 * size, backward=2 * size)


def test_parallelize_module_with_no_match(cluster, dtype):
    x = rand(16, 10, dtype=dtype)
    plan = {"net0.hello.world": ColwiseParallel(),
            "net1": ColwiseParallel(),
            "net2": RowwiseParallel(),
            "net3": ColwiseParallel()}
    with pytest.warns(UserWarning) as caught:
        with parallelized(cluster, MLPModule(dtype=dtype), MESH, plan,
                          cuts=PAIR_CUTS, x=x) as case:
            case.check_all(x)
            assert_counts(case.m, forward={"all_reduce": 1}, backward={})
    messages = [str(w.message) for w in caught
                if issubclass(w.category, UserWarning)]
    assert len(messages) == 2
    assert "net0.hello.world" in messages[0]
    assert "net3" in messages[1]


def test_under_devicemesh_context(cluster, dtype):
    x = rand(8, 10, dtype=dtype)
    with sp.device_mesh(MESH):
        with parallelized(cluster, linear(10, 16, dtype), None,
                          colwise_replicated(),
                          cuts={"weight": 0, "bias": 0}, x=x) as case:
            case.check_all(x)
            assert_counts(case.m, forward={"all_gather": 1}, backward={})
    with pytest.raises(sp.InvalidArgumentError, match="mesh"):
        cluster.parallelize_module(linear(10, 16, dtype),
                                   plan=colwise_replicated())


def test_empty_plan(cluster, dtype):
    x = rand(8, 10, dtype=dtype)
    with pytest.warns(UserWarning, match="plan"):
        with parallelized(cluster, linear(10, 16, dtype), MESH, None, cuts={},
                          x=x) as case:
            case.check_all(x)
            assert_counts(case.m, forward={}, backward={}, optimizer={})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cluster.parallelize_module(linear(10, 16, dtype), MESH, {}).close()
