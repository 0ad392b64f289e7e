"""PyTorch's old styles on a cluster, by the numbers of section I of
behaviour.md."""

import functools
import warnings

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import (
    ColwiseParallel, RowwiseParallel)
from torch.nn import functional as F

import shardplane as sp
from tests.models import (
    MLPModule, MLPStacked, Transformer, TransformerArgs, rand, tokens)
from tests.parity import (
    assert_bytes, assert_close, assert_counts, chunk, parallelized)

MESH = {"tp": 4}
PAIRS = sp.PairwiseParallel()
F64 = {"dtype": torch.float64}
MLP_CUTS = {"net1.weight": 0, "net1.bias": 0, "net2.weight": 1}


def pairs_of(report):
    """Module -> what the notes say is paired there."""
    notes = [d for d in report.notes if d.reason == "PAIRED"]
    return {d.fqn: d.message.split('" ', 1)[1].rstrip(".") for d in notes}


def linear(inputs=8, outputs=8, bias=False):
    return nn.Linear(inputs, outputs, bias=bias, **F64)


class Registered(nn.Module):
    """Linears of these names, in this order, and a forward of its own."""

    def __init__(self, *names):
        super().__init__()
        torch.manual_seed(7)
        for name in names:
            setattr(self, name, linear())


class Backwards(Registered):
    def __init__(self):
        super().__init__("last", "first")

    def forward(self, x):
        return self.last(self.first(x).relu())


class Projections(Registered):
    """Self-attention of two heads."""

    def __init__(self):
        super().__init__("q", "k", "v", "o")

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (4, 2)).transpose(1, 2)
                   for p in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).flatten(2))


class Gated(Registered):
    def __init__(self):
        super().__init__("gate", "up", "down")

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Siblings(Registered):
    def __init__(self):
        super().__init__("one", "two")

    def forward(self, x):
        return self.one(x) + self.two(x)


def chain(count):
    torch.manual_seed(9)
    return nn.Sequential(*(linear() for _ in range(count)))


def cut(columns, rows, bias=False):
    """Which parameters are cut of colwise and rowwise linears."""
    cuts = {f"{name}.weight": 0 for name in columns}
    if bias:
        cuts |= {f"{name}.bias": 0 for name in columns}
    return cuts | {f"{name}.weight": 1 for name in rows}


# ------------------------------------------------------------------ pairs


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("input_grad", [False, True])
def test_i1_mlp(cluster, ranks, input_grad):
    """As ColwiseParallel and RowwiseParallel written out: C70."""
    x = rand(8, 10, requires_grad=input_grad)
    with parallelized(cluster, MLPModule(), {"tp": ranks}, PAIRS,
                      cuts=MLP_CUTS, x=x) as case:
        assert pairs_of(case.m.report) == {
            "": "pairs net1 (colwise) -> net2 (rowwise)"}
        case.check_start()
        case.check_backward(x)
        assert_counts(case.m, forward={"all_reduce": 1},
                      backward={"all_reduce": 1} if input_grad else {})
        for _ in range(3):
            case.check_step(x)
        assert_bytes(case.m, forward=8 * 10 * 8, backward=0)


def test_i1_the_program_is_that_of_the_styles_written_out(cluster):
    texts = []
    for plan in (PAIRS, {"net1": ColwiseParallel(),
                         "net2": RowwiseParallel()}):
        report = cluster.parallelize_module(
            MLPModule(), MESH, plan, example_inputs=(rand(8, 10),),
            loss="sum", validate_only=True)
        texts.append(report.program_text)
    assert texts[0] == texts[1]


def test_i2_modules_within(cluster):
    x = rand(8, 10)
    cuts = {f"layers.{i}.{name}": dim for i in range(2)
            for name, dim in MLP_CUTS.items()}
    with parallelized(cluster, MLPStacked(), MESH, PAIRS, cuts=cuts,
                      x=x) as case:
        case.check_all(x)
        assert_counts(case.m, forward={"all_reduce": 2},
                      backward={"all_reduce": 1})


def test_i2_a_list_has_the_order_of_the_module_around_it(cluster):
    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linears = nn.ModuleList(chain(4))

        def forward(self, x):
            for layer in reversed(self.linears):
                x = layer(x)
            return x

    with parallelized(cluster, Reversed(), MESH, PAIRS, x=rand(6, 8),
                      cuts=cut(["linears.3", "linears.1"],
                               ["linears.2", "linears.0"])) as case:
        case.check_all(rand(6, 8))
        assert_counts(case.m, forward={"all_reduce": 2})


@pytest.mark.parametrize("count, columns, rows", [
    (2, "0", "1"), (3, "0", "1"), (5, "02", "13")])
def test_i3_an_odd_last_linear_stays(cluster, count, columns, rows):
    x = rand(6, 8)
    with parallelized(cluster, chain(count), MESH, PAIRS, x=x,
                      cuts=cut(columns, rows)) as case:
        case.check_all(x)
        assert_counts(case.m, forward={"all_reduce": count // 2})


def test_i3_layouts_are_of_the_first_and_of_the_last(cluster):
    """All that the pairs in between exchange is a sum."""
    x = rand(8, 8)
    style = sp.PairwiseParallel(sp.make_input_shard_1d,
                                sp.make_output_reshard_tensor)
    with parallelized(cluster, chain(6), MESH, style, x=x,
                      cuts=cut("024", "135")) as case:
        case.check_all(x)
        assert_counts(case.m, forward={
            "all_gather": 1, "all_reduce": 2, "reduce_scatter": 1})


@pytest.mark.parametrize("module, x, columns, rows, said", [
    (Backwards, rand(6, 8), ["first"], ["last"],
     "first (colwise) -> last (rowwise)"),
    (Projections, rand(2, 6, 8), "qkv", "o",
     "q, k, v (colwise) -> o (rowwise)"),
    (Gated, rand(6, 8), ["gate", "up"], ["down"],
     "gate, up (colwise) -> down (rowwise)")])
def test_i4_pairs_are_those_of_the_calls(cluster, module, x, columns, rows,
                                         said):
    """By registration q and v would be colwise, k and o rowwise."""
    with parallelized(cluster, module(), MESH, PAIRS, x=x,
                      cuts=cut(columns, rows)) as case:
        assert pairs_of(case.m.report) == {"": f"pairs {said}"}
        case.check_all(x)
        x.requires_grad_()
        case.check_backward(x)
        x.requires_grad_(False)
        assert_counts(case.m, forward={"all_reduce": 1},
                      backward={"all_reduce": 1})


def test_i4_nothing_to_pair_is_said(cluster):
    with pytest.warns(UserWarning, match="found nothing to pair"):
        with parallelized(cluster, Siblings(), MESH, PAIRS, x=rand(6, 8),
                          cuts={}) as case:
            case.check_all(rand(6, 8))
    with pytest.raises(sp.InvalidArgumentError, match="nothing to pair") as e:
        cluster.parallelize_module(
            Siblings(), MESH, PAIRS, example_inputs=(rand(6, 8),), strict=True)
    assert e.value.reason == "NOTHING_PAIRED"
    assert cluster.deployments() == []


@pytest.mark.parametrize("loss", [None, "sum"])
def test_i4_a_transformer(cluster, loss):
    """Both kinds of block; embeddings and the last linear stay whole."""
    x, reference = tokens(seed=1), Transformer(TransformerArgs())
    cuts = {name: dim for name, dim in ((n, {"wo": 1, "w2": 1}.get(
        n.split(".")[-2], 0)) for n, _ in reference.named_parameters())
            if name.startswith("layers.") and "norm" not in name
            and name.split(".")[-2:] != ["w2", "bias"]}
    with parallelized(cluster, reference, MESH, PAIRS, x=x, cuts=cuts,
                      loss=loss) as case:
        assert len(pairs_of(case.m.report)) == 4
        case.check_all(x)
        assert_counts(case.m, forward={"all_reduce": 4},
                      backward={"all_reduce": 4})


@pytest.mark.parametrize("training", [False, True])
def test_i4_pytorchs_transformer(cluster, training):
    """Issue 99432: it never worked. Attentions by heads, linears in pairs."""
    torch.manual_seed(2)
    module = nn.Transformer(8, 4, 1, 1, 16, dropout=0.0, batch_first=True,
                            **F64).train(training)
    source, target = rand(2, 6, 8), rand(2, 5, 8, seed=1)
    with cluster.parallelize_module(
            module, MESH, PAIRS, example_inputs=(source, target)) as m:
        said = pairs_of(m.report)
        assert said["encoder.layers.0"] == (
            "pairs linear1 (colwise) -> linear2 (rowwise)")
        assert said["decoder.layers.0.multihead_attn"].startswith(
            "is a MultiheadAttention")
        assert m.report.placements[
            "decoder.layers.0.self_attn.in_proj_weight"] == "[S(0: 8, 8, 8)]"
        assert_close(m(source, target), module(source, target))


@pytest.mark.parametrize("style", [PAIRS, sp.PairwiseSequenceParallel()])
def test_i5_one_linear_is_no_pair(cluster, style):
    with pytest.raises(sp.InvalidArgumentError, match=(
            "more than one nn.Linear needed for a MLP")) as raised:
        cluster.parallelize_module(MLPModule(), MESH, {"net1": style})
    assert raised.value.reason == "STYLE_UNSUPPORTED_MODULE"
    with pytest.raises(sp.InvalidArgumentError, match="Embedding"):
        cluster.parallelize_module(Transformer(TransformerArgs()), MESH,
                                   {"tok_embeddings": style})
    assert cluster.deployments() == []


def test_i5_rowwise_takes_an_embedding_today(cluster):
    """C21; the other errors are C3's and A8's."""
    report = cluster.parallelize_module(
        Transformer(TransformerArgs()), MESH,
        {"tok_embeddings": RowwiseParallel()}, validate_only=True)
    assert report.placements["tok_embeddings.weight"] == "[S(0)]"


@pytest.mark.parametrize("input_grad", [False, True])
def test_i6_sequence(cluster, input_grad):
    """C71: the ranks' parts of dim 0, gathered and scattered again."""
    x = rand(8, 10, requires_grad=input_grad)
    with parallelized(cluster, MLPModule(), MESH,
                      sp.PairwiseSequenceParallel(), cuts=MLP_CUTS,
                      x=x) as case:
        expected = case.check_forward(x)
        for (own,), piece in zip(case.m.output_shards(),
                                 chunk(expected, 0, 4)):
            assert_close(own, piece)
        case.check_backward(x)
        assert_counts(
            case.m, forward={"all_gather": 1, "reduce_scatter": 1},
            backward={"all_gather": 1} | (
                {"reduce_scatter": 1} if input_grad else {}))
        case.check_step(x)
        assert_bytes(case.m, forward=2 * 8 * 10 * 8)


def test_i6_a_dim_of_your_own(cluster):
    x = rand(3, 8, 8)
    with parallelized(cluster, Projections(), MESH,
                      sp.PairwiseSequenceParallel(sequence_dim=1), x=x,
                      cuts=cut("qkv", "o")) as case:
        case.check_all(x)
        assert_counts(case.m,
                      forward={"all_gather": 1, "reduce_scatter": 1})


# ---------------------------------------------------- inputs and outputs


@pytest.mark.parametrize("prepare, forward", [
    (sp.make_input_replicate_1d, {}),
    (sp.make_input_reshard_replicate, {"all_gather": 1}),
    (sp.make_input_shard_1d, {"all_gather": 1}),
    (functools.partial(sp.make_input_shard_1d, dim=1), {"all_gather": 1}),
    (sp.make_input_shard_1d_last_dim, {"all_gather": 1})])
@pytest.mark.parametrize("ranks", [2, 4])
def test_i7_inputs(cluster, prepare, forward, ranks):
    x = rand(8, 10, requires_grad=True)  # 10 on 4 ranks: 3, 3, 3, 1
    with parallelized(cluster, MLPModule(), {"tp": ranks},
                      sp.PairwiseParallel(prepare), cuts=MLP_CUTS,
                      x=x) as case:
        case.check_backward(x)
        assert_counts(case.m, forward={"all_reduce": 1, **forward},
                      backward={"reduce_scatter": 1} if forward else
                      {"all_reduce": 1})
        case.check_step(x)


@pytest.mark.parametrize("prepare, dim, forward", [
    (sp.make_output_replicate_1d, None, {"all_reduce": 1}),
    (sp.make_output_tensor, None, {"all_reduce": 1}),
    (sp.make_output_reshard_tensor, 0, {"reduce_scatter": 1}),
    (sp.make_output_shard_1d, 0, {"reduce_scatter": 1}),
    (functools.partial(sp.make_output_shard_1d, dim=1), 1,
     {"reduce_scatter": 1})])
@pytest.mark.parametrize("ranks", [2, 4])
def test_i8_outputs(cluster, prepare, dim, forward, ranks):
    x = rand(8, 10)
    with parallelized(cluster, MLPModule(), {"tp": ranks},
                      sp.PairwiseParallel(None, prepare), cuts=MLP_CUTS,
                      x=x) as case:
        expected = case.check_forward(x)
        assert_counts(case.m, forward=forward)
        pieces = ([expected] * ranks if dim is None else
                  chunk(expected, dim, ranks))
        for (own,), piece in zip(case.m.output_shards(), pieces):
            assert_close(own, piece)
        case.check_step(x)


def test_i8_an_output_as_it_is_made(cluster):
    """A colwise one stays cut, a rowwise one is a sum that no one makes."""
    x = rand(8, 10)
    plan = {"net1": sp.ColwiseParallel(
        None, sp.make_sharded_output_tensor)}
    with parallelized(cluster, MLPModule(), MESH, plan, x=x,
                      cuts={"net1.weight": 0, "net1.bias": 0}) as case:
        case.check_all(x)
    style = sp.PairwiseParallel(_prepare_output=sp.make_sharded_output_tensor)
    with parallelized(cluster, MLPModule(), MESH, style, cuts=MLP_CUTS,
                      x=x) as case:
        case.check_forward(x)
        assert_counts(case.m, forward={})
        case.check_step(x)


def test_i7_i8_old_keywords_of_the_styles_of_today(cluster):
    x = rand(8, 10)
    plan = {"net1": sp.ColwiseParallel(
                _prepare_input=sp.make_input_shard_1d),
            "net2": sp.RowwiseParallel(
                sp.make_input_shard_1d_last_dim,
                _prepare_output=sp.make_output_reshard_tensor)}
    with parallelized(cluster, MLPModule(), MESH, plan, cuts=MLP_CUTS,
                      x=x) as case:
        case.check_all(x)
        assert_counts(case.m, forward={"all_gather": 1, "reduce_scatter": 1})


def test_i9_mesh_and_layouts_are_checked(cluster):
    with pytest.raises(sp.InvalidArgumentError, match="device mesh"):
        cluster.parallelize_module(MLPModule(), plan=PAIRS)
    with pytest.raises(sp.InvalidArgumentError, match='named "tp"'):
        cluster.parallelize_module(MLPModule(), {"a": 2, "b": 2}, PAIRS)
    style = sp.PairwiseParallel(sp.make_input_shard_1d(dim=2))
    with pytest.raises(sp.InvalidArgumentError,
                       match=r"net1: .*input 0 as S\(2\)"):
        cluster.parallelize_module(MLPModule(), MESH, style,
                                   example_inputs=(rand(8, 10),))
    assert cluster.deployments() == []


def test_i9_a_mesh_of_two_dims_is_no_error(cluster):
    x = rand(8, 10)
    with parallelized(cluster, MLPModule(), {"dp": 2, "tp": 2}, PAIRS, x=x,
                      data_parallel="replicate") as case:
        case.check_forward(x)
        case.m.step(x, loss="sum", optimizer=sp.SGD(lr=0.1))
        assert_counts(case.m, forward={"all_reduce": 1})
    with parallelized(cluster, MLPModule(), {"a": 2, "b": 2},
                      sp.PairwiseParallel(mesh_dim="b"), x=x) as case:
        case.check_forward(x)


def test_i10_positional_layouts(cluster):
    plan = {"": [sp.PrepareModuleInput(sp.Shard(0)),
                 sp.PrepareModuleOutput(sp.Replicate())],
            "net1": ColwiseParallel(), "net2": RowwiseParallel()}
    x = rand(8, 10)
    with parallelized(cluster, MLPModule(), MESH, plan, cuts=MLP_CUTS,
                      x=x) as case:
        case.check_all(x)
        assert_counts(case.m, forward={"all_gather": 1, "all_reduce": 1})


# -------------------------------------------------------------- the plan


def test_before_the_first_call_it_is_the_order_of_registration(cluster):
    """Nothing says what a torch module calls until it is exported; what is
    paired otherwise than it is called gives the same results."""
    x = rand(2, 6, 8)
    with parallelized(cluster, Projections(), MESH, PAIRS,
                      cuts=cut("qv", "ko")) as case:
        (said,) = pairs_of(case.m.report).values()
        assert "q (colwise) -> k (rowwise); v (colwise) -> o (rowwise)" in said
        assert "order of registration" in said
        case.check_forward(x)
        case.check_step(x)


def test_another_style_for_a_pair_is_a_conflict(cluster):
    with pytest.raises(sp.InvalidArgumentError, match="net2") as raised:
        cluster.parallelize_module(
            MLPModule(), MESH, {"": PAIRS, "net2": ColwiseParallel()})
    assert raised.value.reason == "STYLE_CONFLICT"


def test_what_is_paired_is_explained(cluster):
    with cluster.parallelize_module(
            MLPStacked(), MESH, {"layers.*": PAIRS},
            example_inputs=(rand(8, 10),)) as m:
        text = str(m.report.explain("layers.1.net2"))
        assert "RowwiseParallel(S(-1) -> R)" in text and "layers.*" in text


def test_nothing_warns_that_need_not(cluster):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        cluster.parallelize_module(
            MLPModule(), MESH, PAIRS, example_inputs=(rand(8, 10),),
            validate_only=True)


# ------------------------------------------------------ data parallelism


def train_on_both(cluster, module):
    x = rand(8, 10)
    with parallelized(cluster, module, {"dp": 2, "tp": 2}, PAIRS, x=x) as case:
        case.check_forward(x)
        case.m.step(x, loss="sum", optimizer=sp.SGD(lr=0.1))
        return (case.m.report.placements["net1.weight"],
                dict(case.m.comm_counts()["backward"]))


def test_old_scripts_get_what_corresponds(cluster):
    assert train_on_both(cluster, MLPModule())[0] == "[R, S(0)]"
    module = MLPModule()
    with pytest.warns(UserWarning):
        sp.pre_dp_module_transform(module)
    placed, backward = train_on_both(cluster, module)
    assert placed == "[R, S(0)]" and backward.keys() == {"all_reduce"}
    try:
        with pytest.warns(UserWarning):
            assert sp.enable_2d_with_fsdp()
        placed, backward = train_on_both(cluster, MLPModule())
    finally:
        sp.enable_2d_with_fsdp(False)
    assert placed == "[S(0)#2, S(0)#1]" and "reduce_scatter" in backward


def test_a_deployment_is_said_to_stay_as_it_is(cluster):
    with cluster.parallelize_module(MLPModule(), MESH, PAIRS,
                                    example_inputs=(rand(8, 10),)) as m:
        with pytest.warns(UserWarning, match="stays as it was made"):
            assert sp.pre_dp_module_transform(m) is m
