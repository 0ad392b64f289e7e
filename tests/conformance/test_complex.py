"""Complex numbers beside PyTorch's: rotary embeddings as Llama's own code has
them, operators over complex tensors cut along each dim, parameters."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, RowwiseParallel)
from torch.nn import functional as F

import shardplane as sp
from tests.conformance.operators import A, B, C, check, check_cut_alike
from tests.models import rand
from tests.parity import (
    assert_bytes, assert_close, assert_counts, assert_predicted, parallelized)

F64 = 8
BATCH, LENGTH, DIM, HEAD = 2, 6, 16, 4


def turn(*shape, seed=0, requires_grad=False):
    """Complex numbers, no two alike."""
    real = rand(*shape, seed=seed) + 0.5
    imaginary = rand(*shape, seed=seed + 50) - 0.25
    return torch.complex(real, imaginary).requires_grad_(requires_grad)


# ------------------------------------------------------------------- rotary


def precompute_freqs_cis(dim, end, theta=10000.0):
    steps = torch.arange(0, dim, 2)[:dim // 2].double() / dim
    freqs = 1.0 / theta ** steps
    freqs = torch.outer(torch.arange(end).double(), freqs)
    return torch.polar(torch.ones_like(freqs), freqs)


def apply_rotary_emb(xq, xk, freqs_cis):
    """As Llama's model.py has it, but in the dtype of its inputs."""
    xq_ = torch.view_as_complex(xq.reshape(*xq.shape[:-1], -1, 2))
    xk_ = torch.view_as_complex(xk.reshape(*xk.shape[:-1], -1, 2))
    freqs_cis = freqs_cis.view(1, xq_.shape[1], 1, xq_.shape[-1])
    xq_out = torch.view_as_real(xq_ * freqs_cis).flatten(3)
    xk_out = torch.view_as_real(xk_ * freqs_cis).flatten(3)
    return xq_out.type_as(xq), xk_out.type_as(xk)


class Attention(nn.Module):
    """Causal self-attention, positions in complex numbers."""

    def __init__(self, holds="buffer", kv_heads=4, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(5)
        self.kv_heads, self.holds = kv_heads, holds
        inner = kv_heads * HEAD
        self.wq = nn.Linear(DIM, DIM, bias=False, dtype=dtype)
        self.wk = nn.Linear(DIM, inner, bias=False, dtype=dtype)
        self.wv = nn.Linear(DIM, inner, bias=False, dtype=dtype)
        self.wo = nn.Linear(DIM, DIM, bias=False, dtype=dtype)
        freqs_cis = precompute_freqs_cis(HEAD, 2 * LENGTH)
        if dtype == torch.float32:
            freqs_cis = freqs_cis.to(torch.complex64)
        if holds == "constant":
            self.freqs_cis = freqs_cis
        elif holds != "made":
            self.register_buffer("freqs_cis", freqs_cis,
                                 persistent=holds == "buffer")

    def forward(self, x):
        b, s, _ = x.shape
        q, k, v = (w(x).view(b, s, -1, HEAD)
                   for w in (self.wq, self.wk, self.wv))
        freqs_cis = (precompute_freqs_cis(HEAD, s) if self.holds == "made"
                     else self.freqs_cis[:s])
        q, k = apply_rotary_emb(q, k, freqs_cis)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=self.kv_heads * HEAD != DIM)
        return self.wo(y.transpose(1, 2).reshape(b, s, -1))


PLAN = {"wq": ColwiseParallel(), "wk": ColwiseParallel(),
        "wv": ColwiseParallel(), "wo": RowwiseParallel()}
CUTS = {"wq.weight": 0, "wk.weight": 0, "wv.weight": 0, "wo.weight": 1}


def check_rotary(cluster, module, ranks):
    """One all-reduce forward and one for x's gradient: nothing is gathered."""
    x = rand(BATCH, LENGTH, DIM, dtype=module.wq.weight.dtype,
             requires_grad=True)
    with parallelized(cluster, module, {"tp": ranks}, PLAN, cuts=CUTS,
                      x=x) as case:
        assert not case.m.report.warnings
        case.check_start()
        case.check_forward(x)
        assert_counts(case.m, forward={"all_reduce": 1}, backward={})
        case.check_backward(x)
        assert_counts(case.m, forward={"all_reduce": 1},
                      backward={"all_reduce": 1})
        bound = x.numel() * x.element_size()
        assert_bytes(case.m, forward=bound, backward=bound)
        case.check_step(x)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("holds", ["buffer", "volatile", "constant", "made"])
def test_rotary_attention_is_cut_by_heads(cluster, holds, ranks):
    check_rotary(cluster, Attention(holds), ranks)


def test_rotary_attention_with_fewer_kv_heads(cluster):
    check_rotary(cluster, Attention(kv_heads=2), 2)


def test_rotary_attention_in_single_precision(cluster):
    check_rotary(cluster, Attention(dtype=torch.float32), 2)


# ---------------------------------------------------------------- operators


def complex_inputs():
    return [turn(*shape, seed=seed, requires_grad=True)
            for seed, shape in enumerate([(A, B, C), (A, B, C), (C, 5), (C,)])]


def half_complex_inputs():
    """x and w are complex, y and v real."""
    return [turn(A, B, C, requires_grad=True),
            rand(A, B, C, seed=1, requires_grad=True),
            turn(C, 5, seed=2, requires_grad=True),
            rand(C, seed=3, requires_grad=True)]


def parts(x, y, w, v):
    return (x.real, y.imag, x.conj().imag * 2, x.abs(), y.angle(), x.conj(),
            torch.view_as_real(x), torch.view_as_real(y * v).flatten(2),
            torch.complex(x.imag, y.real), torch.polar(x.abs(), y.real),
            torch.view_as_complex(torch.view_as_real(y)), x.conj() * x,
            torch.conj_physical(y), x.conj().resolve_conj(), torch.sgn(x))


def products(x, y, w, v):
    return (x @ w, x @ v, x @ y.mH, x.mT.conj() @ y, torch.einsum(
        "abc,cd->abd", x, w), x * y.conj(), torch.outer(v, v.conj()),
        F.linear(x, w.t()), v @ w.conj())


def pointwise(x, y, w, v):
    return (x + y, x - y.conj(), x * v, x / y, x * y.real, x.exp(), y.sqrt(),
            x.reciprocal(), x.square(), x.pow(2), -x, x.sin(), y.tanh(),
            torch.where(x.real > y.real, x, y), 2.5 * x, x * y[:, :1],
            x.to(torch.complex64) * 2, x.masked_fill(x.real > 1, 0.5))


def reductions(x, y, w, v):
    return (x.sum(), x.sum(1), y.mean(), x.mean(-1, True), x.cumsum(1),
            y.prod(1), x.abs().sum((0, 2)), x.norm(), x.var(1),
            x - x.mean((1, 2), True), (x * y.conj()).sum(-1).real)


def views(x, y, w, v):
    heads = x.view(A, B, 4, 2).transpose(1, 2)
    return (heads, x.flatten(0, 1), x.flatten(), x.permute(2, 0, 1), x[:, 1:4],
            torch.cat([x, y], 1), torch.stack([x, y]), x.unflatten(-1, (2, 4)),
            x[:, 2], v.expand(B, C), x.reshape(A, -1, 2, C), x.chunk(2, -1)[0],
            x.flip(1), torch.view_as_real(heads).flatten(3), x.mH,
            F.pad(x, (1, 2)), torch.ones_like(x) * y)


GROUPS = [parts, products, pointwise, reductions, views]


@pytest.mark.parametrize("dim", [None, 0, 1, 2], ids=str)
@pytest.mark.parametrize("function", GROUPS, ids=lambda f: f.__name__)
def test_complex_inputs_cut_alike(cluster, function, dim):
    check_cut_alike(cluster, function, dim, inputs=complex_inputs)


def mixed(x, y, w, v):
    return (x * y, y * x, x + y, y - x, x / (y + 1), y / x, x * v, v * w.t(),
            torch.complex(y, y.sin()) * x, torch.polar(y, y) + x,
            x.real + y, y.to(torch.complex128) @ w, x @ v.to(w.dtype),
            torch.view_as_complex(y.reshape(A, B, -1, 2)),
            torch.view_as_complex(y.reshape(A, B, 2, -1).mT.contiguous()) * 2,
            torch.where(y > 0.5, x, y.to(x.dtype)), x * x.sum(1, True),
            x * 3 - 1)


@pytest.mark.parametrize("dim", [None, 0, 1, 2], ids=str)
def test_real_and_complex_inputs(cluster, dim):
    check_cut_alike(cluster, mixed, dim, inputs=half_complex_inputs)


@pytest.mark.parametrize("function", GROUPS, ids=lambda f: f.__name__)
def test_complex_inputs_cut_each_in_its_way(cluster, function):
    check(cluster, function, 3, (Shard(1), Shard(2), Shard(0), Shard(0)),
          complex_inputs)


def linear_parts(x, y, w, v):
    """Through each of these a Partial goes unreduced."""
    return (torch.view_as_real(x.conj() * 2).sum(-1), x.real + x.imag,
            torch.view_as_real(x @ w), y * v)


def test_partial_complex_inputs(cluster):
    check(cluster, linear_parts, 4,
          (Partial(), Shard(2), Replicate(), Replicate()), complex_inputs)


# --------------------------------------------- inputs, outputs, parameters


class Identity(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128],
                         ids=str)
@pytest.mark.parametrize("cut", [Replicate(), Shard(0), Shard(1)], ids=str)
def test_complex_numbers_there_and_back(cluster, cut, dtype):
    style = PrepareModuleInput(input_layouts=cut, desired_input_layouts=cut)
    x = turn(5, 3).to(dtype)
    with cluster.parallelize_module(Identity(), {"tp": 4}, style,
                                    example_inputs=(x,)) as m:
        for value in (x, x.conj(), torch.zeros_like(x)):
            result = m(value)
            assert result.dtype == dtype
            assert torch.equal(result, value)


class Turns(nn.Module):
    """A parameter of turns between two linears, and one that stands alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.up = nn.Linear(8, 12, dtype=torch.complex128)
        self.turns = nn.Parameter(turn(12, seed=3))
        self.down = nn.Linear(12, 8, dtype=torch.complex128)

    def forward(self, x):
        return self.down(self.up(x) * self.turns).abs()


TURNS_PLAN = {"up": ColwiseParallel(), "down": RowwiseParallel()}
TURNS_CUTS = {"up.weight": 0, "up.bias": 0, "down.weight": 1}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_complex_parameters_learn(cluster, ranks):
    x = turn(3, 8, requires_grad=True)
    with parallelized(cluster, Turns(), {"tp": ranks}, TURNS_PLAN,
                      cuts=TURNS_CUTS, x=x) as case:
        case.check_start()
        case.check_forward(x)
        case.check_backward(x)
        case.check_step(x)


def test_complex_parameters_learn_by_adam(cluster):
    x, target = turn(3, 8), rand(3, 8)
    with parallelized(cluster, Turns(), {"tp": 2}, TURNS_PLAN,
                      cuts=TURNS_CUTS, x=x) as case:
        case.check_adam_steps(x, target, F.mse_loss)


def test_the_norm_of_complex_gradients(cluster):
    x, module = turn(3, 8), Turns()
    with parallelized(cluster, module, {"tp": 2}, TURNS_PLAN, x=x) as case:
        optimizer = torch.optim.SGD(case.reference.parameters(), lr=0.5)
        case.reference(x).sum().backward()
        nn.utils.clip_grad_norm_(case.reference.parameters(), 0.1)
        optimizer.step()
        case.m.step(x, loss="sum", optimizer=sp.SGD(lr=0.5),
                    clip_norm=0.1)
        assert_predicted(case.m)
        for name, value in case.reference.state_dict().items():
            assert_close(case.m.state_dict()[name], value, name)


# ------------------------------------------------------------------ refused


def test_a_complex_loss_is_refused(cluster):
    with cluster.parallelize_module(Identity(), {"tp": 2}, {},
                                    example_inputs=(turn(3),)) as m:
        with pytest.raises(sp.ShardplaneError, match="floating-point.*c128"):
            m.forward_backward(turn(3, requires_grad=True), loss="sum")


@pytest.mark.filterwarnings("ignore:ComplexHalf support")
def test_half_precision_complex_numbers_are_refused(cluster):
    x = rand(3).to(torch.complex32)
    with pytest.raises(sp.UnimplementedError, match="complex32"):
        cluster.parallelize_module(Identity(), {"tp": 2}, {},
                                   example_inputs=(x,))


class TimesImaginary(nn.Module):
    def forward(self, x):
        return x * 2j


def test_a_complex_number_in_the_code_is_refused(cluster):
    with pytest.raises(sp.UnimplementedError, match="complex.*2j"):
        cluster.parallelize_module(TimesImaginary(), {"tp": 2}, {},
                                   example_inputs=(rand(3),))
