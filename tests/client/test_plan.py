"""Plans, meshes and placements as messages; no cluster is needed."""

import pytest
import torch.distributed.tensor as dt
import torch.distributed.tensor.parallel as tp

import shardplane as sp
from shardplane.mesh import text, to_proto_mesh
from shardplane.plan import needs_call_signatures, to_proto_plan
from shardplane.v1 import types_pb2 as pb

STYLES = ["ColwiseParallel", "RowwiseParallel"]


@pytest.mark.parametrize("name", STYLES)
def test_our_styles_are_pytorchs(name):
    ours, theirs = getattr(sp, name), getattr(tp, name)
    assert to_proto_plan(ours()) == to_proto_plan(theirs())
    assert to_proto_plan(ours(
        input_layouts=sp.Shard(0), output_layouts=sp.Replicate(),
        use_local_output=False)) == to_proto_plan(theirs(
            input_layouts=dt.Shard(0), output_layouts=dt.Replicate(),
            use_local_output=False))


@pytest.mark.parametrize("name, options", [
    ("PrepareModuleInput", {
        "input_layouts": ("S0", None), "desired_input_layouts": ("R", None)}),
    ("PrepareModuleInput", {
        "input_kwarg_layouts": {"x": "S0"},
        "desired_input_kwarg_layouts": {"x": "R"}}),
    ("PrepareModuleOutput", {
        "output_layouts": "R", "desired_output_layouts": "S0"}),
    ("PrepareModuleInputOutput", {
        "input_layouts": "S0", "desired_input_layouts": "R",
        "output_layouts": "R", "desired_output_layouts": "S0"})])
def test_our_prepare_styles_are_pytorchs(name, options):
    def build(module, home):
        known = {"S0": home.Shard(0), "R": home.Replicate(), None: None}
        def read(value):
            if isinstance(value, tuple):
                return tuple(map(read, value))
            if isinstance(value, dict):
                return {k: read(v) for k, v in value.items()}
            return known[value]
        return getattr(module, name)(**{k: read(v)
                                        for k, v in options.items()})

    message = to_proto_plan(build(sp, sp))
    assert message == to_proto_plan(build(tp, dt))
    assert needs_call_signatures(message) == (
        "kwarg" in str(options) or "None" in str(options))


def test_dict_keeps_its_order_and_shape():
    message = to_proto_plan({
        "b.*": sp.ColwiseParallel(),
        "a": {"x": sp.RowwiseParallel(), "": None},
        "c": [sp.ColwiseParallel(), sp.PrepareModuleOutput(
            output_layouts=sp.Shard(-1),
            desired_output_layouts=sp.Replicate())]})
    assert [e.pattern for e in message.entries] == ["b.*", "a", "c"]
    assert message.entries[0].value.HasField("style")
    inner = message.entries[1].value.plan
    assert [e.pattern for e in inner.entries] == ["x", ""]
    assert inner.entries[1].value.HasField("none")
    assert len(message.entries[2].value.styles.styles) == 2
    assert to_proto_plan(None) is None
    assert to_proto_plan({}) == pb.ParallelizePlan()


def test_a_subclass_is_no_known_style():
    class ColwiseParallel(tp.ColwiseParallel):
        pass

    class Diagonal(sp.ParallelStyle):
        pass

    message = to_proto_plan({"a": ColwiseParallel(), "b": Diagonal()})
    assert [e.value.style.unknown for e in message.entries] == [
        "ColwiseParallel", "Diagonal"]


@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_input_reshard(dim):
    style = to_proto_plan(sp.InputReshard(dim)).entries[0].value.style
    message = style.input_reshard
    assert style.WhichOneof("kind") == "input_reshard"
    assert message.HasField("input_reshard_dim") == (dim is not None)
    assert message.input_reshard_dim == (dim or 0)


@pytest.mark.parametrize("dim", ["0", 1.0, True])
def test_input_reshard_takes_a_dim(dim):
    with pytest.raises(ValueError, match="input_reshard_dim: expected"):
        to_proto_plan(sp.InputReshard(dim))


def test_style_names_its_mesh_dim():
    message = to_proto_plan(sp.ColwiseParallel(mesh_dim="x"))
    assert message.entries[0].value.style.mesh_dim == "x"


@pytest.mark.parametrize("make", [
    lambda: sp.PrepareModuleInput(input_layouts=sp.Shard(0)),
    lambda: sp.PrepareModuleInput(
        input_layouts=(sp.Shard(0), None),
        desired_input_layouts=sp.Replicate()),
    lambda: sp.PrepareModuleOutput(
        output_layouts=(sp.Shard(0),), desired_output_layouts=())])
def test_layouts_that_do_not_pair(make):
    with pytest.raises(ValueError, match="same length"):
        make()


@pytest.mark.parametrize("layout", ["shard", 0])
def test_layout_of_a_wrong_type(layout):
    with pytest.raises(TypeError, match="net1.*input_layouts"):
        to_proto_plan({"net1": sp.ColwiseParallel(
            input_layouts=layout or 1)})


def test_partial_kinds():
    plan = to_proto_plan(tp.ColwiseParallel(input_layouts=dt.Partial("max")))
    layout = plan.entries[0].value.style.colwise.input_layouts
    assert layout.partial.op == pb.REDUCE_OP_MAX
    with pytest.raises(sp.UnimplementedError, match="avg"):
        to_proto_plan(tp.ColwiseParallel(input_layouts=dt.Partial("avg")))


@pytest.mark.parametrize("mesh, expected", [
    ({"tp": 4}, "[tp=4]"), (4, "[tp=4]"), ([4], "[tp=4]"),
    ({"dp": 2, "tp": 2}, "[dp=2, tp=2]"),
    ([("dp", 2), ("tp", 4)], "[dp=2, tp=4]"),
    (([2, 4], ["dp", "tp"]), "[dp=2, tp=4]")])
def test_meshes(mesh, expected):
    assert text(to_proto_mesh(mesh)) == expected


@pytest.mark.parametrize("mesh", ["tp", [2, 4], True, 1.5])
def test_mesh_of_a_wrong_type(mesh):
    with pytest.raises(TypeError, match="mesh"):
        to_proto_mesh(mesh)


@pytest.mark.parametrize("mesh", [{}, {"tp": 0}, {"tp": "4"}, -1])
def test_mesh_of_a_bad_value(mesh):
    with pytest.raises(ValueError, match="mesh"):
        to_proto_mesh(mesh)


def test_mesh_of_the_context():
    with pytest.raises(ValueError, match="device_mesh"):
        to_proto_mesh(None)
    with sp.device_mesh({"tp": 2}):
        with sp.device_mesh(3):
            assert text(to_proto_mesh(None)) == "[tp=3]"
        assert text(to_proto_mesh(None)) == "[tp=2]"
    with pytest.raises(ValueError):
        to_proto_mesh(None)


def test_package_needs_no_torch():
    import subprocess
    import sys
    code = ("import sys, shardplane as sp; sp.ColwiseParallel(); "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
