"""Section A of behaviour.md, which the names give, by dry runs."""

import random
import warnings

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, ParallelStyle, PrepareModuleInput, RowwiseParallel,
    parallelize_module)

import shardplane as sp
from tests.models import MLPModule, MLPStacked, linear, rand
from tests.parity import parallelized

MESH = {"tp": 2}
COLWISE, ROWWISE = ColwiseParallel(), RowwiseParallel()


def plan(cluster, module, styles, **options):
    return cluster.parallelize_module(module, MESH, styles,
                                      validate_only=True, **options)


def matched(report):
    return [(a.fqn, a.style, a.pattern) for a in report.assignments]


def style_of(report):
    return {a.fqn: a.style for a in report.assignments}


def test_a4_value_none(cluster):
    with pytest.warns(UserWarning, match="net2"):
        report = plan(cluster, MLPModule(), {"net1": COLWISE, "net2": None})
    assert style_of(report) == {"net1": "ColwiseParallel"}


def test_a5_empty_dict(cluster, no_warnings):
    report = plan(cluster, MLPModule(), {})
    assert matched(report) == []
    assert set(report.placements.values()) == {"[R]"}


def test_a6_one_style(cluster, no_warnings):
    assert matched(plan(cluster, linear(4, 4), ROWWISE)) == [
        ("", "RowwiseParallel", "")]


def test_a7_nested_dict(cluster, no_warnings):
    report = plan(cluster, MLPStacked(), {
        "layers.*": {"net1": COLWISE, "net2": ROWWISE}})
    assert style_of(report) == {
        f"layers.{i}.{name}": style for i in range(2)
        for name, style in (("net1", "ColwiseParallel"),
                            ("net2", "RowwiseParallel"))}


def test_a8_nothing_is_applied_where_a_later_entry_is_wrong(cluster):
    with pytest.raises(TypeError, match="net2"):
        cluster.parallelize_module(MLPModule(), MESH, {
            "net1": COLWISE, "net2": "rowwise"})
    assert cluster.deployments() == []


def test_a9_order_of_the_dict(cluster, no_warnings):
    report = plan(cluster, MLPModule(), {"net2": ROWWISE, "net1": COLWISE})
    assert [a.fqn for a in report.assignments] == ["net2", "net1"]


@pytest.mark.parametrize("styles", [
    {"net1": COLWISE, "net*": ROWWISE}, {"*1": ROWWISE, "net1": COLWISE},
    {"net1": [COLWISE, ROWWISE]}])
def test_a10_two_parameter_styles(cluster, styles):
    with pytest.raises(sp.InvalidArgumentError) as raised:
        plan(cluster, MLPModule(), styles)
    assert all(pattern in raised.value.message for pattern in styles)


def test_a10_the_same_style_twice_counts_once(cluster, no_warnings):
    report = plan(cluster, MLPModule(), {
        "net1": ColwiseParallel(), "net[1]": ColwiseParallel()})
    assert [a.fqn for a in report.assignments] == ["net1"]


def test_a11_prepare_styles_stack(cluster):
    x = rand(8, 10)
    styles = {"net1": [
        PrepareModuleInput(input_layouts=Shard(0),
                           desired_input_layouts=Replicate()), COLWISE],
        "net2": ROWWISE}
    with parallelized(cluster, MLPModule(), MESH, styles, x=x, cuts={
            "net1.weight": 0, "net1.bias": 0, "net2.weight": 1}) as case:
        case.check_all(x)


NAMES = ["net1", "net2", "net10", "neta", "Net1", "other"]


@pytest.mark.parametrize("pattern, expected", [
    ("net*", ["net1", "net2", "net10", "neta"]),
    ("net?", ["net1", "net2", "neta"]), ("net[1-2]", ["net1", "net2"]),
    ("net[!1]", ["net2", "neta"]), ("net[12]0", ["net10"]),
    ("*", NAMES), ("**", NAMES), ("[nN]et1", ["net1", "Net1"]),
    ("n*t?", ["net1", "net2", "neta"])])
def test_a12_pattern_language(cluster, pattern, expected, no_warnings):
    module = nn.ModuleDict({name: nn.Linear(4, 4) for name in NAMES})
    report = plan(cluster, module, {pattern: COLWISE})
    assert [a.fqn for a in report.assignments] == expected


def test_a12_a_star_does_not_cross_a_dot(cluster):
    with pytest.warns(UserWarning, match=r"layers\.\*net1"):
        report = plan(cluster, MLPStacked(), {"layers.*net1": COLWISE})
    assert matched(report) == []


def test_a13_wildcard_in_the_middle(cluster, no_warnings):
    report = plan(cluster, MLPStacked(3), {"layers.*.net[1]": COLWISE})
    assert [a.fqn for a in report.assignments] == [
        f"layers.{i}.net1" for i in range(3)]


def test_a14_names_are_relative_to_the_module_passed(cluster, no_warnings):
    module = MLPStacked()
    report = plan(cluster, module.layers[1], {"net1": COLWISE})
    assert [a.fqn for a in report.assignments] == ["net1"]
    report = plan(cluster, module, {"layers.1.net1": COLWISE})
    assert [a.fqn for a in report.assignments] == ["layers.1.net1"]


def test_a15_a16_empty_key_forwards_src_data_rank(cluster):
    with cluster.parallelize_module(linear(4, 4), MESH, {"": COLWISE},
                                    src_data_rank=None) as m:
        assert m.comm_counts()["materialize"] == {}
        assert m.report.placements == {"weight": "[S(0)]", "bias": "[S(0)]"}


def test_a17_leading_dot(cluster):
    with pytest.warns(UserWarning, match=r"\.net1"):
        assert matched(plan(cluster, MLPModule(), {".net1": COLWISE})) == []


@pytest.mark.parametrize("key, count", [
    ("net3", 1), ("net0.hello.world", 1), ("net1.weight", 1),
    ("layers.*.net9", 2)])  # one a parent that the wildcard found
def test_a18_a19_no_match_names_the_key_as_written(cluster, key, count):
    module = MLPStacked() if key.startswith("layers") else MLPModule()
    with pytest.warns(UserWarning) as caught:
        report = plan(cluster, module, {key: COLWISE})
    assert len(caught) == count
    assert all(key in str(warning.message) for warning in caught)
    assert caught[0].filename == __file__
    assert [w.pattern for w in report.warnings] == [key] * count


def test_a18_did_you_mean(cluster):
    with pytest.warns(UserWarning, match="net1"):
        plan(cluster, MLPModule(), {"net_1": COLWISE})


def test_a20_a_module_under_two_names(cluster):
    module = MLPModule()
    module.alias = module.net1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = plan(cluster, module, {"net1": COLWISE, "alias": COLWISE})
    assert [a.fqn for a in report.assignments] == ["net1"]


def test_a21_a_style_on_a_type_that_it_does_not_take(cluster):
    with pytest.raises(sp.UnimplementedError) as raised:
        plan(cluster, MLPModule(), {"*": COLWISE})
    assert "relu" in raised.value.message
    assert "ReLU" in raised.value.message


def test_a22_a_style_object_is_not_written_to(cluster):
    style = ColwiseParallel()
    before = dict(vars(style))
    plan(cluster, MLPModule(), {"net1": style}, src_data_rank=None)
    assert vars(style) == before


def test_a31_parameters_stay_who_they_are(cluster):
    module = MLPModule()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with cluster.parallelize_module(module, MESH, {"net1": COLWISE}):
        pass
    assert optimizer.param_groups[0]["params"][0] is module.net1.weight


def test_c3_c13_subclasses_of_linear(cluster, no_warnings):
    class Subclass(nn.Linear):
        pass

    module = nn.Sequential(Subclass(4, 4))
    assert style_of(plan(cluster, module, {"0": COLWISE})) == {
        "0": "ColwiseParallel"}


def test_c51_layouts_that_do_not_pair(cluster):
    style = PrepareModuleInput(input_layouts=(Shard(0),),
                               desired_input_layouts=(Replicate(),))
    style.desired_input_layouts = (Replicate(), Replicate())
    with pytest.raises(sp.InvalidArgumentError, match="input_layouts"):
        plan(cluster, MLPModule(), {"net1": style})


def test_shard_dim_out_of_range(cluster):
    with pytest.raises(sp.InvalidArgumentError) as raised:
        plan(cluster, MLPModule(), {"net1": ColwiseParallel(
            output_layouts=Shard(7))}, example_inputs=(rand(6, 10),))
    assert "net1" in raised.value.message


class Recorder(ParallelStyle):
    """A style that only says where PyTorch applies it."""

    def __init__(self, found):
        self.found = found

    def _apply(self, module, device_mesh):
        self.found.append(module)
        return module


def random_tree(rng, depth):
    if depth == 0 or rng.random() < 0.3:
        return nn.Identity()
    names = rng.sample(["a", "b", "net1", "net2", "q_proj", "0", "layers"],
                       rng.randint(1, 4))
    return nn.ModuleDict({n: random_tree(rng, depth - 1) for n in names})


def random_pattern(rng):
    tokens = ["a", "b", "net1", "net?", "net[1-2]", "net[!1]", "*", "**", "?",
              "*_proj", "[ab]", "layers", "0", "", "x[", "[]a]", "NET1"]
    return ".".join(rng.choice(tokens) for _ in range(rng.randint(1, 3)))


@pytest.mark.parametrize("seed", range(20))
def test_random_patterns_match_what_pytorch_matches(cluster, seed):
    rng = random.Random(seed)
    tree = random_tree(rng, 3)
    patterns = list(dict.fromkeys(random_pattern(rng) for _ in range(8)))
    names = {module: name for name, module in tree.named_modules()}
    found, missed = [], 0
    for pattern in patterns:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parallelize_module(tree, object(), {pattern: Recorder(found)})
        missed += len(caught)
    style = sp.PrepareModuleOutput(output_layouts=Replicate(),
                                   desired_output_layouts=Replicate())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = plan(cluster, tree, {p: style for p in patterns})
    print(f"seed {seed}: {patterns}")
    # Styles without parameters stack, so every hit is an assignment.
    assert [a.fqn for a in report.assignments] == [names[m] for m in found]
    assert sum(d.reason == "PATTERN_WITHOUT_MATCH"
               for d in report.proto.diagnostics) == missed
