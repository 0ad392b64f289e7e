"""Operators that read and write where indices say, order, count and pad."""

import pytest
import torch
from torch.nn import functional as F

from tests.conformance.operators import A, B, C, check_cut_alike


def indices(*shape, below):
    """As good as random: 0 3 2 1 … times a number that `below` does not know."""
    count = torch.Size(shape).numel()
    return (torch.arange(count) * 7 % below).view(shape)


def order(x):
    """Indices along the last dim, in integers that depend on values."""
    return (x * C).long().clamp(0, C - 1)


def indexed(x, y, w, v):
    rows = indices(5, below=A)
    columns = indices(3, 1, below=B)
    return (x[rows], x[:, columns], x[:, :, order(v)], x[rows[:3, None], :, 1],
            x[rows, rows % B], x[rows, :, rows], x[..., columns, rows],
            w[order(x)], v[order(x[0])], x.index_select(1, columns[:, 0]),
            torch.index_select(y, -1, order(v)))


def gathered(x, y, w, v):
    at = order(x)
    return (x.gather(2, at), y.gather(2, at[..., :3]), y.gather(1, at % B),
            x.gather(0, at[:2] % A), x.gather(2, at[:2, :3]),
            torch.take_along_dim(x, at, 2),
            x.gather(1, (at[:, :1, :1] % B).expand(A, 2, C)), v.gather(0, order(v)))


def scattered(x, y, w, v):
    at = order(x).argsort(-1)  # no place twice
    zero = torch.zeros_like(x)
    return (x.scatter(2, at, y), x.scatter(2, at[..., :2], 0.5),
            zero.scatter_add(2, order(x), y), zero.scatter_add(1, at % B, y),
            x.scatter_add(2, at[:2, :3], y.detach()),
            x.scatter_reduce(2, order(y), y, "amax"),
            torch.zeros(C, dtype=x.dtype).scatter_add(0, order(v), v))


def written(x, y, w, v):
    rows = torch.tensor([2, 0, 3])
    columns = torch.tensor([1, 4])
    return (x.index_put((rows,), y[:3]), x.index_put((rows,), v),
            x.index_put((rows, columns[:1]), y[:3, 1], accumulate=True),
            x.index_put((rows[:2], columns), y[:2, 0]),
            x.index_add(0, rows, y[:3]), x.index_add(1, columns, y[:, 3:5]),
            x.index_copy(2, rows, y[..., :3]), x.index_fill(1, columns, 2.0),
            x.select_scatter(y[:, 0], 1, 3), x.slice_scatter(y[1:3], 0, 0, 2),
            x.slice_scatter(y[..., ::2], 2, 1, C, 2))


def assigned(x, y, w, v):
    """In place: functional when it is exported."""
    z = x.clone()
    z[:, 1] = y[:, 0]
    z[2:, :, 3] = 0.25
    z[torch.tensor([0, 2])] += 1.0
    z[:, torch.tensor([1, 4])] += y[:, :2]
    z.mul_(y).add_(x)
    u = torch.zeros_like(x)
    u[..., ::2] = x[..., ::2]
    return z, u


def ordered(x, y, w, v):
    top, at = x.topk(3, -1)
    least = y.topk(2, 1, largest=False)
    values, places = x.sort(-1, descending=True)
    stable = torch.sort(y, dim=1, stable=True)
    return (top, at, *least, values, places, *stable, x.argsort(0),
            x.flip(1), x.flip((0, 2)), x.roll(2, 1), x.roll((1, -1), (0, 2)),
            x.roll(3), *x.cummax(1), *y.cummin(2), x.cumprod(1),
            x.logcumsumexp(2), x.cumsum(0), (x > 0.5).cumsum(-1), x.diff(),
            x.diff(2, 1), x.diff(dim=0, append=y[:1]))


def best(x, y, w, v):
    largest = x.max(1)
    smallest = y.min(-1, keepdim=True)
    return (x.argmax(-1), x.argmin(1, keepdim=True), x.argmax(), *largest,
            *smallest, x.max(), y.min(), x.amax((0, 1)), y.amin(),
            *x.median(2), *x.kthvalue(2, 1), *x.detach().aminmax(dim=2),
            torch.max(x, y), torch.min(x, y), (x > 0.5).any(1), (x > 0).all(),
            (x > 2).any(), (x > y).all(-1, keepdim=True), x.prod(1), y.prod(),
            torch.count_nonzero(x > 0.5, dim=1))


def spread(x, y, w, v):
    return (x.var(-1), x.var(1, unbiased=False), x.std(0), x.var(),
            y.std((1, 2), keepdim=True), *torch.var_mean(x, (0, 2)),
            *torch.std_mean(y, -1, correction=0), x.norm(), x.norm(dim=-1),
            x.norm(1, 1, keepdim=True), torch.linalg.vector_norm(x, 2, (0, 1)),
            torch.linalg.vector_norm(y), x.logsumexp(-1), x.logsumexp((0, 1)),
            F.normalize(x, dim=-1), F.cosine_similarity(x, y, dim=-1),
            (x - x.mean(-1, True)) * (x.var(-1, keepdim=True) + 1e-5).rsqrt())


def padded(x, y, w, v):
    return (F.pad(x, (1, 2)), F.pad(x, (0, 0, 2, 1)), F.pad(y, (0, -3), value=2.),
            F.pad(x, (1, 1), mode="reflect"), F.pad(x, (0, 0, 0, 0, 1, 0)),
            F.glu(x), F.glu(y, 1), x.unfold(2, 4, 2), x.unfold(1, 2, 2))


def counted(x, y, w, v):
    hot = F.one_hot(order(x), C)
    bounds = torch.tensor([0.25, 0.5, 0.75], dtype=x.dtype)
    return (hot, hot.sum(1), hot[..., 0] * x * y + v, torch.histc(x, 4, 0.0, 1.0),
            torch.histc(order(y).double(), C, 0, C - 1),
            torch.bucketize(x, bounds), torch.isin(order(x), order(v)))


GROUPS = [indexed, gathered, scattered, written, assigned, ordered, best,
          spread, padded, counted]


@pytest.mark.parametrize("dim", [0, 1, 2], ids=str)
@pytest.mark.parametrize("function", GROUPS, ids=lambda f: f.__name__)
def test_inputs_cut_alike(cluster, function, dim):
    check_cut_alike(cluster, function, dim)
