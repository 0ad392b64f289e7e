"""Cross-entropy over logits that lie cut, by the numbers of section F of
behaviour.md. No context is needed, and none does harm."""

import itertools

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, loss_parallel)
from torch.nn import functional as F

import shardplane as sp
from tests.models import rand
from tests.parity import (
    EXACT, assert_at_most, assert_bytes, assert_close, assert_counts,
    check_gradients, parallelized)

F64 = 8
DIM, BATCH, LENGTH = 6, 7, 5
CUT = {"lin": ColwiseParallel()}
CUTS = {"lin.weight": 0, "lin.bias": 0}


class Head(nn.Module):
    """x [..., DIM] -> logits, classes in dim 1: (N, C), (N, C, d1) or (C)."""

    def __init__(self, classes=10, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(5)
        self.lin = nn.Linear(DIM, classes, dtype=dtype)

    def forward(self, x):
        logits = self.lin(x)
        return logits.transpose(1, 2) if logits.dim() == 3 else logits


def by_batch(dim):
    return {"": PrepareModuleInput(input_layouts=Shard(dim),
                                   desired_input_layouts=Shard(dim))}


# How the logits lie: plan, which parameters are cut.
LAYOUTS = {
    "vocabulary": (CUT, CUTS),
    "gathered": ({"lin": ColwiseParallel(output_layouts=Replicate())}, CUTS),
    "whole": ({}, {}),
    "batch": (by_batch(0), {}),
    "sequence": (by_batch(1), {}),
}
SHAPES = {"n_c": (BATCH,), "n_c_d": (BATCH, LENGTH), "c": ()}
IGNORED = 1
OPTIONS = {
    "plain": {},
    "weight": {"weight": True},
    "ignore": {"ignore_index": IGNORED},
    "smoothing": {"label_smoothing": 0.2},
    "all": {"weight": True, "ignore_index": IGNORED, "label_smoothing": 0.2},
}
REDUCTIONS = ["none", "mean", "sum"]


def make_loss(reduction, classes, rows_shape, weight=False, **options):
    """Of (logits, target); closes over what it needs."""
    if weight:
        options["weight"] = rand(classes, seed=7) + 0.5
    rows = rand(*rows_shape, seed=8)

    def loss(logits, target):
        value = F.cross_entropy(logits, target, reduction=reduction,
                                **options)
        return (value * rows).sum() if reduction == "none" else value

    return loss


def class_targets(rows_shape, classes, seed=1):
    """Some of them ignored where that class is."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(classes, rows_shape, generator=generator)


def probability_targets(rows_shape, classes):
    values = rand(*rows_shape, classes, seed=9)
    values = values / values.sum(-1, keepdim=True)
    return values.transpose(1, 2) if len(rows_shape) == 2 else values


def cases(reductions=REDUCTIONS, options=OPTIONS):
    return [(r, o) for r, o in itertools.product(reductions, options)]


def check_losses(case, x, target, classes, combinations):
    """Loss and gradients of each; `x` need not require a gradient."""
    rows_shape = x.shape[:-1]
    for reduction, name in combinations:
        loss = make_loss(reduction, classes, rows_shape, **OPTIONS[name])
        what = f"{reduction} {name}"
        case.reference.zero_grad()
        twin = x.detach().clone().requires_grad_(x.requires_grad)
        expected = loss(case.reference(twin), target)
        expected.backward()
        actual = case.m.forward_backward(x, targets=target, loss=loss)
        assert actual.dim() == 0
        assert_close(actual, expected, what)
        check_gradients(case.m, case.reference)
        if x.requires_grad:
            assert_close(case.m.input_gradients()[0], twin.grad, what)
        yield what


def check_vocabulary_cut(m, rows, backward=None):
    """Three all-reduces at the most, of six numbers a row together: fewer
    than there are logits."""
    assert_at_most(m, forward={"all_reduce": 3}, backward=backward or {})
    assert_bytes(m, forward=6 * rows * F64,
                 backward=rows * DIM * F64 if backward else 0)


def check_cut(cluster, shape, classes, ranks, combinations, target=None,
              requires_grad=False):
    rows_shape = SHAPES[shape]
    x = rand(*rows_shape, DIM, requires_grad=requires_grad)
    if target is None:
        target = class_targets(rows_shape, classes)
    with parallelized(cluster, Head(classes), {"tp": ranks}, CUT, cuts=CUTS,
                      x=x) as case:
        case.check_start()
        for _ in check_losses(case, x, target, classes, combinations):
            check_vocabulary_cut(
                case.m, x[..., 0].numel(),
                {"all_reduce": 1} if requires_grad and ranks > 1 else {})


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", ["n_c", "n_c_d"])
def test_f1_f4_vocabulary_cut(cluster, shape, reduction):
    """10 classes on 4 ranks are 3, 3, 3 and 1."""
    check_cut(cluster, shape, 10, 4, cases([reduction]))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", ["n_c", "n_c_d"])
def test_f6_probability_targets(cluster, shape, reduction):
    check_cut(cluster, shape, 10, 4,
              cases([reduction], ["plain", "weight", "smoothing"]),
              probability_targets(SHAPES[shape], 10))


@pytest.mark.parametrize("ranks, classes", [(1, 10), (2, 10), (3, 10),
                                            (4, 3), (4, 2)])
@pytest.mark.parametrize("probabilities", [False, True],
                         ids=["indices", "probabilities"])
def test_f4_uneven_vocabulary(cluster, ranks, classes, probabilities):
    """3 classes on 4 ranks: one has none."""
    options = ["plain", "smoothing", "weight"]
    target = probability_targets((BATCH,), classes) if probabilities else None
    check_cut(cluster, "n_c", classes, ranks, cases(["mean"], options),
              target)


def test_f4_one_class(cluster):
    """Every loss is 0. A dim of one element may be gathered: that is less."""
    x, target = rand(BATCH, DIM), class_targets((BATCH,), 1)
    with parallelized(cluster, Head(1), {"tp": 4}, CUT, cuts=CUTS,
                      x=x) as case:
        case.check_start()
        for _ in check_losses(case, x, target, 1, cases(["mean"])):
            assert_bytes(case.m, forward=6 * BATCH * F64,
                         backward=6 * BATCH * F64)


def test_f3_one_row_without_a_batch(cluster):
    check_cut(cluster, "c", 10, 4,
              cases(["mean", "sum"], ["plain", "weight", "smoothing"]))


@pytest.mark.parametrize("shape", SHAPES)
def test_f2_backward_of_the_loss_moves_nothing(cluster, shape):
    """All that travels backward is the gradient of the linear's input."""
    check_cut(cluster, shape, 10, 4, cases(["mean"], ["plain", "weight"]),
              requires_grad=True)


# F5 and F9: PyTorch refuses these under loss_parallel.
OTHER_LAYOUTS = [("gathered", "n_c"), ("whole", "n_c"), ("batch", "n_c"),
                 ("gathered", "n_c_d"), ("batch", "n_c_d"),
                 ("sequence", "n_c_d")]


@pytest.mark.parametrize("layout, shape", OTHER_LAYOUTS)
@pytest.mark.parametrize("probabilities", [False, True],
                         ids=["indices", "probabilities"])
def test_f5_logits_that_lie_otherwise(cluster, layout, shape, probabilities):
    plan, cuts = LAYOUTS[layout]
    x = rand(*SHAPES[shape], DIM)
    rows = x[..., 0].numel()
    target = (probability_targets if probabilities else class_targets)(
        SHAPES[shape], 10)
    names = ["plain", "weight"] if probabilities else ["plain", "all"]
    with parallelized(cluster, Head(), {"tp": 4}, plan, cuts=cuts,
                      x=x) as case:
        case.check_start()
        for _ in check_losses(case, x, target, 10, cases(options=names)):
            if cuts:
                assert_counts(case.m, forward={"all_gather": 1}, backward={})
                assert_bytes(case.m, forward=rows * 12 * F64)
            elif layout == "whole":
                assert_counts(case.m, forward={}, backward={})
            else:  # sums and counts; then the linear's two gradients
                assert_at_most(case.m, forward={"all_reduce": 2},
                               backward={"all_reduce": 1})
                assert_bytes(case.m, forward=4 * F64,
                             backward=(DIM + 1) * 10 * F64)


def test_f10_flattened_logits(cluster):
    """As language models write it: (N, d1, C) flattened to (N d1, C)."""
    class Flat(Head):
        def forward(self, x):
            return self.lin(x)

    def loss(logits, target):
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    x, target = rand(BATCH, LENGTH, DIM), class_targets((BATCH, LENGTH), 10)
    rows = BATCH * LENGTH
    for plan, cuts, moved in ((CUT, CUTS, 6 * rows),
                              (by_batch(0), {}, 12 * 8 * LENGTH),
                              (by_batch(1), {}, 12 * 8 * BATCH)):
        with parallelized(cluster, Flat(), {"tp": 4}, plan, cuts=cuts,
                          x=x) as case:
            expected = loss(case.reference(x), target)
            expected.backward()
            assert_close(case.m.forward_backward(x, targets=target,
                                                 loss=loss), expected)
            check_gradients(case.m, case.reference)
            assert_bytes(case.m, forward=moved * F64,
                         backward=(moved + 70) * F64)


def test_f4_bf16(cluster):
    """As near to the truth as PyTorch's own, but for a rounding."""
    module = Head(dtype=torch.bfloat16)
    x = rand(BATCH, DIM, dtype=torch.bfloat16)
    target = class_targets((BATCH,), 10)
    with parallelized(cluster, module, {"tp": 4}, CUT, cuts=CUTS,
                      x=x) as case:
        case.check_start()
        loss = case.m.forward_backward(
            x, targets=target, loss=lambda y, t: F.cross_entropy(y, t))
        assert loss.dtype == torch.bfloat16
        logits = case.reference(x)
        own = F.cross_entropy(logits, target)
        own.backward()
        truth = F.cross_entropy(logits.double(), target)
        rounding = 2.0 ** -8
        assert abs(loss.double() - truth) <= (
            abs(own.double() - truth) + rounding * abs(truth))
        for name, gradient in case.m.gradients().items():
            expected = case.reference.get_parameter(name).grad
            torch.testing.assert_close(
                gradient, expected, rtol=2 * rounding,
                atol=2 * rounding * expected.abs().max().item())
        assert_at_most(case.m, forward={"all_reduce": 3}, backward={})
        assert_bytes(case.m, forward=6 * BATCH * 4)


@pytest.mark.parametrize("layout", ["vocabulary", "whole"])
def test_f7_with_or_without_the_context(cluster, layout):
    """PyTorch's context is for its own DTensors: here it changes nothing."""
    plan, cuts = LAYOUTS[layout]
    x, target = rand(BATCH, DIM), class_targets((BATCH,), 10)
    with parallelized(cluster, Head(), {"tp": 4}, plan, cuts=cuts,
                      x=x) as case:
        loss = make_loss("mean", 10, (BATCH,))
        outside = case.m.forward_backward(x, targets=target, loss=loss)
        with loss_parallel():
            inside = case.m.forward_backward(
                x, targets=target, loss=make_loss("mean", 10, (BATCH,)))
        assert_close(outside, loss(case.reference(x), target))
        assert torch.equal(inside, outside)
        case.check_start()
        assert_bytes(case.m, forward=6 * BATCH * F64, backward=0)


def test_f7_fine_again_after_an_error(cluster):
    """PyTorch's context stays in force once something has failed in it."""
    x, target = rand(BATCH, DIM), class_targets((BATCH,), 10)

    def failing(logits, target):
        raise RuntimeError("out of patience")

    with parallelized(cluster, Head(), {"tp": 4}, CUT, cuts=CUTS,
                      x=x) as case:
        loss = make_loss("mean", 10, (BATCH,))
        first = case.m.forward_backward(x, targets=target, loss=loss)
        with pytest.raises(sp.InvalidArgumentError, match="out of patience"):
            case.m.forward_backward(x, targets=target, loss=failing)
        with pytest.raises(sp.InvalidArgumentError):  # one row too few
            case.m.forward_backward(x, targets=target[1:], loss=loss)
        again = case.m.forward_backward(x, targets=target, loss=loss)
        assert torch.equal(first, again)
        assert case.m.last_step == 2
        case.check_start()
        assert_at_most(case.m, forward={"all_reduce": 3}, backward={})


@pytest.mark.parametrize("layout", ["vocabulary", "gathered", "whole",
                                    "batch"])
@pytest.mark.parametrize("bad", [10, 1000, -1])
def test_f8_a_target_that_is_no_class(cluster, layout, bad):
    """PyTorch's loss_parallel takes it and gives a wrong loss."""
    plan, cuts = LAYOUTS[layout]
    x, target = rand(BATCH, DIM), class_targets((BATCH,), 10)
    wrong = target.clone()
    wrong[BATCH - 1] = bad
    loss = make_loss("mean", 10, (BATCH,))
    with parallelized(cluster, Head(), {"tp": 4}, plan, cuts=cuts,
                      x=x) as case:
        case.m.step(x, targets=target, loss=loss, optimizer=sp.SGD(lr=0.0))
        with pytest.raises(sp.InvalidArgumentError) as raised:
            case.m.step(x, targets=wrong, loss=loss,
                        optimizer=sp.SGD(lr=0.1))
        assert str(bad) in raised.value.message
        assert raised.value.reason == "INDEX_OUT_OF_RANGE"
        assert case.m.last_step == 1
        case.check_start()
        case.m.step(x, targets=target, loss=loss, optimizer=sp.SGD(lr=0.0))
        assert case.m.last_step == 2
        assert_bytes(case.m, forward=12 * BATCH * F64)


@pytest.mark.parametrize("layout", ["vocabulary", "whole", "batch"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_f8_all_targets_ignored(cluster, layout, reduction):
    """The mean of nothing is nan, and so are its gradients: as unsharded."""
    plan, cuts = LAYOUTS[layout]
    x = rand(BATCH, DIM)
    target = torch.full((BATCH,), -100)
    loss = make_loss(reduction, 10, (BATCH,))
    with parallelized(cluster, Head(), {"tp": 4}, plan, cuts=cuts,
                      x=x) as case:
        case.check_start()
        expected = loss(case.reference(x), target)
        expected.backward()
        actual = case.m.forward_backward(x, targets=target, loss=loss)
        assert expected.isnan() == (reduction == "mean")
        gradients = case.m.gradients()
        for value, own in [(actual, expected.detach()), *(
                (gradients[name], p.grad) for name, p
                in case.reference.named_parameters())]:
            torch.testing.assert_close(value, own, rtol=EXACT, atol=EXACT,
                                       equal_nan=True)
        assert_bytes(case.m, forward=6 * BATCH * F64,
                     backward=(DIM + 1) * 10 * F64)


def test_large_logits_do_not_overflow(cluster):
    """The row maximum is taken off first, over all ranks."""
    module = Head()
    with torch.no_grad():
        module.lin.weight.mul_(1e4)
    x, target = rand(BATCH, DIM), class_targets((BATCH,), 10)
    with parallelized(cluster, module, {"tp": 4}, CUT, cuts=CUTS,
                      x=x) as case:
        case.check_start()
        for what in check_losses(case, x, target, 10,
                                 cases(["mean"], ["plain", "smoothing"])):
            assert case.reference.lin.weight.grad.isfinite().all(), what


class WithLoss(Head):
    """A module that gives its loss itself."""

    def forward(self, x, target):
        return F.cross_entropy(self.lin(x), target, label_smoothing=0.1)


def test_loss_within_the_module(cluster):
    x, target = rand(BATCH, DIM), class_targets((BATCH,), 10)
    module = WithLoss()
    with cluster.parallelize_module(module, {"tp": 4}, CUT) as m:
        expected = module(x, target)
        expected.backward()
        assert_close(m(x, target), expected)
        assert_close(m.forward_backward(x, target, loss="sum"), expected)
        check_gradients(m, module)
        check_vocabulary_cut(m, BATCH)


def test_log_softmax_and_nll_loss(cluster):
    """Two calls instead of one: right, if not as cheap."""
    def loss(logits, target):
        return F.nll_loss(F.log_softmax(logits, dim=1), target)

    x, target = rand(BATCH, DIM), class_targets((BATCH,), 10)
    with parallelized(cluster, Head(), {"tp": 4}, CUT, cuts=CUTS,
                      x=x) as case:
        case.check_start()
        expected = loss(case.reference(x), target)
        expected.backward()
        assert_close(case.m.forward_backward(x, targets=target, loss=loss),
                     expected)
        check_gradients(case.m, case.reference)
        assert_bytes(case.m, forward=BATCH * 12 * F64,
                     backward=BATCH * 12 * F64)
