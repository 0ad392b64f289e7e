"""The tiles' arithmetic beside the planner's: ExplainDeployment says which part
each rank has, and torch.chunk what a plain cut gives."""

import pathlib

import pytest
import torch
from google.protobuf import json_format

import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2 as types
from tests.status_page import examples

FOLDER = (pathlib.Path(__file__).resolve().parents[2] / "coordinator" /
          "status_page")
SCRIPT = "\n".join((FOLDER / name).read_text(encoding="utf-8")
                   for name in ("format.js", "cuts.js"))


@pytest.fixture(scope="module")
def script(browser):
    """script(function, *arguments): a function of the page, by itself."""
    page = browser.new_page()
    yield lambda name, *arguments: page.evaluate(
        f"(given) => {{ {SCRIPT}\nreturn {name}(...given); }}",
        list(arguments))
    page.close()


@pytest.mark.parametrize("n, parts", (
    (8, 4), (10, 4), (5, 4), (3, 8), (1, 1), (17, 3), (6, 5)))
def test_chunks_are_those_of_torch(script, n, parts):
    sizes = [len(one) for one in torch.arange(n).chunk(parts)]
    sizes += [0] * (parts - len(sizes))
    got = [script("chunk", n, parts, index) for index in range(parts)]
    assert [size for _, size in got] == sizes
    assert [begin for begin, size in got if size] == [
        sum(sizes[:i]) for i, size in enumerate(sizes) if size]


LINEAR = "torch.nn.modules.linear.Linear"
# Mesh; out features of a colwise and in features of a rowwise linear; blocks
# of the first; whether dp cuts the parameters, too.
CASES = {
    "even": ({"tp": 4}, 8, 8, (), False),
    "uneven": ({"tp": 4}, 10, 7, (), False),
    "fewer than ranks": ({"tp": 8}, 5, 3, (), False),
    "two dims": ({"dp": 2, "tp": 4}, 8, 8, (), False),
    "two cuts of one dim": ({"dp": 2, "tp": 3}, 11, 9, (), True),
    "packed": ({"tp": 4}, 24, 8, (8, 12, 4), False),
    "packed, uneven": ({"tp": 4}, 25, 8, (10, 13, 2), False),
    "packed, cut again": ({"dp": 3, "tp": 2}, 26, 8, (10, 12, 4), True),
}


def request(mesh, wide, narrow, blocks, sharded):
    out = pb.ExplainDeploymentRequest()
    deployment = out.dry_run.deployment
    out.dry_run.validate_only = True
    for name, size in mesh.items():
        deployment.mesh.dims.add(name=name, size=size)
    deployment.module.modules.add(fqn="", type="torch.nn.Sequential")
    for fqn, features in (("0", (6, wide)), ("1", (narrow, 6))):
        node = deployment.module.modules.add(fqn=fqn, type=LINEAR)
        for key, value in zip(("in_features", "out_features"), features):
            node.attributes[key].int_value = value
    entries = deployment.plan.entries
    colwise = entries.add(pattern="0").value.style.colwise
    colwise.block_sizes.extend(blocks)
    entries.add(pattern="1").value.style.rowwise.SetInParent()
    if "dp" in mesh:
        deployment.data_parallel.add(
            mesh_dim="dp", kind=types.DataParallel.KIND_FULLY_SHARD
            if sharded else types.DataParallel.KIND_REPLICATE)
    return out


def planned(part, dims):
    """The stretches by dim of one rank, as the planner says them."""
    out = [[[int(part.offsets[d]), int(part.sizes[d])]] if part.sizes[d]
           else [] for d in range(dims)]
    for dim in {stretch.dim for stretch in part.stretches}:
        out[dim] = [[int(s.offset), int(s.size)]
                    for s in part.stretches if s.dim == dim]
    return out


@pytest.fixture(scope="module")
def planner():
    with sp.LocalCluster(workers=0) as cluster:
        yield cluster.rpc


@pytest.mark.parametrize("case", CASES)
def test_parts_are_those_of_the_planner(script, planner, case):
    asked = request(*CASES[case])
    mesh = json_format.MessageToDict(asked.dry_run.deployment.mesh)
    for fqn in ("0.weight", "0.bias", "1.weight", "1.bias"):
        asked.fqn = fqn
        tensor = planner.call("ExplainDeployment", asked).tensors[0]
        shape = [int(size) for size in tensor.type.shape]
        spec = json_format.MessageToDict(tensor.spec)
        got = script("partsByRank", shape, spec, mesh)
        assert len(got) == len(tensor.parts)
        for rank, part in enumerate(tensor.parts):
            assert got[rank] == planned(part, len(shape)), (fqn, rank)
            elements = 1
            for stretches in got[rank]:
                elements *= sum(size for _, size in stretches)
            assert elements * 4 == part.bytes


def test_blocks_that_ranks_share(script):
    """Four query heads and two key heads of 8 on four ranks: 4*8, 2*8/2."""
    spec = json_format.MessageToDict(types.DTensorSpec(placements=[
        examples.shard(0, ((32, 8, 1), (16, 8, 2)))]))
    mesh = {"dims": [{"name": "tp", "size": 4}]}
    assert script("partsByRank", [48], spec, mesh) == [
        [[[0, 8], [32, 8]]], [[[8, 8], [32, 8]]],
        [[[16, 8], [40, 8]]], [[[24, 8], [40, 8]]]]
    tiles = script("tilesOf", [48], spec, mesh)["tiles"]
    assert {(tuple(t["column"]), tuple(t["ranks"])) for t in tiles} == {
        ((0, 8), (0,)), ((8, 8), (1,)), ((16, 8), (2,)), ((24, 8), (3,)),
        ((32, 8), (0, 1)), ((40, 8), (2, 3))}


def test_tiles_cover_a_tensor_once(script):
    spec = json_format.MessageToDict(types.DTensorSpec(
        placements=[examples.shard(1), examples.shard(0)]))
    mesh = {"dims": [{"name": "dp", "size": 3}, {"name": "tp", "size": 4}]}
    picture = script("tilesOf", [10, 7], spec, mesh)
    assert sum(t["row"][1] * t["column"][1] for t in picture["tiles"]) == 70
    ranks = sorted(rank for t in picture["tiles"] for rank in t["ranks"])
    assert ranks == list(range(12))


@pytest.mark.parametrize("dtype, packed, value", (
    (types.DTYPE_FLOAT32, b"\x00\x00\x60\x40", 3.5),
    (types.DTYPE_FLOAT64, b"\0\0\0\0\0\0\x0c\x40", 3.5),
    (types.DTYPE_FLOAT16, b"\x00\x43", 3.5),
    (types.DTYPE_FLOAT16, b"\x01\x00", 2 ** -24),
    (types.DTYPE_BFLOAT16, b"\x60\xc0", -3.5)))
def test_a_loss_of_any_float_is_read(script, dtype, packed, value):
    tensor = types.Tensor(type=types.TensorType(dtype=dtype), inline=packed)
    assert script("scalarOf", json_format.MessageToDict(tensor)) == value
