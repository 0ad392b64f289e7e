"""Models of `transformers` and torch.nn under their usual plans, beside the
same model unsharded: outputs, loss, every gradient, parameters after a step."""

import collections
import fnmatch
import re
from copy import deepcopy

import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel

import shardplane as sp
import shardplane.programs
from tests import devices
from tests.differential.styles import placements_text, stored_cuts
from tests.parity import (
    assert_close, assert_predicted, check_gradients,
    check_parameters, padded_bytes, parallelized)
from tests.zoo.models import BATCH, LAYERS, VOCABULARY, WIDTH, ZOO, model

EXPORTED = {}


@pytest.fixture(autouse=True)
def exported_once(request, monkeypatch):
    """What torch.export takes is most of these tests' time: each model is
    exported once, not for each mesh and plan."""
    export = shardplane.programs.export
    name = getattr(request.node, "callspec", None)
    name = name and name.params.get("name")

    def remembered(tree, args, kwargs, *, call_signatures):
        key = name, tree.training_modes(), call_signatures
        if name is None or key not in EXPORTED:
            EXPORTED[key] = export(tree, args, kwargs,
                                   call_signatures=call_signatures)
        return EXPORTED[key]

    monkeypatch.setattr(shardplane.programs, "export", remembered)


# (style is colwise, type) -> parameter -> the dim that is cut.
CUTS = {
    (True, "Linear"): {"weight": 0, "bias": 0},
    (False, "Linear"): {"weight": 1},
    (True, "Conv1D"): {"weight": 1, "bias": 0},
    (False, "Conv1D"): {"weight": 0},
    (True, "Embedding"): {"weight": 1},
    (False, "Embedding"): {"weight": 0},
}


def expected_cuts(module, plan):
    """FQN -> tensor dim, of every name of a parameter."""
    by_tensor = {}
    for pattern, style in plan.items():
        for fqn, child in module.named_modules():
            if fqn.count(".") == pattern.count(".") and fnmatch.fnmatchcase(
                    fqn, pattern):
                row = CUTS[isinstance(style, ColwiseParallel),
                           type(child).__name__]
                for name, dim in row.items():
                    if getattr(child, name, None) is not None:
                        by_tensor.setdefault(
                            id(getattr(child, name)), dim)
    return {fqn: by_tensor[id(p)] for fqn, p in module.named_parameters(
        remove_duplicate=False) if id(p) in by_tensor}


def packed_cuts(zoo, ranks):
    """expected_cuts, over so many ranks."""
    cuts = expected_cuts(zoo.module, zoo.plan)
    for fqn in cuts:
        cut = zoo.packed.get(".".join(fqn.split(".")[-2:]))
        if cut is not None and ranks > 1:
            cuts[fqn] = cut(ranks) or cuts[fqn]
    return cuts


def in_a_block(fqn):
    """Inside an attention or an MLP, not between them."""
    return any(part in fqn.lower() for part in (
        "attn", "attention", "mlp", "dense", "intermediate", "expert",
        "linear1", "linear2"))


def check_nothing_gathers(report):
    """No op inside a block runs alike on every rank for want of a row."""
    for warning in report.warnings:
        assert not (warning.reason == "REPLICATED_OP" and
                    in_a_block(warning.fqn)), warning.message


def bytes_at_most(zoo_model, joined=0):
    """Forward's: each sum is one activation; logits are gathered. `joined`:
    how many attentions gather their outputs."""
    length = max(v.shape[1] for v in zoo_model.inputs.values())
    activation = BATCH * length * WIDTH * 8
    return ((zoo_model.sums + joined) * activation +
            zoo_model.gathers * BATCH * length * VOCABULARY * 8)


def check_step(zoo, m, reference, expected):
    """One of SGD, after the forward pass that gave `expected`."""
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    loss = zoo.loss(expected)
    loss.backward()
    optimizer.step()
    assert_close(m.step(kwargs=zoo.inputs, loss=zoo.loss,
                        optimizer=sp.SGD(lr=0.1)), loss, "loss")
    assert_predicted(m)
    check_gradients(m, reference)
    check_parameters(m, reference, "after the step:")


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", ZOO)
def test_zoo(cluster, name, ranks):
    zoo = model(name)
    cuts = packed_cuts(zoo, ranks)
    assert len({fqn.split(".")[-2] for fqn in cuts}) >= 2
    with parallelized(cluster, zoo.module, {"tp": ranks}, zoo.plan, cuts=cuts,
                      example_kwargs=zoo.inputs) as case:
        case.check_start()
        m, reference = case.m, case.reference
        check_nothing_gathers(m.report)
        expected = reference(**zoo.inputs)
        actual = m(**zoo.inputs)
        assert type(actual) is type(expected)
        assert_close(zoo.output(actual), zoo.output(expected), "forward")
        assert_predicted(m)
        counts = m.comm_counts()["forward"]
        assert counts == {kind: count for kind, count in (
            ("all_reduce", zoo.sums), ("all_gather", zoo.gathers)) if count}
        assert sum(m.comm_bytes()["forward"].values()) <= bytes_at_most(zoo)

        check_step(zoo, m, reference, expected)


@pytest.mark.parametrize("name, kind, dp, tp", [
    *((name, "fully_shard", *ranks) for name in ZOO
      for ranks in ((2, 2), (4, 1), (1, 4))),
    ("llama", "replicate", 2, 2), ("encoder", "replicate", 2, 2)])
def test_data_parallel(cluster, name, kind, dp, tp):
    """Ranks of the batch, and within by the usual plan. Each layer travels by
    itself."""
    zoo, mesh = model(name), {"dp": dp, "tp": tp}
    reference = deepcopy(zoo.module)
    with cluster.parallelize_module(
            zoo.module, mesh, zoo.plan, data_parallel=kind, unit_bytes=0,
            example_kwargs=zoo.inputs) as m:
        check_nothing_gathers(m.report)
        cuts = packed_cuts(zoo, tp)
        parameters = dict(zoo.module.named_parameters(remove_duplicate=False))
        stored = parameters | dict(
            zoo.module.named_buffers(remove_duplicate=False))
        for fqn, place in m.report.placements.items():
            cut = ("tp", cuts[fqn]) if fqn in cuts else None
            sharded = ["dp"] if kind == "fully_shard" and (
                fqn in parameters) else []
            assert place == placements_text(
                stored_cuts(cut, stored[fqn], sharded), mesh), fqn
        expected = reference(**zoo.inputs)
        assert_close(zoo.output(m(**zoo.inputs)), zoo.output(expected),
                     "forward")
        assert_predicted(m)
        assert m.comm_counts()["forward"].get("all_reduce", 0) == (
            zoo.sums if tp > 1 else 0)
        weights = sum(padded_bytes(p, 0, dp) for p in reference.parameters()
                      if kind == "fully_shard" and dp > 1)
        # A batch that does not divide: padded, and queries, keys and values
        # cannot be joined with the heads where they are, either.
        padded = -(-BATCH // dp) * dp / BATCH
        joined = zoo.joined * (3 if BATCH % dp else 1)
        assert sum(m.comm_bytes()["forward"].values()) <= (
            padded * bytes_at_most(zoo, joined=joined) + weights)
        check_step(zoo, m, reference, expected)


def styles_in_blocks(report):
    """FQN -> style of what is colwise or rowwise, embeddings and head left
    out."""
    return {row.fqn: row.style for row in report.assignments
            if "Embedding" not in row.module_type and row.fqn != "lm_head"}


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "mixtral"])
def test_pairs_are_those_of_the_usual_plan(cluster, name):
    """PairwiseParallel finds by the calls what people write down."""
    zoo = model(name)
    usual = cluster.parallelize_module(
        zoo.module, {"tp": 4}, zoo.plan, example_kwargs=zoo.inputs,
        validate_only=True)
    with parallelized(cluster, zoo.module, {"tp": 4}, sp.PairwiseParallel(),
                      example_kwargs=zoo.inputs) as case:
        m, reference = case.m, case.reference
        found = styles_in_blocks(m.report)
        for fqn, style in styles_in_blocks(usual).items():
            assert found[fqn] == style, fqn
        expected = reference(**zoo.inputs)
        assert_close(zoo.output(m(**zoo.inputs)), zoo.output(expected))
        rows = list(found.values()).count("RowwiseParallel")
        assert m.comm_counts()["forward"]["all_reduce"] == rows
        check_step(zoo, m, reference, expected)


@pytest.fixture(scope="module")
def fused():
    with sp.LocalCluster(workers=4, coordinator_args=["--fused_operators"],
                         **devices.options()) as cluster:
        yield cluster


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name, operators", [
    ("llama", {"add_rms_norm": 2 * LAYERS, "cast_rms_norm": 1,
               "swiglu": LAYERS, "rotary": 2 * LAYERS}),
    ("gpt_neox", {"rotary": 2 * LAYERS}),
    ("mixtral", {"add_rms_norm": 2 * LAYERS, "cast_rms_norm": 1,
                 "swiglu": LAYERS, "rotary": 2 * LAYERS})])
def test_fused_operators(fused, name, operators, ranks):
    """Norms with the sums before them, gates, rotary embeddings: as many as
    the model has, and the model is the same."""
    zoo = model(name)
    with parallelized(fused, zoo.module, {"tp": ranks}, zoo.plan,
                      cuts=packed_cuts(zoo, ranks), example_kwargs=zoo.inputs,
                      loss=zoo.loss) as case:
        assert collections.Counter(re.findall(
            r"shardplane\.(swiglu|rotary|cast_rms_norm|add_rms_norm)\b",
            case.m.report.program_text)) == operators
        expected = case.reference(**zoo.inputs)
        assert_close(zoo.output(case.m(**zoo.inputs)), zoo.output(expected))
        check_step(zoo, case.m, case.reference, expected)


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_pytorchs_layers_under_one_style(cluster, name):
    zoo = model(name)
    with parallelized(cluster, zoo.module, {"tp": 4}, sp.PairwiseParallel(),
                      example_kwargs=zoo.inputs) as case:
        expected = case.reference(**zoo.inputs)
        assert_close(zoo.output(case.m(**zoo.inputs)), zoo.output(expected))
        check_step(zoo, case.m, case.reference, expected)


def test_bert_has_no_two_linears_side_by_side_that_read_each_other(cluster):
    """Its projections are modules apart: the style says so."""
    zoo = model("bert")
    with pytest.warns(UserWarning, match="found nothing to pair"):
        cluster.parallelize_module(
            zoo.module, {"tp": 4}, sp.PairwiseParallel(),
            example_kwargs=zoo.inputs, validate_only=True)
