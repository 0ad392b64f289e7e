"""Embeddings cut by column and by vocabulary, by the numbers of section C of
behaviour.md."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, RowwiseParallel)
from torch.nn import functional as F

import shardplane as sp
from tests.models import linear, tokens
from tests.parity import (
    assert_at_most, assert_bytes, assert_close, assert_counts,
    check_parameters, chunk, parallelized)

F64, I64 = 8, 8
DIM = 16
COLWISE = ColwiseParallel()
ROWWISE = RowwiseParallel(input_layouts=Replicate())
STYLES = {"whole": ({}, {}), "colwise": (COLWISE, {"weight": 1}),
          "rowwise": (ROWWISE, {"weight": 0})}

all_styles = pytest.mark.parametrize("style", STYLES)


def embedding(rows=12, dim=DIM, **options):
    torch.manual_seed(5)
    return nn.Embedding(rows, dim, dtype=torch.float64, **options)


def padded(size, ranks):
    return -(-size // ranks) * ranks


@pytest.mark.parametrize("rows", [5, 10, 12])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@all_styles
def test_every_size(cluster, style, ranks, rows):
    """C11, C27, C29; 5 rows on 4 ranks are 2, 2, 1 and none, 16 columns on 3
    ranks 6, 6, 4."""
    plan, cuts = STYLES[style]
    x = tokens(3, 7, rows)
    with parallelized(cluster, embedding(rows), {"tp": ranks}, plan,
                      cuts=cuts, x=x) as case:
        case.check_start()
        expected = case.check_forward(x)
        if style == "colwise":
            for (shard,), piece in zip(case.m.output_shards(),
                                       chunk(expected, -1, ranks)):
                assert_close(shard, piece)
        reduces = style == "rowwise" and ranks > 1
        forward = {"all_reduce": 1} if reduces else {}
        assert_counts(case.m, forward=forward)
        case.check_step(x)
        assert_counts(case.m, forward=forward, backward={}, optimizer={})
        assert_bytes(case.m, backward=0, optimizer=0,
                     forward=3 * 7 * DIM * F64 if reduces else 0)


@pytest.mark.parametrize("shape", [(), (1,), (9,), (2, 3, 2)],
                         ids=lambda shape: f"{len(shape)}d_{shape}")
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("style", ["colwise", "rowwise"])
def test_ids_of_any_shape(cluster, style, dtype, shape):
    plan, cuts = STYLES[style]
    x = torch.arange(36)[:torch.Size(shape).numel()].view(shape) % 12
    x = x.to(dtype)
    with parallelized(cluster, embedding(), {"tp": 4}, plan, cuts=cuts,
                      x=x) as case:
        case.check_forward(x)
        case.check_step(x)
        assert_bytes(case.m, backward=0, forward=x.numel() * DIM * F64)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_c27_output_cut(cluster, dim):
    x = tokens(1, 8, 12)[0]
    style = RowwiseParallel(input_layouts=Replicate(),
                            output_layouts=Shard(dim))
    with parallelized(cluster, embedding(), {"tp": 4}, style,
                      cuts={"weight": 0}, x=x) as case:
        case.check_start()
        expected = case.check_forward(x)
        for (shard,), piece in zip(case.m.output_shards(),
                                   chunk(expected, dim, 4)):
            assert_close(shard, piece)
        case.check_step(x)
        assert_counts(case.m, forward={"reduce_scatter": 1},
                      backward={"all_gather": 1}, optimizer={})
        assert_bytes(case.m, forward=8 * DIM * F64, backward=8 * DIM * F64)


def test_c9_columns_gathered(cluster):
    x = tokens(3, 7, 12)
    with parallelized(cluster, embedding(), {"tp": 4},
                      ColwiseParallel(output_layouts=Replicate()),
                      cuts={"weight": 1}, x=x) as case:
        case.check_start()
        case.check_forward(x)
        case.check_step(x)
        assert_counts(case.m, forward={"all_gather": 1}, backward={},
                      optimizer={})
        assert_bytes(case.m, forward=3 * 7 * DIM * F64)


def test_c23_default_input_layout(cluster):
    """PyTorch's default hands the ids out along their last dim and, in a
    process of its own, takes whole ids for a part: the output is longer by
    the number of ranks. Here ids are what they are."""
    x = tokens(3, 7, 12)
    with parallelized(cluster, embedding(), {"tp": 4}, RowwiseParallel(),
                      cuts={"weight": 0}, x=x) as case:
        case.check_start()
        assert case.check_forward(x).shape == (3, 7, DIM)
        case.check_step(x)
        assert_at_most(case.m, forward={"all_gather": 1, "all_reduce": 1},
                       backward={}, optimizer={})
        assert_bytes(case.m, forward=3 * 8 * I64 + 3 * 7 * DIM * F64)


@pytest.mark.parametrize("style", ["colwise", "rowwise"])
@pytest.mark.parametrize("dim", [0, 1])
def test_ids_that_lie_cut(cluster, dim, style):
    _, cuts = STYLES[style]
    cls = ColwiseParallel if style == "colwise" else RowwiseParallel
    x = tokens(3, 7, 10)
    with parallelized(cluster, embedding(10), {"tp": 4},
                      cls(input_layouts=Shard(dim)), cuts=cuts, x=x) as case:
        case.check_start()
        case.check_forward(x)
        case.check_step(x)
        assert_at_most(case.m, forward={"all_gather": 1, "all_reduce": 1},
                       backward={}, optimizer={})
        assert_bytes(case.m, forward=4 * 8 * I64 + 3 * 7 * DIM * F64)


def test_whole_table_and_ids_cut_by_batch(cluster):
    """Each rank looks up its own; the table's gradient is reduced once."""
    x = tokens(6, 7, 10)
    plan = PrepareModuleInput(input_layouts=Shard(0),
                              desired_input_layouts=Shard(0))
    with parallelized(cluster, embedding(10), {"tp": 4}, plan, x=x) as case:
        case.check_start()
        case.check_forward(x)
        case.check_step(x)
        assert_counts(case.m, forward={}, backward={"all_reduce": 1},
                      optimizer={})
        assert_bytes(case.m, backward=10 * DIM * F64)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("bad", [12, 100, -1])
@all_styles
def test_c30_an_id_that_is_none(cluster, style, bad, ranks):
    """PyTorch looks up zeros for it where the vocabulary is cut. It is an
    error wherever it is, and leaves the deployment as it was."""
    plan, cuts = STYLES[style]
    x = tokens(3, 7, 12)
    wrong = x.clone()
    wrong[1, 2] = bad
    with parallelized(cluster, embedding(), {"tp": ranks}, plan, cuts=cuts,
                      x=x) as case:
        for call in (lambda: case.m(wrong),
                     lambda: case.m.step(wrong, loss="sum",
                                         optimizer=sp.SGD(lr=0.1))):
            with pytest.raises(sp.InvalidArgumentError) as raised:
                call()
            assert str(bad) in raised.value.message
            assert "12" in raised.value.message  # how many there are
        assert case.m.last_step == 0
        check_parameters(case.m, case.reference, "after the errors:")
        case.check_step(x)
        assert case.m.last_step == 1


def test_c30_an_id_that_only_one_rank_has(cluster):
    """The others have taken part in the step's collectives, and go on too."""
    x = tokens(8, 7, 12)
    wrong = x.clone()
    wrong[7, 2] = 12
    plan = PrepareModuleInput(input_layouts=Shard(0),
                              desired_input_layouts=Shard(0))
    with parallelized(cluster, embedding(), {"tp": 4}, plan, x=x) as case:
        with pytest.raises(sp.InvalidArgumentError) as raised:
            case.m.step(wrong, loss="sum", optimizer=sp.SGD(lr=0.1))
        assert "12" in raised.value.message
        case.check_start()
        case.check_step(x)
        assert case.m.last_step == 1
        assert_bytes(case.m, backward=12 * DIM * F64)


@pytest.mark.parametrize("padding_idx", [0, 7, -1])
@all_styles
def test_c31_padding_idx(cluster, style, padding_idx):
    """Its row is looked up as any other, and gets no gradient."""
    plan, cuts = STYLES[style]
    module = embedding(padding_idx=padding_idx)
    with torch.no_grad():
        module.weight[padding_idx] = 3.0
    x = torch.arange(24).view(2, 12) % 12
    with parallelized(cluster, module, {"tp": 4}, plan, cuts=cuts,
                      x=x) as case:
        case.check_start()
        case.check_forward(x)
        case.check_step(x)
        assert not case.m.gradients()["weight"][padding_idx].any()
        assert_bytes(case.m, backward=0, forward=24 * DIM * F64)


@pytest.mark.parametrize("options, word", [
    ({"max_norm": 1.0}, "changes a parameter"),
    ({"sparse": True}, "sparse"),
    ({"scale_grad_by_freq": True}, "scale_grad_by_freq")],
    ids=["max_norm", "sparse", "scale_grad_by_freq"])
@all_styles
def test_c31_options_that_are_refused(cluster, style, options, word):
    """As soon as it is planned, and not at its first backward."""
    plan, _ = STYLES[style]
    with pytest.raises(sp.UnimplementedError) as raised:
        cluster.parallelize_module(
            embedding(**options), {"tp": 4}, plan,
            example_inputs=(tokens(3, 7, 12),), loss="sum")
    assert word in raised.value.message
    assert cluster.deployments() == []


def test_frozen(cluster):
    x = tokens(3, 7, 12)
    module = nn.Sequential(embedding(), linear(DIM, DIM))
    module[0].requires_grad_(False)
    plan = {"0": ROWWISE, "1": ColwiseParallel()}
    cuts = {"0.weight": 0, "1.weight": 0, "1.bias": 0}
    with parallelized(cluster, module, {"tp": 4}, plan, cuts=cuts,
                      x=x) as case:
        case.check_all(x)
        assert set(case.m.gradients()) == {"1.weight", "1.bias"}
        assert_counts(case.m, forward={"all_reduce": 1}, backward={})
        assert_bytes(case.m, forward=3 * 7 * DIM * F64)


class Tied(nn.Module):
    """One weight looks tokens up, and gives the logits."""

    def __init__(self, rows=10):
        super().__init__()
        self.tok = embedding(rows)
        self.out = nn.Linear(DIM, rows, bias=False, dtype=torch.float64)
        self.out.weight = self.tok.weight

    def forward(self, x):
        return self.out(torch.tanh(self.tok(x)))


# Rows of the table are the outputs of the linear: cut alike, they agree.
PAIRS = {
    "rows": (ROWWISE, ColwiseParallel(), 0, 0),
    "columns": (COLWISE, RowwiseParallel(), 1, 0),
    "rows_and_columns": (ROWWISE, RowwiseParallel(), 0, 1),
    "columns_and_rows": (COLWISE, ColwiseParallel(), 1, 1),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_tied_weights_stay_tied(cluster, ranks, pair):
    """N7: PyTorch unties them without a word. Where two styles disagree, the
    first says how the weight lies, and a note tells."""
    tok, out, dim, notes = PAIRS[pair]
    x = tokens(3, 7, 10)
    with parallelized(cluster, Tied(), {"tp": ranks},
                      {"tok": tok, "out": out}, cuts={"tok.weight": dim},
                      x=x) as case:
        case.check_start()
        case.check_forward(x)
        case.check_step(x)
        case.check_step(x)
        assert sum("tok.weight" in note.message or
                   "out.weight" in note.message
                   for note in case.m.report.notes) == notes
        state = case.m.state_dict()
        assert torch.equal(state["tok.weight"], state["out.weight"])
        gradients = case.m.gradients()
        assert torch.equal(gradients["tok.weight"], gradients["out.weight"])
        rows = 3 * 7 * (DIM + 2) * F64 + 3 * 7 * padded(10, ranks) * F64
        weight = padded(10, ranks) * padded(DIM, ranks) * F64
        assert_bytes(case.m, forward=rows + notes * weight,
                     backward=2 * rows + notes * weight)


@pytest.mark.parametrize("rows", [10, 3])
def test_language_model_head(cluster, rows):
    """Vocabulary cut at both ends, three small all-reduces for the loss."""
    x, target = tokens(3, 7, rows), tokens(3, 7, rows, seed=1)

    def loss(logits, target):
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    with parallelized(cluster, Tied(rows), {"tp": 4},
                      {"tok": ROWWISE, "out": ColwiseParallel()},
                      cuts={"tok.weight": 0}, x=x) as case:
        case.check_start()
        case.check_adam_steps(x, target, loss)
        assert_at_most(case.m, forward={"all_reduce": 4},
                       backward={"all_reduce": 1}, optimizer={})
        assert_bytes(case.m, forward=3 * 7 * (DIM + 6) * F64,
                     backward=3 * 7 * DIM * F64)
