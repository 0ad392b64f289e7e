"""What old scripts write, as messages; no cluster is needed. Numbers are those
of section I of behaviour.md."""

import functools
import subprocess
import sys

import pytest
import torch

import shardplane as sp
from shardplane.old_api import implied_data_parallel, with_loss_parallel
from shardplane.mesh import to_proto_mesh
from shardplane.plan import needs_call_signatures, to_proto_plan

S, R, P = sp.Shard, sp.Replicate(), sp.Partial()


def style_of(style):
    return to_proto_plan(style).entries[0].value.style


INPUTS = [  # I7
    (sp.make_input_replicate_1d, R),
    (sp.make_input_reshard_replicate, S(0)),
    (sp.make_input_shard_1d, S(0)),
    (sp.make_input_shard_1d(dim=2), S(2)),
    (functools.partial(sp.make_input_shard_1d, dim=1), S(1)),
    (functools.partial(sp.make_input_shard_1d, device_mesh={"tp": 4}), S(0)),
    (sp.make_input_shard_1d_last_dim, S(-1))]
OUTPUTS = [  # I8; what the last linear, a rowwise one, makes is a sum
    (sp.make_output_replicate_1d, R),
    (sp.make_output_tensor, R),
    (sp.make_output_reshard_tensor, S(0)),
    (sp.make_output_shard_1d, S(0)),
    (functools.partial(sp.make_output_shard_1d, dim=-1), S(-1)),
    (sp.make_sharded_output_tensor, P)]
LINEARS = [sp.PairwiseParallel, sp.ColwiseParallel, sp.RowwiseParallel]


def test_i1_i6_defaults():
    assert sp.PairwiseParallel() == sp.PairwiseParallel(
        sp.make_input_replicate_1d, sp.make_output_tensor)
    assert style_of(sp.PairwiseParallel()).HasField("pairwise")
    message = style_of(sp.PairwiseSequenceParallel()).pairwise_sequence
    assert message.HasField("sequence_dim") and message.sequence_dim == 0
    assert sp.PairwiseParallel(mesh_dim="x") != sp.PairwiseParallel()
    assert style_of(sp.PairwiseParallel(mesh_dim="x")).mesh_dim == "x"


@pytest.mark.parametrize("style", LINEARS)
@pytest.mark.parametrize("prepare, layout", INPUTS)
def test_i7_inputs(style, prepare, layout):
    expected = style(input_layouts=layout)
    assert style(prepare) == expected
    assert style(_prepare_input=prepare) == expected
    assert style_of(style(prepare)) == style_of(expected)


@pytest.mark.parametrize("style", LINEARS)
@pytest.mark.parametrize("prepare, layout", OUTPUTS)
def test_i8_outputs(style, prepare, layout):
    if layout is P and style is sp.ColwiseParallel:
        layout = S(-1)
    expected = style(output_layouts=layout)
    assert style(None, prepare) == expected
    assert style(_prepare_output=prepare) == expected


@pytest.mark.parametrize("given", [
    {"_prepare_input": lambda x, mesh: x},
    {"_prepare_input": functools.partial(len)},
    {"_prepare_input": S(0)},
    {"_prepare_input": sp.make_output_tensor},
    {"_prepare_output": sp.make_input_shard_1d},
    {"_prepare_input": functools.partial(sp.make_input_shard_1d, dim="0")},
    {"_prepare_input": functools.partial(sp.make_input_shard_1d, None)},
    {"_prepare_input": functools.partial(sp.make_input_shard_1d, of=1)},
    {"_prepare_input": functools.partial(sp.make_input_replicate_1d, dim=1)}])
def test_other_functions_are_refused_with_those_there_are(given):
    (field,) = given
    side = field.removeprefix("_prepare_")
    with pytest.raises(TypeError, match=f"PairwiseParallel.{field}: expected "
                       f"one of sp.make_{side}_replicate_1d, ") as raised:
        sp.PairwiseParallel(**given)
    assert raised.value.code == "INVALID_ARGUMENT"
    assert raised.value.reason == "UNKNOWN_PREPARE"


def test_both_ways_at_once():
    with pytest.raises(ValueError, match="got: both"):
        sp.RowwiseParallel(sp.make_input_shard_1d, input_layouts=S(0))


@pytest.mark.parametrize("mesh, match", [
    ({"a": 2, "b": 2}, "dims 2 but expected to be 1 for input"),
    (True, "mesh")])
def test_i9_the_mesh_that_is_bound(mesh, match):
    prepare = functools.partial(sp.make_input_shard_1d, device_mesh=mesh)
    with pytest.raises(ValueError, match=match):
        sp.PairwiseParallel(prepare)


@pytest.mark.parametrize("call, remedy", [
    (lambda: sp.make_input_shard_1d(torch.ones(4), {"tp": 4}, dim=1),
     r"input_layouts=sp.Shard\(dim=1\)"),
    (lambda: sp.make_input_replicate_1d(None), "input_layouts=sp.Replicate()"),
    (lambda: sp.make_input_replicate_1d(), "_prepare_input"),
    (lambda: sp.make_sharded_output_tensor(torch.ones(4)), "_prepare_output")])
def test_i9_a_call_says_how_to_use_it(call, remedy):
    with pytest.raises(TypeError, match=remedy) as raised:
        call()
    assert raised.value.reason == "PREPARE_CALLED"
    assert "expected to be handed to a style" in raised.value.message


def test_i10_positional_layouts():
    keyword = sp.PrepareModuleInput(input_layouts=S(1),
                                    desired_input_layouts=R)
    assert sp.PrepareModuleInput(S(1)) == keyword
    assert sp.PrepareModuleInput((S(1),), (R,)) == keyword
    output = sp.PrepareModuleOutput(output_layouts=R,
                                    desired_output_layouts=S(0))
    assert sp.PrepareModuleOutput(R) == output
    assert sp.PrepareModuleOutput(R, S(0)) == output


def test_i10_without_arguments_it_is_todays():
    """C50: nothing is prepared. C60: both are required."""
    assert sp.PrepareModuleInput().input_layouts is None
    with pytest.raises(TypeError, match="desired_output_layouts"):
        sp.PrepareModuleOutput()
    with pytest.raises(TypeError, match="by position or by name"):
        sp.PrepareModuleInput(S(0), desired_input_layouts=R)
    with pytest.raises(TypeError, match="by position or by name"):
        sp.PrepareModuleOutput(R, S(0), R)


def test_pairs_of_an_attention_need_to_know_its_inputs():
    """Which of them are query, key and value, if their layout matters."""
    for style, needed in ((sp.PairwiseParallel(), False),
                          (sp.PairwiseParallel(input_layouts=S(1)), True),
                          (sp.PairwiseSequenceParallel(), True)):
        assert needs_call_signatures(to_proto_plan(style)) == needed
        assert needs_call_signatures(to_proto_plan(style),
                                     has_attention=True)


@pytest.mark.parametrize("style, field", [
    (sp.PairwiseSequenceParallel(sequence_dim="0"), "sequence_dim"),
    (sp.LossParallel(1.0), "class_dim"), (sp.LossParallel(True), "class_dim")])
def test_dims_are_numbers(style, field):
    with pytest.raises(ValueError, match=f"{field}: expected a tensor dim"):
        to_proto_plan(style)


def test_loss_parallel():
    assert style_of(sp.LossParallel()).loss.class_dim == -1
    assert style_of(sp.LossParallel(1)).loss.class_dim == 1
    plan = to_proto_plan({"net1": sp.ColwiseParallel()})
    assert with_loss_parallel(plan) is plan
    with sp.loss_parallel():
        added = with_loss_parallel(plan)
        assert with_loss_parallel(None) is None
    assert [e.pattern for e in added.entries] == ["net1", ""]
    assert added.entries[1] == to_proto_plan(sp.LossParallel()).entries[0]
    assert with_loss_parallel(plan) is plan


MESH = to_proto_mesh({"dp": 2, "tp": 2})


def test_enable_2d_with_fsdp():
    """It answers True, says what corresponds, and does it."""
    module = torch.nn.Linear(2, 2)
    assert implied_data_parallel(module, MESH) is None
    try:
        with pytest.warns(UserWarning, match='data_parallel="fully_shard"'):
            assert sp.enable_2d_with_fsdp() is True
        assert implied_data_parallel(module, MESH) == "fully_shard"
        assert implied_data_parallel({}, MESH) == "fully_shard"
        assert implied_data_parallel(module, to_proto_mesh(4)) is None
    finally:
        assert sp.enable_2d_with_fsdp(False) is True
    assert implied_data_parallel(module, MESH) is None


def test_pre_dp_module_transform():
    module, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = dict(module.__dict__)
    with pytest.warns(UserWarning, match='data_parallel="replicate"'):
        assert sp.pre_dp_module_transform(module) is module
    assert module.__dict__ == before
    assert implied_data_parallel(module, MESH) == "replicate"
    assert implied_data_parallel(other, MESH) is None
    assert implied_data_parallel(module, to_proto_mesh(4)) is None
    with pytest.warns(UserWarning):
        assert sp.pre_dp_module_transform(None) is None


def test_names_need_no_torch():
    code = ("import sys; sys.modules['torch'] = None\n"
            "import shardplane as sp\n"
            "sp.PairwiseParallel(sp.make_input_shard_1d)\n"
            "try: sp.TensorParallelMultiheadAttention\n"
            "except ImportError: print('torch is asked for')\n"
            "try: sp.NoSuchName\n"
            "except AttributeError as e: print(e)\n")
    done = subprocess.run([sys.executable, "-c", code], check=True,
                          capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "torch is asked for",
        "module 'shardplane' has no attribute 'NoSuchName'"]
