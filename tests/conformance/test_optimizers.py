"""Updates of a sharded module against torch.optim, to rounding."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.models import MLPModule, rand
from tests.parity import (
    EXACT, assert_close, assert_counts, check_gradients, check_parameters,
    parallelized)

WORKERS = pytest.mark.parametrize("workers", [1, 2, 4])
STEPS = 5
PAIR = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
PAIR_CUTS = {"net1.weight": 0, "net1.bias": 0, "net2.weight": 1}
TARGET = rand(6, 10, seed=99)


def mean_square(output, target):
    return (output - target).pow(2).mean()


class NormedMLP(MLPModule):
    """Uneven: on 4 ranks 2, 2, 1 and no rows; with a parameter that nothing
    cuts, and one without use."""

    def __init__(self):
        super().__init__(hidden=5)
        self.scale = nn.Parameter(rand(10, seed=7) + 0.5)
        self.unused = nn.Parameter(rand(3))

    def forward(self, x):
        return super().forward(x) * self.scale


class TiedMLP(nn.Module):
    """One weight under two names, and biases of their own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Linear(10, 10, dtype=torch.float64)
        self.second = nn.Linear(10, 10, dtype=torch.float64)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def torch_optimizer(name, module, keywords, groups=()):
    """`groups`: (names that are meant, keywords), the first counts."""
    rest = dict(module.named_parameters())
    sets = []
    for names, overrides in groups:
        sets.append({"params": [rest.pop(name) for name in list(rest)
                                if name in names], **overrides})
    sets.append({"params": list(rest.values())})
    return getattr(torch.optim, name)(sets, **keywords)


def check_step(case, torch_update, optimizer, seed, clip_norm=None):
    """One step of both; True where the norm was above `clip_norm`."""
    x = rand(6, 10, seed=seed)
    torch_update.zero_grad()
    expected = mean_square(case.reference(x), TARGET)
    expected.backward()
    actual = case.m.step(x, targets=TARGET, loss=mean_square,
                         optimizer=optimizer, clip_norm=clip_norm)
    assert_close(actual, expected, "loss")
    check_gradients(case.m, case.reference)  # before clipping
    norm = None
    if clip_norm is None:
        assert case.m.gradient_norm is None
    else:
        norm = nn.utils.clip_grad_norm_(
            case.reference.parameters(), clip_norm)
        assert case.m.gradient_norm == pytest.approx(norm.item(), rel=EXACT)
    torch_update.step()
    return norm is not None and norm.item() > clip_norm


OPTIMIZERS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True,
             "weight_decay": 0.1, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.5, 0.75), "eps": 1e-3}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "betas": (0.9, 0.5), "amsgrad": True}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "betas": (0.9, 0.5),
               "amsgrad": True, "maximize": True}),
]


def _name(value):
    return "_".join(value) if isinstance(value, dict) else str(value)


@WORKERS
@pytest.mark.parametrize("name, keywords", OPTIMIZERS, ids=_name)
def test_updates_like_torch(cluster, workers, name, keywords):
    with parallelized(cluster, NormedMLP(), {"tp": workers}, PAIR,
                      cuts=PAIR_CUTS, x=rand(6, 10)) as case:
        torch_update = torch_optimizer(name, case.reference, keywords)
        for step in range(STEPS):
            check_step(case, torch_update, getattr(sp, name)(**keywords), step)
            assert_counts(case.m, optimizer={})
        check_parameters(case.m, case.reference, f"after {STEPS} steps:")


@WORKERS
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_groups_take_their_own_values(cluster, workers, name):
    keywords = {"lr": 0.05, "weight_decay": 0.2}
    fixed, slow = {"weight_decay": 0.0}, {"lr": 0.01, "weight_decay": 0.4}
    with parallelized(cluster, NormedMLP(), {"tp": workers}, PAIR,
                      cuts=PAIR_CUTS, x=rand(6, 10)) as case:
        torch_update = torch_optimizer(name, case.reference, keywords, [
            (("net1.bias", "net2.bias", "scale"), fixed),
            (("net2.weight",), slow)])
        optimizer = getattr(sp, name)(**keywords, groups={
            ("*.bias", "scale"): fixed, "net2.*": slow})
        for step in range(STEPS):
            check_step(case, torch_update, optimizer, step, clip_norm=0.1)
        check_parameters(case.m, case.reference, f"after {STEPS} steps:")


@WORKERS
@pytest.mark.parametrize("clip_norm", [1e-2, 1e3], ids=["above", "below"])
def test_clipping_by_the_global_norm(cluster, workers, clip_norm):
    with parallelized(cluster, NormedMLP(), {"tp": workers}, PAIR,
                      cuts=PAIR_CUTS, x=rand(6, 10)) as case:
        keywords = {"lr": 0.5, "momentum": 0.5}
        torch_update = torch_optimizer("SGD", case.reference, keywords)
        for step in range(STEPS):
            clipped = check_step(case, torch_update, sp.SGD(**keywords), step,
                                 clip_norm)
            assert clipped == (clip_norm < 1)
            assert_counts(case.m, optimizer={"all_reduce": 1}
                          if workers > 1 else {})
            if workers > 1:
                assert case.m.comm_bytes()["optimizer"]["all_reduce"] == 8
        check_parameters(case.m, case.reference, f"after {STEPS} steps:")


@WORKERS
@pytest.mark.parametrize("clip_norm", [None, 1e-2, 1e3],
                         ids=["unclipped", "above", "below"])
def test_accumulated_micro_batches(cluster, workers, clip_norm):
    with parallelized(cluster, NormedMLP(), {"tp": workers}, PAIR,
                      cuts=PAIR_CUTS, x=rand(6, 10)) as case:
        torch_update = torch_optimizer("AdamW", case.reference, {})
        for step in range(2):
            torch_update.zero_grad()
            for i in range(3):
                x = rand(6, 10, seed=10 * step + i)
                mean_square(case.reference(x), TARGET).backward()
                case.m.forward_backward(x, targets=TARGET, loss=mean_square,
                                        accumulate=i > 0)
                assert case.m.gradient_norm is None
            check_gradients(case.m, case.reference)
            case.m.update(sp.AdamW(), clip_norm=clip_norm)
            check_gradients(case.m, case.reference)
            if clip_norm is not None:
                norm = nn.utils.clip_grad_norm_(case.reference.parameters(),
                                                clip_norm)
                assert case.m.gradient_norm == pytest.approx(norm.item(),
                                                             rel=EXACT)
            torch_update.step()
            assert_counts(case.m, forward={}, backward={}, optimizer={
                "all_reduce": 1} if clip_norm and workers > 1 else {})
        check_parameters(case.m, case.reference, "after two updates:")


@WORKERS
@pytest.mark.parametrize("plan, cuts", [
    ({}, {}),
    ({"*": ColwiseParallel(output_layouts=Replicate())},
     {"first.weight": 0, "first.bias": 0, "second.bias": 0}),
], ids=["whole", "cut"])
def test_tied_and_whole_parameters_count_once(cluster, workers, plan, cuts):
    with parallelized(cluster, TiedMLP(), {"tp": workers}, plan, cuts=cuts,
                      x=rand(6, 10)) as case:
        torch_update = torch_optimizer("Adam", case.reference, {"lr": 0.05})
        for step in range(STEPS):
            assert check_step(case, torch_update, sp.Adam(lr=0.05), step,
                              clip_norm=1e-2)
        check_parameters(case.m, case.reference, f"after {STEPS} steps:")


@pytest.mark.parametrize("poison", [float("inf"), float("nan")])
def test_norm_that_is_not_finite_scales_as_torch_does(cluster, poison):
    """error_if_nonfinite=False: of an infinite norm 0, else NaN."""
    x = rand(6, 10)
    x[2, 3] = poison
    with parallelized(cluster, MLPModule(), {"tp": 2}, PAIR,
                      cuts=PAIR_CUTS, x=x) as case:
        torch_update = torch_optimizer("SGD", case.reference, {"lr": 0.1})
        case.reference(x).sum().backward()
        norm = nn.utils.clip_grad_norm_(case.reference.parameters(), 1.0)
        case.m.step(x, loss="sum", optimizer=sp.SGD(lr=0.1), clip_norm=1.0)
        assert case.m.gradient_norm == pytest.approx(norm.item(), nan_ok=True)
        torch_update.step()
        for name, value in case.m.state_dict().items():
            torch.testing.assert_close(
                value, case.reference.state_dict()[name], equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_low_precision(cluster, dtype, name):
    """Close to float64 from the same parameters and gradients."""
    x = rand(6, 10, dtype=dtype)
    with parallelized(cluster, MLPModule(hidden=17, dtype=dtype), {"tp": 2},
                      PAIR, cuts=PAIR_CUTS, x=x) as case:
        exact = deepcopy(case.reference).double()
        torch_update = torch_optimizer(name, exact, {"lr": 0.05})
        for _ in range(STEPS):
            case.m.step(x, loss="sum", clip_norm=1.0,
                        optimizer=getattr(sp, name)(lr=0.05))
            for fqn, gradient in case.m.gradients().items():
                exact.get_parameter(fqn).grad = gradient.double()
            norm = nn.utils.clip_grad_norm_(exact.parameters(), 1.0)
            assert case.m.gradient_norm == pytest.approx(norm.item(),
                                                         rel=EXACT)
            torch_update.step()
        tolerance = 1e-5 if dtype == torch.float32 else 3e-2
        for fqn, value in case.m.state_dict().items():
            torch.testing.assert_close(
                value.double(), exact.get_parameter(fqn).detach(),
                rtol=tolerance, atol=tolerance)


def test_another_kind_needs_a_reset(cluster):
    x = rand(6, 10)
    with parallelized(cluster, MLPModule(), {"tp": 2}, PAIR, cuts=PAIR_CUTS,
                      x=x) as case:
        case.m.step(x, loss="sum", optimizer=sp.Adam(lr=0.1))
        before = case.m.state_dict()
        for optimizer in sp.SGD(lr=0.1), sp.AdamW():
            with pytest.raises(sp.FailedPreconditionError,
                               match="expected Adam"):
                case.m.step(x, loss="sum", optimizer=optimizer)
            with pytest.raises(sp.FailedPreconditionError,
                               match="expected Adam"):
                case.m.update(optimizer, clip_norm=1.0)
        for name, value in case.m.state_dict().items():
            assert torch.equal(value, before[name])
        assert case.m.last_step == 1
        case.m.step(x, loss="sum", optimizer=sp.Adam(lr=0.2, amsgrad=True))
        case.m.reset_optimizer()
        case.reference.load_state_dict(case.m.state_dict())
        torch_update = torch_optimizer("AdamW", case.reference, {})
        for _ in range(2):  # its state begins anew
            torch_update.zero_grad()
            case.reference(x).sum().backward()
            torch_update.step()
            case.m.step(x, loss="sum", optimizer=sp.AdamW())
        check_parameters(case.m, case.reference, "after the reset:")


def test_bad_values_name_the_field(cluster):
    x = rand(6, 10)
    with parallelized(cluster, MLPModule(), {"tp": 2}, PAIR, cuts=PAIR_CUTS,
                      x=x) as case:
        for clip_norm in 0.0, -1.0, float("nan"):
            with pytest.raises(sp.InvalidArgumentError,
                               match="train.clip_norm"):
                case.m.step(x, loss="sum", optimizer=sp.SGD(lr=0.1),
                            clip_norm=clip_norm)
        with pytest.raises(sp.InvalidArgumentError, match="adam.beta1"):
            case.m.step(x, loss="sum", optimizer=sp.Adam(betas=(1.0, 0.5)))
        with pytest.raises(sp.InvalidArgumentError,
                           match="did you mean 'net1.bias'") as raised:
            case.m.step(x, loss="sum", optimizer=sp.SGD(groups={
                "net1.*": {}, "net1.bia": {"lr": 0.5}}))
        assert raised.value.details["metadata"]["field"] == (
            "train.optimizer.groups[1].patterns[0]")
        assert case.m.last_step == 0
