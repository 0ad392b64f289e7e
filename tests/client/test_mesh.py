"""Meshes of several dims: on which of them a plan works, what the others do."""

from copy import deepcopy

import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from shardplane.mesh import plan_dim, to_proto_mesh
from tests.models import MLPModule, rand
from tests.parity import assert_close, check_gradients, check_parameters

PLAN = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
MESHES = {
    "tp_last": {"dp": 2, "tp": 2},
    "tp_first": {"tp": 2, "dp": 2},
    "tp_between": {"a": 2, "tp": 2, "b": 1},
    "sizes_and_names": ([2, 1, 2], ["a", "b", "tp"]),
    "one_rank": {"a": 1, "tp": 1, "b": 1},
}


def named(*dims):
    """Styles that name their mesh dims; "" does not."""
    first, second = dims
    return {"net1": sp.ColwiseParallel(mesh_dim=first or None),
            "net2": sp.RowwiseParallel(mesh_dim=second or None)}


def check_against_torch(m, module, x):
    """Outputs, gradients and parameters after a step."""
    reference = deepcopy(module)
    assert_close(m(x), reference(x), "forward")
    reference(x).sum().backward()
    m.step(x, loss="sum", optimizer=sp.SGD(lr=0.25))
    check_gradients(m, reference)
    torch.optim.SGD(reference.parameters(), lr=0.25).step()
    check_parameters(m, reference, "after the step")


@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_other_dims_replicate(cluster, mesh):
    module, x = MLPModule(dtype=torch.float64), rand(8, 10)
    with cluster.parallelize_module(module, mesh, PLAN,
                                    example_inputs=(x,)) as m:
        check_against_torch(m, module, x)
        sizes = dict(zip(mesh[1], mesh[0]) if isinstance(mesh, tuple)
                     else mesh)
        place = "[" + ", ".join(
            "S(0)" if name == "tp" else "R" for name in sizes) + "]"
        assert m.report.placements["net1.weight"] == place
        rows = -(-16 // sizes["tp"])
        assert [tuple(s.shape) for s in m.shards("net1.weight")] == (
            [(rows, 10)] * m.num_ranks)
        # Replicated work needs no collective along the other dims.
        assert m.comm_counts()["forward"] == (
            {"all_reduce": 1} if sizes["tp"] > 1 else {})
        assert m.comm_counts()["backward"] == {}


@pytest.mark.parametrize("dims, expected", [
    (("b", "b"), "[R, S(0)]"), (("b", ""), "[R, S(0)]"),
    (("a", "b"), "[S(0), R]")])
def test_a_style_names_its_mesh_dim(cluster, dims, expected):
    module, x = MLPModule(dtype=torch.float64), rand(8, 10)
    with cluster.parallelize_module(module, {"a": 2, "b": 2}, named(*dims),
                                    example_inputs=(x,)) as m:
        assert m.report.placements["net1.weight"] == expected
        assert m.report.placements["net2.weight"] == (
            "[R, S(1)]" if dims[1] != "a" else "[S(1), R]")
        check_against_torch(m, module, x)


@pytest.mark.parametrize("mesh, styles, expected", [
    ({"tp": 2}, [""], "tp"), ({"x": 2}, [""], "x"), ({"x": 2}, [], "x"),
    ({"dp": 2, "tp": 2}, ["dp", ""], "tp"),
    ({"a": 2, "b": 2}, [], "a"), ({"a": 2, "b": 2}, ["b"], "b"),
    ({"a": 2, "b": 2}, ["b", "a"], "a")])
def test_plan_dim(mesh, styles, expected):
    assert plan_dim(to_proto_mesh(mesh), styles) == expected


@pytest.mark.parametrize("dims, said", [
    (["", ""], "no style names one"),
    (["a", "b", ""], "styles name a and b")])
def test_several_dims_and_none_is_the_plans(dims, said):
    mesh = to_proto_mesh({"a": 2, "b": 2})
    with pytest.raises(sp.InvalidArgumentError) as error:
        plan_dim(mesh, dims)
    assert error.value.reason == "PLAN_MESH_DIM"
    assert error.value.message == (
        'mesh: expected a dim named "tp" for the plan to work on, or styles '
        'that name theirs, as sp.ColwiseParallel(mesh_dim="a"), got: '
        f"[a=2, b=2], and {said}")


def test_a_style_names_a_dim_that_the_mesh_lacks(cluster):
    for mesh in ({"a": 2, "b": 2}, {"a": 2, "tp": 2}):
        with pytest.raises(sp.InvalidArgumentError,
                           match='"net1".*must name a dim of mesh.*"x"'):
            cluster.parallelize_module(
                MLPModule(), mesh, named("x", "x"), example_inputs=(
                    rand(8, 10, dtype=torch.float32),))


@pytest.mark.parametrize("mesh, said", [
    ([2, 2], r"\[2, 4\], \[\"dp\", \"tp\"\]"),
    (([2, 2], ["tp"]), "sizes with names"),
    ([("a", 2), ("a", 2)], "'a' twice"),
    (([2, 0], ["a", "tp"]), "a size of at least 1, got: 0")])
def test_bad_meshes(mesh, said):
    with pytest.raises(ValueError, match=said):
        to_proto_mesh(mesh)


def test_a_name_that_is_none(cluster):
    with pytest.raises(sp.InvalidArgumentError, match='identifier.*"a b"'):
        cluster.parallelize_module(MLPModule(), {"a b": 2, "tp": 2}, PLAN)


def test_too_few_workers_for_a_mesh(cluster):
    with pytest.raises(sp.FailedPreconditionError, match="needs 8 workers"):
        cluster.parallelize_module(MLPModule(), {"dp": 2, "tp": 4}, PLAN)


def test_the_enclosing_mesh_of_several_dims(cluster):
    module, x = MLPModule(dtype=torch.float64), rand(8, 10)
    with sp.device_mesh({"dp": 2, "tp": 2}):
        with cluster.parallelize_module(module, plan=PLAN,
                                        example_inputs=(x,)) as m:
            assert m.num_ranks == 4
            check_against_torch(m, module, x)
    with pytest.raises(sp.InvalidArgumentError, match="twice"):
        with sp.device_mesh([("a", 2), ("a", 2)]):
            pass


def test_each_rank_of_tp_has_its_own_data(cluster):
    modules = [MLPModule(dtype=torch.float64) for _ in range(2)]
    with torch.no_grad():
        modules[1].net1.weight.add_(1.0)
    for source in (1, None):
        with cluster.parallelize_module(modules, {"dp": 2, "tp": 2}, PLAN,
                                        src_data_rank=source) as m:
            expected = [modules[1 if source == 1 else rank].net1.weight
                        for rank in (0, 1)]
            for rank, shard in enumerate(m.shards("net1.weight")):
                at = rank % 2
                assert_close(shard, expected[at].chunk(2)[at], f"rank {rank}")
    with pytest.raises(sp.InvalidArgumentError,
                       match="one a rank of the plan's mesh dim, 2"):
        cluster.parallelize_module(modules * 2, {"dp": 2, "tp": 2}, PLAN)


@pytest.mark.parametrize("kind, error, said", [
    ("shard", ValueError, "expected 'replicate', 'fully_shard' or an "
     "sp.FullyShard, got: 'shard"),
    ({"dp": None}, ValueError, "of mesh dim 'dp': expected 'replicate', "),
    (sp.FullyShard({"net1.weight": 2}), sp.InvalidArgumentError,
     'shard_dims of "net1.weight": f64.16, 10. has 2 dims; got: 2'),
    (sp.FullyShard({"net1.weight": True}), TypeError,
     "FullyShard: shard_dims..net1.weight..: expected a tensor dim, got: True"),
    (sp.FullyShard(1), TypeError,
     "expected a dict of FQN -> dim or a function, got: 1"),
    (sp.FullyShard(lambda p: "last"), TypeError,
     "placement of 'net1.weight': expected a tensor dim, got: 'last'"),
    (True, TypeError, "a dict of mesh dim -> one of these, got: True"),
    ({"pp": "replicate"}, sp.InvalidArgumentError,
     'must name dims of mesh .*dp=2, tp=2.*got: "pp"'),
    ({"dp": "replicate", "tp": "replicate"}, sp.InvalidArgumentError,
     '"net1".*needs a mesh dim that is not data parallel; got: "tp"')])
def test_bad_data_parallel(cluster, kind, error, said):
    with pytest.raises(error, match=said):
        cluster.parallelize_module(MLPModule(), {"dp": 2, "tp": 2}, PLAN,
                                   data_parallel=kind)


@pytest.mark.parametrize("mesh, taken, expected", [
    ({"dp": 2, "model": 2}, {"dp"}, "model"),
    ({"dp": 2, "tp": 2}, {"dp"}, "tp"),
    ({"dp": 2}, {"dp"}, "dp")])
def test_the_plan_works_on_what_is_left(mesh, taken, expected):
    assert plan_dim(to_proto_mesh(mesh), ["", ""], taken) == expected
