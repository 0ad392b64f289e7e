"""Products in pieces beside the collectives that their operands come from and
their results go into, where link costs say that it pays."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (ColwiseParallel,
                                               PrepareModuleInput,
                                               RowwiseParallel)

import shardplane as sp
from tests.conformance.test_data_parallel import check_steps, cross_entropy
from tests.conformance.test_report import check_peak
from tests.models import (Transformer, TransformerArgs, rand, tokens,
                          transformer_plan)
from tests.parity import assert_counts, assert_predicted

# Calls cost nothing, and all of the bytes' time passes beside operators.
BESIDE = {"us_per_mib": 1000, "beside": 1}


class Gated(nn.Module):
    """Llama's feed-forward: two products on what one gather makes."""

    def __init__(self, dim, hidden, bias, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(3)
        options = {"bias": bias, "dtype": dtype}
        self.gate = nn.Linear(dim, hidden, **options)
        self.up = nn.Linear(dim, hidden, **options)
        self.down = nn.Linear(hidden, dim, **options)

    def forward(self, x):
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


PLAN = {"": PrepareModuleInput(input_layouts=Shard(1),
                               desired_input_layouts=Replicate()),
        "gate": ColwiseParallel(), "up": ColwiseParallel(),
        "down": RowwiseParallel(output_layouts=Shard(1))}


def total(y):
    return y.square().sum()


def train(m, reference, batch, loss):
    check_steps(m, reference, [batch] * 3, loss,
                torch.optim.Adam(reference.parameters(), lr=1e-2),
                sp.Adam(lr=1e-2))


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("rows", [4, 6, 3])
@pytest.mark.parametrize("mesh", [{"tp": 2}, {"tp": 4}, {"tp": 3}],
                         ids=["tp2", "tp4", "uneven"])
def test_pieces_of_a_batch(cluster, mesh, rows, bias):
    """Four pieces where four divide the batch, else two or none."""
    pieces = {4: 4, 6: 2, 3: 1}[rows]
    reference = Gated(8, 16, bias)
    x = rand(rows, 7, 8, requires_grad=True)
    with cluster.parallelize_module(deepcopy(reference), mesh, PLAN,
                                   example_inputs=(x,), loss=total,
                                   link_costs=BESIDE) as m:
        train(m, reference, (x,), total)
        # One gather and one scatter each way, in pieces.
        both = {"all_gather": pieces, "reduce_scatter": pieces}
        assert_counts(m, forward=both, backward=both)
        text = m.report.program_text.split("backward\n")[0]
        assert text.count("aten.split") == (2 if pieces > 1 else 0)
        # But for the first piece gathered and, without a bias that is added
        # to it, the last one scattered.
        asynchronous = pieces - 1 + (pieces if bias else pieces - 1)
        assert text.count("start %") == (asynchronous if pieces > 1 else 0)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("shape, cut, mesh", [
    ((1, 16, 8), 1, {"tp": 2}), ((1, 16, 8), 1, {"tp": 4}),
    ((16, 8), 0, {"tp": 2}), ((16, 3, 5, 8), 0, {"tp": 4}),
    ((16, 8), 0, {"dp": 2, "tp": 2})],
    ids=["sequence_2", "sequence_4", "tokens", "four_dims", "tokens_dp"])
def test_pieces_of_what_travels(cluster, shape, cut, mesh, bias):
    """The dim that is gathered and scattered is the only one that divides: a
    piece has rows of each rank."""
    reference = Gated(8, 16, bias)
    x = rand(*shape, requires_grad=True)
    plan = PLAN | {
        "": PrepareModuleInput(input_layouts=Shard(cut),
                               desired_input_layouts=Replicate()),
        "down": RowwiseParallel(output_layouts=Shard(cut))}
    kind = "replicate" if "dp" in mesh else None
    with cluster.parallelize_module(deepcopy(reference), mesh, plan,
                                    example_inputs=(x,), loss=total,
                                    data_parallel=kind,
                                    link_costs=BESIDE) as m:
        train(m, reference, (x,), total)
        pieces = m.comm_counts()["forward"].get("all_gather", 0)
        if "dp" in mesh:  # tokens are the batch, which dp has cut already
            assert pieces == 1
        else:
            assert pieces == 4
            assert "aten.reshape" in m.report.program_text


def test_as_many_bytes(cluster):
    """As without pieces: nothing runs beside shared memory's copies."""
    x, bytes_moved = rand(4, 8, 8), []
    for costs in (None, BESIDE):
        with cluster.parallelize_module(
                Gated(8, 16, True), {"tp": 4}, PLAN, example_inputs=(x,),
                loss="sum", link_costs=costs) as m:
            m.step(x, optimizer=sp.SGD(lr=0.25))
            assert_predicted(m)
            bytes_moved.append(m.comm_bytes())
    assert bytes_moved[0] == bytes_moved[1]


@pytest.mark.parametrize("recompute", [(), "layers.*", "layers.*.feed_forward"],
                         ids=["kept", "layers", "feed_forward"])
@pytest.mark.parametrize("mesh", [{"tp": 4}, {"dp": 2, "tp": 2}],
                         ids=["tp4", "dp_tp"])
def test_transformer(cluster, mesh, recompute):
    reference = Transformer(TransformerArgs(layers=3, dropout=0.0,
                                            tied=False))
    x, target = tokens(seed=1), tokens(seed=2)
    kind = "fully_shard" if "dp" in mesh else None
    with cluster.parallelize_module(
            deepcopy(reference), mesh, transformer_plan(True),
            example_inputs=(x,), example_targets=(target,),
            loss=cross_entropy, data_parallel=kind, recompute=recompute,
            link_costs=BESIDE) as m:
        # q, k, v; wo; w1; w2 of each layer, and the output.
        forward = m.report.program_text.split("backward\n")[0]
        assert forward.count("aten.split") == 3 * 4 + 1
        train(m, reference, (x, target), cross_entropy)


def test_activations_in_parts(cluster):
    """What is gathered in pieces gives its memory back in pieces."""
    reference = Transformer(TransformerArgs(layers=2, dropout=0.0,
                                            tied=False))
    x, target = tokens(seed=1), tokens(seed=2)
    plan = {"layers.*": sp.InputReshard(1), **transformer_plan(True)}
    with cluster.parallelize_module(
            deepcopy(reference), {"tp": 4}, plan, example_inputs=(x,),
            example_targets=(target,), loss=cross_entropy,
            link_costs=BESIDE) as m:
        assert "all_gather[tp, from 1, again]" in m.report.program_text
        train(m, reference, (x, target), cross_entropy)


def test_off(cluster):
    """By name, as the others; the costs alone do not decide."""
    x = rand(4, 8, 8)
    with cluster.parallelize_module(
            Gated(8, 16, True), {"tp": 4}, PLAN, example_inputs=(x,),
            loss="sum", overlap=("gradients",), link_costs=BESIDE) as m:
        m.step(x, optimizer=sp.SGD(lr=0.25))
        assert "aten.split" not in m.report.program_text


def test_predicted_peak(cluster):
    """Eight products in pieces; gradients of a weight are summed as they
    come."""
    dim, layers = 256, 4
    module = nn.Sequential(*(Gated(dim, 1024, False, torch.float32)
                             for _ in range(layers)))
    plan = {"*": PLAN[""]} | {f"*.{name}": style
                              for name, style in PLAN.items() if name}
    x = rand(8, 32, dim, dtype=torch.float32)
    with cluster.parallelize_module(module, {"tp": 4}, plan,
                                   example_inputs=(x,), loss="sum",
                                   link_costs=BESIDE) as m:
        assert m.report.program_text.count("aten.split") == 2 * layers
        m.step(x, optimizer=sp.SGD(lr=1e-3))
        check_peak(m, "step")


def test_why_pieces_travel(cluster):
    x = rand(4, 8, 8)
    with cluster.parallelize_module(
            Gated(8, 16, False), {"tp": 2}, PLAN, example_inputs=(x,),
            loss="sum", link_costs=BESIDE) as m:
        rows = [(row.phase, row.kind, row.fqn, row.count, row.why)
                for row in m.report.module_collectives]
    assert rows == [
        ("forward", "all_gather", "", 4,
         "layout asked by PrepareModuleInput of the root module"),
        ("forward", "reduce_scatter", "down", 4,
         "sum of a rowwise linear, left as S(1)"),
        ("backward", "all_gather", "down", 4,
         "gradient of the output of down, which forward scatters")]


@pytest.mark.parametrize("bad, error, said", [
    ("nccl", TypeError, "expected None or numbers for latency_us, us_per_mib, "
     "beside, got: 'nccl'"),
    ({"beside": True}, TypeError, "expected None or numbers"),
    ({"beside": 2}, sp.InvalidArgumentError,
     "link costs: beside is from 0 to 1; got: 2")])
def test_bad_costs(cluster, bad, error, said):
    with pytest.raises(error, match=said):
        cluster.parallelize_module(Gated(8, 16, True), {"tp": 2}, PLAN,
                                   link_costs=bad)
