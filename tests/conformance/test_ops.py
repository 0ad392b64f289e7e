"""Every kind of operator over tensors cut along each of their dims, beside the
same call on whole tensors: values and gradients."""

import math

import pytest
import torch
from torch.distributed.tensor import Shard
from torch.nn import functional as F

from tests.conformance.operators import A, B, C, check, check_cut_alike


def products(x, y, w, v):
    return (x @ w, x @ v, torch.matmul(x, y.transpose(1, 2)),
            torch.bmm(x.transpose(1, 2), y), v @ w, torch.dot(v, v),
            torch.addmm(v[:5], x[0], w), F.linear(x, w.t(), v[:5]),
            torch.baddbmm(x @ x.mT, x, y.transpose(1, 2)), x[1] @ v,
            x[:, None] @ y.transpose(1, 2))


def norms(x, y, w, v):
    b = w[:, 0]
    return (F.layer_norm(x, (C,)), F.layer_norm(x, (C,), v, b),
            F.layer_norm(x, (B, C), y[0]), F.layer_norm(x, (C,), v),
            F.rms_norm(x, (C,), v), F.rms_norm(x, (C,), None, 1e-3),
            F.rms_norm(x, (B, C)))


def softmaxes(x, y, w, v):
    return (x.softmax(-1), x.softmax(1), x.softmax(0), x.log_softmax(-1),
            F.log_softmax(y, 1), torch.softmax(x + y, 2), v.softmax(0))


def joins(x, y, w, v):
    return (torch.cat([x, y], 0), torch.cat([x, y, x], 1),
            torch.cat([x, y[..., :3]], -1), torch.stack([x, y]),
            torch.stack([x, y], -1), torch.cat([v, w[:, 0]]))


def parts(x, y, w, v):
    even, odd = x[..., ::2], x[..., 1::2]
    first, second, third = x.split(2, 1)
    left, right = y.chunk(2, -1)
    small, large = y.split([1, 3], 0)
    return (x[:, 1:4], x[1], x[..., -1], x[:, -3:], torch.cat([-odd, even], 2),
            first * second + third, left * torch.sigmoid(right), small, large,
            x.select(1, 2), torch.stack(y.unbind(0)).sum(0), x.narrow(2, 1, 5),
            x[2:, :5, 3:])


def views(x, y, w, v):
    heads = x.view(A, B, 4, 2).transpose(1, 2)
    return (heads, heads.transpose(1, 2).reshape(A, B, C), x.flatten(0, 1),
            x.flatten(1), x.flatten(), x.permute(2, 0, 1), x.unsqueeze(1),
            x[:1].squeeze(0), x.unflatten(-1, (2, 4)), x.reshape(A, -1, 2, C),
            heads[:, :, None].expand(A, 4, 3, B, 2).reshape(A, 12, B, 2),
            x.repeat_interleave(2, 1), v.expand(B, C), x.mT.contiguous(),
            y.reshape(-1, C).view(A, B, C), x.transpose(0, 1).flatten(1))


def masks(x, y, w, v):
    keep = x > y
    causal = torch.ones(B, B, dtype=torch.bool).tril()
    scores = (x @ y.transpose(1, 2)).masked_fill(~causal, -math.inf)
    return (torch.where(keep, x, y), x.masked_fill(keep, 0.5), x * keep,
            scores.softmax(-1), (x @ y.mT).tril(), (x @ y.mT).triu(1),
            torch.where(x < 0.5, 0.0, y), keep.double() + x,
            torch.where(keep & ~(y > 0.5), x, 0.25), torch.maximum(x, y))


def casts(x, y, w, v):
    return (x.float() * 2, (x.float() + y.float()).double(),
            x.to(torch.bfloat16).to(torch.float64), y.float().type_as(x),
            (x * 10).long().double() * y, x.float().type_as(y) + y)


def factories(x, y, w, v):
    positions = torch.arange(x.shape[1], dtype=torch.float64)
    steps = torch.arange(0, C, 2, dtype=torch.float64)
    angles = positions[:, None] * (10.0 ** (-steps / C))
    cos = torch.cat([angles.cos(), angles.cos()], -1)
    sin = torch.cat([angles.sin(), angles.sin()], -1)
    turned = torch.cat([-x[..., C // 2:], x[..., :C // 2]], -1)
    causal = torch.arange(B)[:, None] >= torch.arange(B)[None]
    return (x * cos + turned * sin, x + torch.ones_like(x),
            y * torch.zeros_like(y) + x, x + torch.full((B, 1), 0.5),
            torch.full_like(x, 2.0) * y, x + torch.zeros(C), x + positions[
                None, :, None], (x @ y.mT) * causal, torch.ones(2, 3))


def pointwise(x, y, w, v):
    return (torch.exp(x) - y, x.log1p(), (x + 1).rsqrt(), x.pow(3), x ** y,
            F.silu(x), F.gelu(x, approximate="tanh"), -x, torch.sigmoid(x),
            x.sin() + y.cos(), x / (y + 1), 2 - x, 1 / (x + 1),
            x.clamp(0.2, 0.8), F.softplus(x), x * v, v - x, x * x[:, :1])


def reductions(x, y, w, v):
    return (x.sum(), x.sum(1), x.sum((0, 2)), x.mean(), x.mean(-1, True),
            x.mean(1), x.amax(-1), x.amax(1, True), x.pow(2).mean(0),
            x.cumsum(1), x - x.mean((1, 2), True), (x * y).sum(-1))


GROUPS = [products, norms, softmaxes, joins, parts, views, masks, casts,
          factories, pointwise, reductions]


@pytest.mark.parametrize("dim", [None, 0, 1, 2], ids=str)
@pytest.mark.parametrize("function", GROUPS, ids=lambda f: f.__name__)
def test_inputs_cut_alike(cluster, function, dim):
    check_cut_alike(cluster, function, dim)


@pytest.mark.parametrize("function", GROUPS, ids=lambda f: f.__name__)
def test_inputs_cut_each_in_its_way(cluster, function):
    check(cluster, function, 3, (Shard(1), Shard(2), Shard(0), Shard(0)))
