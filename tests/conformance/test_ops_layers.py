"""Operators of layers and losses: einsum, convolutions and pools, norms of
channels, losses with their reductions; shapes, factories, activations.
"""

import pytest
import torch
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import PrepareModuleInput
from torch.nn import functional as F

from tests.conformance.operators import (
    A, B, C, Several, check, check_cut_alike, inputs)
from tests.parity import assert_counts


def equations(x, y, w, v):
    return (torch.einsum("bic,bjc->bij", x, y), torch.einsum("bic,cd", x, w),
            torch.einsum("...ic,...jc->...ij", x, y),
            torch.einsum("b i c, b i c -> b i", x, y),
            torch.einsum("bic->", x), torch.einsum("bic->cb", x),
            torch.einsum("bii->bi", x[:, :, :B]),
            torch.einsum("bic,bjc,cd->bijd", x, y, w),
            torch.einsum("bic,c->b", x, v), torch.outer(v, w[:, 0]),
            torch.tensordot(x, w, 1), torch.tensordot(x, y, ([0, 2], [0, 2])),
            torch.addmv(v[:B], x[0], v), torch.addr(w.t(), v[:5], v))


def convolutions(x, y, w, v):
    kernel = y[..., :3]
    deep = y[0, :, None, :3]
    grouped = y[:2, :, :3].transpose(0, 1)
    image = x[:, None]
    filters = y[:3, :1, :4].reshape(3, 1, 2, 2)
    return (F.conv1d(x, kernel), F.conv1d(x, kernel, v[:A], padding=1),
            F.conv1d(x, kernel, stride=2, padding="valid"),
            F.conv1d(x, kernel, v[:A], padding="same", dilation=2),
            F.conv1d(x, deep, v[:B], groups=B), F.conv1d(x, grouped, groups=3),
            F.conv1d(x[0], kernel), F.conv2d(image, filters, w[:3, 0]),
            F.conv2d(image, filters, stride=(2, 1), padding=(0, 1)),
            F.conv2d(x.view(A, 2, 3, C), y.view(A, 2, 3, C)[..., :3, :3]),
            F.conv_transpose1d(x, y.transpose(0, 1)[..., :3], stride=2,
                               output_padding=1),
            F.conv_transpose2d(image, filters.transpose(0, 1), w[:3, 1]))


def pools(x, y, w, v):
    image = x[:, None]
    return (F.max_pool1d(x, 2), F.avg_pool1d(x, 3, 1, 1),
            F.max_pool2d(image, 2), F.avg_pool2d(image, (3, 2)),
            *F.max_pool2d(image, 2, return_indices=True),
            F.adaptive_avg_pool1d(x, 4), F.adaptive_avg_pool2d(image, 1),
            F.adaptive_max_pool1d(x, 3), F.interpolate(x, scale_factor=2),
            F.interpolate(image, (3, 4), mode="bilinear"),
            F.pixel_shuffle(x.reshape(A, 4, 3, 4), 2))


def channels(x, y, w, v):
    b = w[:B, 0]
    return (F.batch_norm(x, b.detach(), v[:B].detach(), v[:B], b),
            F.batch_norm(x, b.detach(), v[:B].detach()),
            F.batch_norm(x, None, None, v[:B], b, training=True),
            F.group_norm(x, 3, v[:B], b), F.group_norm(x, B),
            F.group_norm(y, 2), F.instance_norm(x),
            F.instance_norm(x, weight=v[:B], bias=b), F.prelu(x - 0.5, v[:B]),
            F.prelu(y - 0.5, v[:1]), torch.native_layer_norm(
                x, (C,), v, w[:, 0], 1e-5)[0])


def losses(x, y, w, v):
    hit = (y > 0.5).to(x.dtype)
    sign = 2 * hit - 1
    logs = x.log_softmax(-1)
    each = []
    for reduction in ("none", "sum", "mean"):
        each += [F.mse_loss(x, y, reduction=reduction),
                 F.l1_loss(x, y, reduction=reduction),
                 F.smooth_l1_loss(x, y, reduction=reduction, beta=0.25),
                 F.huber_loss(x, y, reduction=reduction, delta=0.25),
                 F.binary_cross_entropy(x, hit, reduction=reduction),
                 F.binary_cross_entropy_with_logits(
                     x, y, v.detach(), reduction=reduction,
                     pos_weight=v.detach() + 1),
                 F.kl_div(logs, y, reduction=reduction),
                 F.soft_margin_loss(x, sign, reduction=reduction),
                 F.margin_ranking_loss(x, y, sign, 0.1, reduction=reduction),
                 F.hinge_embedding_loss(x, sign, reduction=reduction),
                 F.poisson_nll_loss(x, y, reduction=reduction)]
    return (*each, F.kl_div(logs, y, reduction="batchmean"),
            F.mse_loss(x, y), F.mse_loss(x, y[:1].expand_as(x)),
            *torch.broadcast_tensors(x, v))


def classes(x, y, w, v):
    logs = x.log_softmax(1)
    target = (y[:, 0] * B).long().clamp(0, B - 1)
    rows = x.flatten(0, 1).log_softmax(-1)
    some = (y[..., 0] * C).long().clamp(0, C - 1).flatten()
    each = []
    for reduction in ("none", "sum", "mean"):
        each += [F.nll_loss(logs, target, reduction=reduction),
                 F.nll_loss(rows, some, v.detach(), ignore_index=2,
                            reduction=reduction)]
    return (*each, y * v)


def shapes(x, y, w, v):
    return (x.repeat(2, 1, 3), v.repeat(3, 1), x[:, :1].repeat(1, 5, 1),
            torch.tile(x, (2,)), x.expand_as(y), v.expand_as(x),
            x.view_as(y), w.reshape_as(w.t()), x.movedim(0, 2),
            x.movedim((0, 1), (1, 2)), x.swapaxes(0, 1), x.swapdims(1, 2),
            *torch.meshgrid(v, x[0, :, 0], indexing="ij"),
            *torch.meshgrid(v, x[:, 0, 0], indexing="xy"),
            x.diagonal(0, 1, 2), x.diagonal(-1, 0, 1), x.ravel(), x.mH,
            torch.broadcast_to(v, (B, C)), torch.concat([x, y], 1))


def makers(x, y, w, v):
    held = torch.empty_like(x)
    held.copy_(y)
    filled = x.new_empty(3, C).fill_(0.5)
    return (held, filled + v, x + x.new_zeros(C), x * x.new_ones((B, 1)),
            y + x.new_full((B, C), 0.5), x.clone().copy_(v), x * torch.eye(B, C),
            torch.tril_indices(3, 3), torch.full((2,), 3.0),
            torch.empty(3, C).zero_() + v, x.detach().clone().fill_(2.0) * y)


def activations(x, y, w, v):
    z = x - 0.5
    return (F.elu(z), F.hardswish(z), F.leaky_relu(z, 0.1), F.hardtanh(z, -.2),
            F.mish(z), F.softsign(z), F.tanhshrink(z), F.hardshrink(z, 0.2),
            F.softshrink(z, 0.2), F.logsigmoid(z), F.selu(z), F.celu(z, 0.5),
            F.relu6(z * 9), F.threshold(z, 0.1, 0.3), F.softmin(z, -1),
            F.gelu(z), torch.erfc(z), torch.lerp(x, y, 0.25),
            torch.lerp(x, y, v), torch.addcmul(x, y, v, value=0.5),
            torch.addcdiv(x, y, v + 1), torch.fmod(x, 0.3), x.remainder(0.3),
            x.detach().floor_divide(0.3), x.trunc() + z.ceil(), z.atan2(y), z.asinh(),
            x.clamp(min=y), x.clip(0.2, 0.7), x.nan_to_num(), z.tanh().frac(),
            torch.logaddexp(x, y), torch.xlogy(x, y), torch.hypot(x, y),
            x.greater(y), x.less_equal(0.5), x.not_equal(y), x.isfinite(),
            (x > 0.5).logical_not(), (x * 9).int() & 3, (y * 9).long() ^ 1,
            F.rrelu(z, training=False), F.dropout1d(x, training=False),
            F.alpha_dropout(x, training=False))


GROUPS = [equations, convolutions, pools, channels, losses, classes, shapes,
          makers, activations]


@pytest.mark.parametrize("dim", [0, 1, 2], ids=str)
@pytest.mark.parametrize("function", GROUPS, ids=lambda f: f.__name__)
def test_inputs_cut_alike(cluster, function, dim):
    check_cut_alike(cluster, function, dim)


@pytest.mark.parametrize("function", GROUPS, ids=lambda f: f.__name__)
def test_inputs_cut_each_in_its_way(cluster, function):
    check(cluster, function, 3, (Shard(1), Shard(2), Shard(0), Replicate()))


@pytest.mark.parametrize("function, dim, gathers", [
    (activations, 0, 0), (activations, 1, 0), (pools, 0, 0),
    (channels, 0, 1),      # of a batch_norm's own statistics
    (convolutions, 0, 1),  # of x[0]
    (equations, 0, 1),     # of x[0]
], ids=lambda value: getattr(value, "__name__", str(value)))
def test_what_passes_is_not_gathered(cluster, function, dim, gathers):
    layouts = (Shard(dim), Replicate(), Replicate(), Replicate())
    style = PrepareModuleInput(input_layouts=layouts,
                               desired_input_layouts=layouts)
    values = inputs()
    with cluster.parallelize_module(Several(function), {"tp": 4}, style,
                                    example_inputs=tuple(values)) as m:
        m(*values)
        assert_counts(m, forward={"all_gather": gathers} if gathers else {})
