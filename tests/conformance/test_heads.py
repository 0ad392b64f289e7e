"""Attention by heads, from separate and fused projections, with fewer key
heads than ranks; gate and up in one weight. What is cut, equality with the
unsharded module, collectives and their bytes."""

import math

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import (
    ColwiseParallel, RowwiseParallel)
from torch.nn import functional as F

import shardplane as sp
from tests.models import rand
from tests.parity import (
    Packed, assert_bytes, assert_close, assert_counts, check_gradients,
    check_parameters, check_shards, parallelized)

BATCH, LENGTH, WIDTH, HEAD = 2, 5, 24, 4
ACTIVATION = BATCH * LENGTH * WIDTH * 8


def separate(module, x, heads, kv):
    return module.wq(x), module.wk(x), module.wv(x)


def split(module, x, heads, kv):
    return module.qkv(x).split([heads * HEAD, kv * HEAD, kv * HEAD], -1)


def sliced(module, x, heads, kv):
    y = module.qkv(x)
    return (y[..., :heads * HEAD],
            y[..., heads * HEAD:(heads + kv) * HEAD],
            y[..., (heads + kv) * HEAD:])


def chunked(module, x, heads, kv):
    return module.qkv(x).chunk(3, dim=-1)


def stacked(module, x, heads, kv):
    return module.qkv(x).view(*x.shape[:2], 3, heads * HEAD).unbind(2)


def by_head(module, x, heads, kv):
    """Query, key and value of a head one after the other."""
    y = module.qkv(x).view(*x.shape[:2], heads, 3, HEAD)
    return y.unbind(3)


def in_groups(module, x, heads, kv):
    """The queries of a key head, that key and its value."""
    y = module.qkv(x).view(*x.shape[:2], kv, heads // kv + 2, HEAD)
    return y.split([heads // kv, 1, 1], 3)


def heads_split(module, x, heads, kv):
    y = module.qkv(x).view(*x.shape[:2], heads + 2 * kv, HEAD)
    return y.split([heads, kv, kv], 2)


def grouped(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True,
                                          enable_gqa=True)


def repeated(q, k, v):
    times = q.shape[1] // k.shape[1]
    return F.scaled_dot_product_attention(
        q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1),
        is_causal=True)


def expanded(q, k, v):
    def expand(t):
        b, kv, length, width = t.shape
        times = q.shape[1] // kv
        return t[:, :, None].expand(b, kv, times, length, width).reshape(
            b, kv * times, length, width)
    return F.scaled_dot_product_attention(q, expand(k), expand(v),
                                          is_causal=True)


def written_out(q, k, v):
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    return torch.softmax(q @ k.transpose(-1, -2) / HEAD ** 0.5, -1) @ v


class Attention(nn.Module):
    def __init__(self, heads, kv, project, attend):
        super().__init__()
        torch.manual_seed(3)
        self.heads, self.kv = heads, kv
        self.project, self.attend = project, attend
        f64 = {"dtype": torch.float64}
        if project is separate:
            self.wq = nn.Linear(WIDTH, heads * HEAD, **f64)
            self.wk = nn.Linear(WIDTH, kv * HEAD, **f64)
            self.wv = nn.Linear(WIDTH, kv * HEAD, **f64)
        else:
            self.qkv = nn.Linear(WIDTH, (heads + 2 * kv) * HEAD, **f64)
        self.wo = nn.Linear(heads * HEAD, WIDTH, **f64)

    def forward(self, x):
        def by_heads(t):
            return t.reshape(*x.shape[:2], -1, HEAD).transpose(1, 2)
        q, k, v = (by_heads(t) for t in self.project(
            self, x, self.heads, self.kv))
        y = self.attend(q, k, v)
        return self.wo(y.transpose(1, 2).reshape(*x.shape[:2], -1))


def plan_of(module):
    return {name: RowwiseParallel() if name in ("wo", "down") else
            ColwiseParallel() for name, _ in module.named_children()}


def cuts_of(module, colwise, rowwise):
    """`colwise`, `rowwise`: cuts of dim 0 and 1, or by name."""
    cuts = {}
    for name, _ in module.named_children():
        if name in ("wo", "down"):
            cuts[f"{name}.weight"] = rowwise
            continue
        cut = colwise[name] if isinstance(colwise, dict) else colwise
        cuts |= {f"{name}.weight": cut, f"{name}.bias": cut}
    return cuts


def check(cluster, module, ranks, colwise, rowwise, *, shared=0, mesh=None,
          **options):
    """Start, outputs, gradients, two optimizers' steps, a state loaded.
    `shared`: elements of what groups of ranks share of weight and bias."""
    cuts = cuts_of(module, colwise, rowwise)
    x = rand(BATCH, LENGTH, WIDTH, requires_grad=True)
    with parallelized(cluster, module, mesh or {"tp": ranks}, plan_of(module),
                      cuts=cuts, x=x, loss="sum", **options) as case:
        m = case.m
        case.check_start()
        case.check_forward(x)
        assert_counts(m, forward={"all_reduce": 1})
        assert_bytes(m, forward=ACTIVATION)
        case.check_backward(x)
        # The input's gradient, and those of shared heads in one go.
        assert_counts(m, backward={"all_reduce": 2 if shared else 1})
        assert_bytes(m, backward=ACTIVATION + shared * 8)
        case.check_step(x)
        check_clipped(m, case.reference, x)
        check_shards(m, case.reference, cuts)
        state = {name: value * 0.5 for name, value in m.state_dict().items()}
        m.load_state_dict(state)
        case.reference.load_state_dict(state)
        check_shards(m, case.reference, cuts)
        assert_close(m(x), case.reference(x), "loaded")


def check_clipped(m, reference, x):
    """Adam after clipping: each element counts once in the norm."""
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-2)
    optimizer.zero_grad()
    expected = reference(x.detach()).sum()
    expected.backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
    optimizer.step()
    m.reset_optimizer()
    actual = m.step(x.detach(), loss="sum", optimizer=sp.Adam(lr=1e-2),
                    clip_norm=0.5)
    assert_close(actual, expected, "loss")
    check_parameters(m, reference, "clipped:")


# Heads, key heads, ranks: cuts of queries, of keys and values, of wo.
SEPARATE = {
    "even": (8, 8, 4, 0, 0, 1),
    "heads_uneven": (6, 6, 4, Packed(0, ((24, 8),)), Packed(0, ((24, 8),)),
                     Packed(1, ((24, 8),))),
    "fewer_heads_than_ranks": (
        3, 3, 4, Packed(0, ((12, 4),)), Packed(0, ((12, 4),)),
        Packed(1, ((12, 4),))),
    "grouped": (8, 4, 4, 0, 0, 1),
    "two_key_heads": (8, 2, 4, 0, Packed(0, ((8, 4, 2),)), 1),
    "two_key_heads_on_two": (8, 2, 2, 0, 0, 1),
    "one_key_head": (8, 1, 4, 0, Packed(0, ((4, 4, 4),)), 1),
    "one_key_head_on_two": (8, 1, 2, 0, Packed(0, ((4, 4, 2),)), 1),
    "key_heads_uneven": (6, 3, 4, Packed(0, ((24, 8),)),
                         Packed(0, ((12, 4),)), Packed(1, ((24, 8),))),
    "key_heads_uneven_on_two": (6, 3, 2, Packed(0, ((24, 8),)),
                                Packed(0, ((12, 4),)),
                                Packed(1, ((24, 8),))),
}


def shared_elements(cut, rows):
    """Of a weight of `rows` inputs, and a bias."""
    return sum(size for size, _, replicas in (
        (*block, 1, 1)[:3] for block in getattr(cut, "blocks", ()))
        if replicas > 1) * (rows + 1)


@pytest.mark.parametrize("attend", [grouped, repeated, expanded, written_out],
                         ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", SEPARATE)
def test_separate(cluster, name, attend):
    heads, kv, ranks, queries, keys, rows = SEPARATE[name]
    check(cluster, Attention(heads, kv, separate, attend), ranks,
          {"wq": queries, "wk": keys, "wv": keys}, rows,
          shared=2 * shared_elements(keys, WIDTH))


# The projection, heads, key heads, ranks: cuts of qkv and wo.
FUSED = {
    "split": (split, 8, 8, 4, Packed(0, ((32,), (32,), (32,))), 1),
    "sliced": (sliced, 8, 4, 4, Packed(0, ((32,), (16,), (16,))), 1),
    "chunked": (chunked, 8, 8, 2, Packed(0, ((32,), (32,), (32,))), 1),
    "stacked": (stacked, 8, 8, 4, Packed(0, ((32,), (32,), (32,))), 1),
    "stacked_over_three": (
        stacked, 6, 6, 3, Packed(0, ((24,), (24,), (24,))), 1),
    "stacked_uneven": (
        stacked, 6, 6, 4, Packed(0, ((24, 8), (24, 8), (24, 8))),
        Packed(1, ((24, 8),))),
    "by_head": (by_head, 8, 8, 4, 0, 1),
    "by_head_uneven": (by_head, 6, 6, 4, Packed(0, ((72, 24),)),
                       Packed(1, ((24, 8),))),
    "in_groups": (in_groups, 8, 4, 4, 0, 1),
    "heads_split": (heads_split, 8, 4, 4, Packed(0, ((32,), (16,), (16,))),
                    1),
    "two_key_heads": (split, 8, 2, 4,
                      Packed(0, ((32,), (8, 4, 2), (8, 4, 2))), 1),
    "two_key_heads_sliced": (sliced, 8, 2, 4,
                             Packed(0, ((32,), (8, 4, 2), (8, 4, 2))), 1),
    "one_key_head": (split, 8, 1, 4,
                     Packed(0, ((32,), (4, 4, 4), (4, 4, 4))), 1),
    "one_key_head_among_heads": (
        heads_split, 8, 1, 4, Packed(0, ((32,), (4, 4, 4), (4, 4, 4))), 1),
}


@pytest.mark.parametrize("attend", [grouped, written_out],
                         ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", FUSED)
def test_fused(cluster, name, attend):
    project, heads, kv, ranks, fused, rows = FUSED[name]
    check(cluster, Attention(heads, kv, project, attend), ranks, fused, rows,
          shared=shared_elements(fused, WIDTH))


class GateUp(nn.Module):
    def __init__(self, hidden, how):
        super().__init__()
        torch.manual_seed(4)
        self.how, self.hidden = how, hidden
        self.gate_up = nn.Linear(WIDTH, 2 * hidden, dtype=torch.float64)
        self.down = nn.Linear(hidden, WIDTH, dtype=torch.float64)

    def forward(self, x):
        return self.down(self.how(self.gate_up(x)))


def gate_chunk(y):
    gate, up = y.chunk(2, dim=-1)
    return F.silu(gate) * up


def gate_split(y):
    gate, up = y.split(y.shape[-1] // 2, dim=-1)
    return F.silu(gate) * up


def gate_sliced(y):
    half = y.shape[-1] // 2
    return F.silu(y[..., :half]) * y[..., half:]


def gate_view(y):
    gate, up = y.view(*y.shape[:-1], 2, -1).unbind(-2)
    return F.silu(gate) * up


def gate_alternating(y):
    """Gate and up of a feature one after the other: no blocks are needed."""
    gate, up = y.view(*y.shape[:-1], -1, 2).unbind(-1)
    return F.silu(gate) * up


def gate_glu(y):
    return F.glu(y, -1)


@pytest.mark.parametrize("hidden, ranks", [(16, 2), (16, 4), (18, 4), (3, 4)])
@pytest.mark.parametrize("how", [
    gate_chunk, gate_split, gate_sliced, gate_view, gate_glu,
    gate_alternating], ids=lambda f: f.__name__)
def test_gate_and_up(cluster, how, hidden, ranks):
    cut = Packed(0, ((hidden,), (hidden,)))
    if how is gate_alternating:
        chunk = 2 * -(-hidden // ranks)
        cut = 0 if chunk == -(-2 * hidden // ranks) else Packed(
            0, ((2 * hidden, math.gcd(chunk, 2 * hidden)),))
    check(cluster, GateUp(hidden, how), ranks, cut, 1)


@pytest.mark.parametrize("kind", ["replicate", "fully_shard"])
@pytest.mark.parametrize("name", ["stacked", "two_key_heads",
                                  "one_key_head"])
def test_data_parallel(cluster, name, kind):
    """Heads over tp, the batch over dp; parameters cut within their blocks."""
    project, heads, kv, _, _, _ = FUSED[name]
    module = Attention(heads, kv, project, grouped)
    x = rand(BATCH, LENGTH, WIDTH)
    mesh = {"dp": 2, "tp": 2}
    with parallelized(cluster, module, mesh, plan_of(module), x=x,
                      data_parallel=kind, loss="sum") as case:
        m, reference = case.m, case.reference
        place = m.report.placements["qkv.weight"]
        assert place.startswith(
            "[S(0)#2, S(0: 32, " if kind == "fully_shard" else "[R, S(0: ")
        check_parameters(m, reference, "at the start:")
        case.check_forward(x)
        optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
        for step in range(2):
            optimizer.zero_grad()
            expected = reference(x).sum()
            expected.backward()
            optimizer.step()
            assert_close(m.step(x, loss="sum", optimizer=sp.SGD(lr=0.1)),
                         expected, f"loss of step {step}")
        check_gradients(m, reference)
        check_parameters(m, reference, "after two steps:")


@pytest.mark.parametrize("src_data_rank", [0, 2, None])
def test_src_data_rank(cluster, src_data_rank):
    """Blocks are scattered as such, one collective a parameter."""
    module = Attention(8, 2, split, grouped)
    x = rand(BATCH, LENGTH, WIDTH)
    data = module
    if src_data_rank is None:
        data = [module] * 4
    cut = Packed(0, ((32,), (8, 4, 2), (8, 4, 2)))
    with cluster.parallelize_module(
            data, {"tp": 4}, plan_of(module), example_inputs=(x,),
            src_data_rank=src_data_rank) as m:
        check_shards(m, module, cuts_of(module, cut, 1))
        scatters = {} if src_data_rank is None else {
            "scatter": 3, "broadcast": 1}
        assert_counts(m, materialize=scatters)
        assert_close(m(x), module(x), "forward")


def test_on_the_meta_device(cluster):
    """Values follow from the seed, however they are cut."""
    x = rand(BATCH, LENGTH, WIDTH)

    def values(plan, ranks):
        with torch.device("meta"):
            module = Attention(8, 2, split, grouped)
        with cluster.parallelize_module(module, {"tp": ranks}, plan,
                                        example_inputs=(x,), seed=3) as m:
            return m.state_dict()
    plan = plan_of(Attention(8, 2, split, grouped))
    expected = values(None, 1)
    for name, value in values(plan, 4).items():
        assert torch.equal(value, expected[name]), name


BLOCKS = [32, 8, 8]


def test_block_sizes_without_example_inputs(cluster):
    """Given in words, before any program says what comes apart."""
    module = Attention(8, 2, split, grouped)
    x = rand(BATCH, LENGTH, WIDTH)
    plan = {"qkv": sp.ColwiseParallel(block_sizes=BLOCKS),
            "wo": RowwiseParallel()}
    with cluster.parallelize_module(module, {"tp": 2}, plan) as m:
        cut = Packed(0, ((32,), (8,), (8,)))
        check_shards(m, module, cuts_of(module, cut, 1))
        assert_close(m(x), module(x), "forward")
        assert_counts(m, forward={"all_reduce": 1})


def test_block_sizes_are_refined(cluster):
    """What is given is where it comes apart; that two ranks have to share a
    key head the program shows."""
    module = Attention(8, 2, split, grouped)
    x = rand(BATCH, LENGTH, WIDTH)
    plan = {"qkv": sp.ColwiseParallel(block_sizes=BLOCKS),
            "wo": RowwiseParallel()}
    with cluster.parallelize_module(module, {"tp": 4}, plan,
                                    example_inputs=(x,)) as m:
        cut = Packed(0, ((32,), (8, 4, 2), (8, 4, 2)))
        check_shards(m, module, cuts_of(module, cut, 1))


def test_without_example_inputs_or_blocks_it_is_gathered(cluster):
    """Right all the same: the program adapts to what lies there."""
    module = Attention(8, 8, split, grouped)
    x = rand(BATCH, LENGTH, WIDTH)
    with cluster.parallelize_module(module, {"tp": 4},
                                    plan_of(module)) as m:
        check_shards(m, module, cuts_of(module, 0, 1))
        assert_close(m(x), module(x), "forward")
        assert m.comm_counts()["forward"]["all_gather"] >= 1


@pytest.mark.parametrize("blocks, message", [
    ([32, 8], r"has blocks of 48 elements together; got: 32\+8 = 40"),
    ([48, 0], "expected sizes above 0, got: 0"),
    ([32.0, 16], "expected sizes above 0, got: 32.0"),
])
def test_bad_block_sizes(cluster, blocks, message):
    module = Attention(8, 2, split, grouped)
    with pytest.raises(sp.ShardplaneError, match=message):
        cluster.parallelize_module(
            module, {"tp": 2}, {"qkv": sp.ColwiseParallel(block_sizes=blocks)})


def test_what_the_report_says(cluster):
    module = Attention(8, 2, split, grouped)
    x = rand(BATCH, LENGTH, WIDTH)
    with cluster.parallelize_module(module, {"tp": 4}, plan_of(module),
                                    example_inputs=(x,)) as m:
        notes = [w.message for w in m.report.notes
                 if w.reason == "PACKED"]
        assert notes[0] == (
            '"qkv.weight" is cut as [S(0: 32, 2*4/2, 2*4/2)]: so the program '
            "takes it apart")
        parts = str(m.explain("qkv.weight"))
        assert "[8:16+32:36+40:44, 0:24]" in parts
        assert "[16:24+36:40+44:48, 0:24]" in parts
        m.forward_backward(x, loss="sum")
        why = str(m.explain("qkv"))
        assert "gradients of 2 parameters" in why
