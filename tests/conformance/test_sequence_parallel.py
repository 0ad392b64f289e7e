"""SequenceParallel, by the numbers of section C-3 of behaviour.md: PyTorch's
options and results, and none of its traps."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, RowwiseParallel, SequenceParallel)

import shardplane as sp
from tests.models import RMSNormPython, rand
from tests.parity import (
    assert_at_most, assert_bytes, assert_close, assert_counts, chunk,
    parallelized, total)

MESH = {"tp": 4}
RANKS = 4
F64 = 8
BATCH, LENGTH, DIM = 3, 10, 8  # 10 positions: 3, 3, 3, 1
ACTIVATION = BATCH * 12 * DIM * F64  # padded


def x_input(requires_grad=False, seed=0):
    return rand(BATCH, LENGTH, DIM, seed=seed, requires_grad=requires_grad)


def layer_norm(seed=5, **options):
    """With weights that are not ones and zeros."""
    norm = nn.LayerNorm(DIM, dtype=torch.float64, **options)
    with torch.no_grad():
        for i, parameter in enumerate(norm.parameters()):
            parameter.copy_(rand(DIM, seed=seed + 10 * i))
    return norm


def rms_norm():
    norm = RMSNormPython(DIM)
    with torch.no_grad():
        norm.weight.copy_(rand(DIM, seed=3))
    return norm


def aten_rms_norm():
    norm = nn.RMSNorm(DIM, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(rand(DIM, seed=4))
    return norm


NORMS = {
    "layer_norm": layer_norm,
    "layer_norm_without_bias": lambda: layer_norm(bias=False),
    "layer_norm_not_affine": lambda: layer_norm(elementwise_affine=False),
    "rms_norm": aten_rms_norm,
    "rms_norm_python": rms_norm,
}


def check_output_shards(m, expected, dim):
    for (shard,), piece in zip(m.output_shards(),
                               chunk(expected, dim, RANKS)):
        assert_close(shard, piece)


@pytest.mark.parametrize("style", [SequenceParallel(), sp.SequenceParallel(),
                                   SequenceParallel(sequence_dim=1,
                                                    use_local_output=True)],
                         ids=["default", "ours", "local"])
def test_c40_defaults(cluster, no_warnings, style):
    """Dim 1; whatever `use_local_output` says, a client gets all of it."""
    x = x_input()
    with parallelized(cluster, layer_norm(), MESH, style, x=x) as case:
        case.check_start()
        expected = case.check_forward(x)
        check_output_shards(case.m, expected, 1)
        assert_counts(case.m, forward={})


def test_c40_repr_and_json_name_the_dim(cluster):
    report = cluster.parallelize_module(
        nn.Sequential(layer_norm()), MESH,
        {"0": SequenceParallel(sequence_dim=-2)}, validate_only=True)
    (assignment,) = report.assignments
    assert assignment.fqn == "0"
    assert assignment.style.startswith("SequenceParallel")
    assert report.placements == {"0.weight": "[R]", "0.bias": "[R]"}


@pytest.mark.parametrize("name", NORMS)
def test_c41_c47_c48_norms(cluster, name):
    """C48: nothing forward; C47: PyTorch leaves the gradients of the
    parameters partial, and reduces each of them at each use."""
    module = NORMS[name]()
    x = x_input(requires_grad=True)
    with parallelized(cluster, module, MESH, SequenceParallel(),
                      x=x) as case:
        case.check_start()
        expected = case.check_forward(x)
        check_output_shards(case.m, expected, 1)
        assert_counts(case.m, forward={})
        case.check_backward(x)
        parameters = len(list(module.parameters()))
        assert_counts(case.m, forward={},
                      backward={"all_reduce": 1} if parameters else {})
        assert_bytes(case.m, forward=0, backward=parameters * DIM * F64)
        if parameters:
            case.check_step(x)
            assert_counts(case.m, optimizer={})


class Scale(nn.Module):
    """Anything may run on a part of the sequence."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(rand(DIM))

    def forward(self, x):
        return torch.tanh(x) * self.scale


@pytest.mark.parametrize("module", [nn.GELU(), nn.Identity(), Scale(),
                                    nn.Softmax(-1)],
                         ids=lambda module: type(module).__name__)
def test_c41_any_module(cluster, module):
    x = x_input(requires_grad=True)
    with parallelized(cluster, module, MESH, SequenceParallel(),
                      x=x) as case:
        case.check_start()
        expected = case.check_forward(x)
        check_output_shards(case.m, expected, 1)
        case.check_backward(x)
        used = bool(list(module.parameters()))
        assert_counts(case.m, forward={},
                      backward={"all_reduce": 1} if used else {})
        assert_bytes(case.m, forward=0, backward=DIM * F64)


def test_c41_a_module_that_mixes_positions(cluster):
    """Right, although a part of the sequence is not enough for it."""
    x = x_input(requires_grad=True)
    with parallelized(cluster, nn.Softmax(1), MESH, SequenceParallel(),
                      x=x) as case:
        case.check_forward(x)
        assert_at_most(case.m, forward={"all_gather": 1, "all_to_all": 2})
        case.check_backward(x)
        assert_bytes(case.m, forward=2 * ACTIVATION, backward=2 * ACTIVATION)


def test_c42_parameters_come_from_the_source_rank(cluster):
    """PyTorch lets ranks that differ stay different for ever."""
    norms = [layer_norm(seed=rank) for rank in range(RANKS)]
    x = x_input()
    m = cluster.parallelize_module(norms, MESH, SequenceParallel(),
                                   src_data_rank=2)
    assert_at_most(m, materialize={"broadcast": 2})
    for name, value in norms[2].state_dict().items():
        assert torch.equal(m.state_dict()[name], value), name
        for shard in m.shards(name):
            assert torch.equal(shard, value), name
    assert_close(m(x), norms[2](x))
    m.close()


def test_c42_no_source_rank(cluster):
    """Each rank keeps its own, and nothing travels: as it was asked for."""
    norms = [layer_norm(seed=rank) for rank in range(RANKS)]
    with cluster.parallelize_module(norms, MESH, SequenceParallel(),
                                    src_data_rank=None) as m:
        assert total(m.comm_counts()) == 0
        for rank, shard in enumerate(m.shards("weight")):
            assert torch.equal(shard, norms[rank].weight)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_c43_frozen_stays_frozen(cluster, frozen):
    """PyTorch thaws what it wraps."""
    module = layer_norm()
    module.get_parameter(frozen).requires_grad_(False)
    x = x_input()
    with parallelized(cluster, module, MESH, SequenceParallel(),
                      x=x) as case:
        case.check_start()
        case.check_step(x)
        assert set(case.m.gradients()) == {"weight", "bias"} - {frozen}
        assert torch.equal(case.m.state_dict()[frozen],
                           module.state_dict()[frozen])
        assert_counts(case.m, backward={"all_reduce": 1}, optimizer={})
        assert_bytes(case.m, backward=DIM * F64)


def test_c43_all_frozen(cluster):
    module = layer_norm().requires_grad_(False)
    x = x_input(requires_grad=True)
    with parallelized(cluster, module, MESH, SequenceParallel(),
                      x=x) as case:
        case.check_backward(x)
        assert case.m.gradients() == {}
        assert_counts(case.m, forward={}, backward={})


class Wrapped(nn.Module):
    """Parameters of its own, and a norm within that has some too."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(rand(DIM, seed=8))
        self.inner = nn.ModuleDict({"norm": rms_norm()})

    def forward(self, x):
        return self.inner["norm"](x + self.shift)


def test_c44_parameters_within(cluster):
    """PyTorch: KeyError, a parameter name can't contain a dot."""
    module = nn.Sequential(Wrapped())
    x = x_input(requires_grad=True)
    with parallelized(cluster, module, MESH, {"0": SequenceParallel()},
                      x=x) as case:
        case.check_start()
        expected = case.check_forward(x)
        check_output_shards(case.m, expected, 1)
        case.check_backward(x)
        assert_counts(case.m, forward={}, backward={"all_reduce": 1})
        assert_bytes(case.m, forward=0, backward=2 * DIM * F64)
        case.check_step(x)


def test_c45_the_whole_sequence_goes_in(cluster):
    """PyTorch takes a plain tensor for the local shard, and so makes the
    sequence longer by the number of ranks. A client gives all of it."""
    for length in (LENGTH, 2, 1):  # ranks without any position, too
        x = rand(BATCH, length, DIM)
        with parallelized(cluster, layer_norm(), MESH, SequenceParallel(),
                          x=x) as case:
            assert case.check_forward(x).shape == (BATCH, length, DIM)
            case.check_step(x)
            assert_counts(case.m, forward={}, backward={"all_reduce": 1})


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = layer_norm()

    def forward(self, x, residual, *, scale):
        return self.norm(x) * scale + residual


def test_c45_only_the_first_input_is_cut_by_the_style(cluster):
    x, residual = x_input(), x_input(seed=1)
    scale = rand(DIM, seed=2)
    module = TwoInputs()
    with cluster.parallelize_module(module, MESH, SequenceParallel()) as m:
        assert_close(m(x, residual, scale=scale),
                     module(x, residual, scale=scale))
        assert_counts(m, forward={})


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_c46_any_sequence_dim(cluster, dim):
    """A norm over the cut dim itself needs it whole, and only then."""
    x = x_input(requires_grad=True)
    style = SequenceParallel(sequence_dim=dim)
    with parallelized(cluster, layer_norm(), MESH, style, x=x) as case:
        case.check_start()
        case.check_forward(x)
        whole = dim % 3 == 2
        assert_at_most(case.m, forward={"all_gather": 1} if whole else {})
        case.check_backward(x)
        # Whole, all ranks do the same work: nothing is left to reduce.
        assert_at_most(
            case.m, forward={"all_gather": 1} if whole else {},
            backward={"reduce_scatter": 1, "all_reduce": 1, "all_gather": 1}
            if whole else {"all_reduce": 1})
        assert_bytes(case.m, forward=ACTIVATION if whole else 0,
                     backward=2 * ACTIVATION + 2 * DIM * F64 if whole
                     else 2 * DIM * F64)


def test_c46_default_dim_of_a_matrix(cluster):
    """Dim 1 of [rows, hidden] is what the norm is over."""
    x = rand(6, DIM, requires_grad=True)
    with parallelized(cluster, layer_norm(), MESH, SequenceParallel(),
                      x=x) as case:
        case.check_forward(x)
        assert_at_most(case.m, forward={"all_gather": 1})
        case.check_backward(x)
        assert_bytes(case.m, forward=6 * DIM * F64,
                     backward=2 * 6 * DIM * F64 + 2 * DIM * F64)


@pytest.mark.parametrize("dim", [3, -4])
def test_c46_no_such_dim(cluster, dim):
    with pytest.raises(sp.InvalidArgumentError) as raised:
        cluster.parallelize_module(
            nn.Sequential(layer_norm()), MESH,
            {"0": SequenceParallel(sequence_dim=dim)},
            example_inputs=(x_input(),))
    assert str(dim) in raised.value.message
    assert "0" in raised.value.message
    assert cluster.deployments() == []


class Block(nn.Module):
    """Two norms around a pair of linears, as in a Transformer's block."""

    def __init__(self):
        super().__init__()
        self.first = layer_norm()
        self.up = nn.Linear(DIM, 4 * DIM, dtype=torch.float64)
        self.down = nn.Linear(4 * DIM, DIM, dtype=torch.float64)
        self.last = layer_norm(seed=6)

    def forward(self, x):
        return self.last(x + self.down(torch.relu(self.up(self.first(x)))))


BLOCK_PLAN = {"first": SequenceParallel(), "last": SequenceParallel(),
              "up": ColwiseParallel(input_layouts=Shard(1)),
              "down": RowwiseParallel(output_layouts=Shard(1))}
BLOCK_CUTS = {"up.weight": 0, "up.bias": 0, "down.weight": 1}


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_c47_gradients_of_all_norms_in_one_bucket(cluster, ranks):
    """Four parameters: PyTorch runs 4 all-reduces each time they are read.
    The gradient of the rowwise bias is of the gather that is there anyway."""
    torch.manual_seed(5)
    x = x_input()
    with parallelized(cluster, Block(), {"tp": ranks}, BLOCK_PLAN,
                      cuts=BLOCK_CUTS, x=x) as case:
        case.check_start()
        case.check_forward(x)
        case.check_backward(x)
        assert_counts(
            case.m, forward={"all_gather": 1, "reduce_scatter": 1},
            backward={"all_gather": 1, "reduce_scatter": 1, "all_reduce": 1},
            optimizer={})
        assert_bytes(case.m, forward=2 * ACTIVATION,
                     backward=2 * ACTIVATION + 4 * DIM * F64)
        case.check_adam_steps(x, x_input(seed=1),
                              lambda y, t: ((y - t) ** 2).mean())


class Lead(nn.Module):
    """A linear, whose output lies as its style says, and then a norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.lead = nn.Linear(DIM, DIM, dtype=torch.float64)
        self.norm = layer_norm()

    def forward(self, x):
        return self.norm(self.lead(x))


# How the norm's input lies: what PyTorch runs for it (C48), forward and
# backward, beside the rowwise linear's own.
LEADS = {
    "shard_0": (Shard(0), {"reduce_scatter": 1, "all_to_all": 1},
                {"all_gather": 1, "all_to_all": 1}),
    "shard_1": (Shard(1), {"reduce_scatter": 1}, {"all_gather": 1}),
    "replicate": (Replicate(), {"all_reduce": 1}, {"all_gather": 1}),
    "partial": (Partial(), {"reduce_scatter": 1}, {"all_gather": 1}),
}


@pytest.mark.parametrize("name", LEADS)
def test_c48_however_the_input_lies(cluster, name):
    layout, forward, backward = LEADS[name]
    plan = {"lead": RowwiseParallel(output_layouts=layout),
            "norm": SequenceParallel()}
    x = x_input()
    with parallelized(cluster, Lead(), MESH, plan, cuts={"lead.weight": 1},
                      x=x) as case:
        case.check_start()
        expected = case.check_forward(x)
        check_output_shards(case.m, expected, 1)
        assert_at_most(case.m, forward=forward)
        case.check_step(x)
        assert_at_most(case.m, forward=forward,
                       backward=backward | {"all_reduce": 1}, optimizer={})
        # Cut by batch, 3 rows on 4 ranks are padded to 4.
        padded = ACTIVATION * 4 // 3
        assert_bytes(case.m, forward=2 * padded,
                     backward=2 * padded + 3 * DIM * F64)


@pytest.mark.parametrize("layout, forward, backward", [
    (Shard(0), {"all_to_all": 1}, {"all_to_all": 1}),
    (Shard(1), {}, {}),
    (Replicate(), {}, {"all_gather": 1}),
    (Partial(), {"reduce_scatter": 1}, {"all_gather": 1})],
    ids=["shard_0", "shard_1", "replicate", "partial"])
def test_c48_an_input_of_the_root(cluster, layout, forward, backward):
    """The layout says how the client's tensor is handed out."""
    plan = {"": PrepareModuleInput(input_layouts=layout,
                                   desired_input_layouts=Shard(1)),
            "norm": SequenceParallel()}
    module = nn.Sequential()
    module.add_module("norm", layer_norm())
    x = x_input(requires_grad=True)
    with parallelized(cluster, module, MESH, plan, x=x) as case:
        case.check_start()
        expected = case.check_forward(x)
        check_output_shards(case.m, expected, 1)
        case.check_backward(x)
        assert_at_most(case.m, forward=forward,
                       backward=backward | {"all_reduce": 1})
        padded = ACTIVATION * 4 // 3
        assert_bytes(case.m, forward=padded,
                     backward=padded + 2 * DIM * F64)


def test_c48_dropout(cluster):
    """No collective in either direction, and masks as for the whole."""
    x = torch.ones(BATCH, LENGTH, DIM, dtype=torch.float64,
                   requires_grad=True)
    results = []
    for plan in (SequenceParallel(), {}):
        with cluster.parallelize_module(nn.Dropout(0.5), MESH, plan,
                                        seed=3) as m:
            y = m(x)
            m.forward_backward(x, loss="sum")
            assert total(m.comm_counts()) == 0
            assert torch.equal(m.input_gradients()[0], y)
            results.append(y)
    assert torch.equal(*results)
    assert set(results[0].unique().tolist()) == {0.0, 2.0}


def test_two_styles_on_one_module_are_an_error(cluster):
    with pytest.raises(sp.InvalidArgumentError) as raised:
        cluster.parallelize_module(
            nn.Sequential(nn.Linear(DIM, DIM)), MESH,
            {"0": ColwiseParallel(), "?": SequenceParallel()})
    assert "'0'" in raised.value.message
    assert "'?'" in raised.value.message


def test_the_same_style_twice_counts_once(cluster):
    plan = {"0": SequenceParallel(), "?": SequenceParallel()}
    x = x_input()
    with parallelized(cluster, nn.Sequential(layer_norm()), MESH, plan,
                      x=x) as case:
        case.check_all(x)
        assert_counts(case.m, forward={}, backward={"all_reduce": 1})
