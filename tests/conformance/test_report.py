"""What a report predicts is what a run does: collectives for every call of
these tests (tests/parity.py), and here the peak of memory and FLOPs."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, PrepareModuleInput, RowwiseParallel, SequenceParallel)

import shardplane as sp
from tests import devices
from tests.models import (
    MLPModule, MLPStacked, Transformer, TransformerArgs, transformer_plan)

F32 = torch.float32
# Where ranks do not share memory, what they send is staged; nobody predicts it.
# NCCL takes parts of another dim than the first from memory that it is moved to.
_STAGED = devices.collectives() == (
    "gloo" if devices.device() == "cpu" else "auto")
PAIR = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
ranks = pytest.mark.parametrize("tp", [1, 2, 4])


def check_peak(m, what):
    """Within 10 % on every rank. Activations are megabytes: what operators
    need besides does not count."""
    predicted = [line.peak_run_bytes for line in m.program_report().memory]
    measured = m.peak_run_bytes
    assert len(measured) == len(predicted) == m.num_ranks
    for rank, (expected, actual) in enumerate(zip(predicted, measured)):
        if _STAGED:
            assert expected <= 1.1 * actual, f"{what}: rank {rank}"
            continue
        assert actual > 1 << 20, f"{what}: rank {rank} holds {actual} bytes"
        assert abs(expected - actual) <= actual / 10, (
            f"{what}: rank {rank}: predicted {expected:,}, got {actual:,} "
            f"({expected / actual:.3f})")


def check_model(cluster, module, plan, x, tp, forward=True, loss="sum"):
    with cluster.parallelize_module(module, {"tp": tp}, plan,
                                    example_inputs=(x,), loss=loss) as m:
        if forward:
            m(x)
            check_peak(m, "forward")
        m.step(x, optimizer=sp.SGD(lr=1e-3))
        check_peak(m, "step")


@ranks
def test_mlp(cluster, tp):
    torch.manual_seed(1)
    check_model(cluster, MLPModule(inputs=256, hidden=1024, dtype=F32), PAIR,
                torch.rand(2048, 256), tp)


@ranks
def test_mlp_stacked(cluster, tp):
    torch.manual_seed(1)
    check_model(
        cluster, MLPStacked(n_layers=4, inputs=256, hidden=512, dtype=F32),
        {"layers.*.net1": ColwiseParallel(),
         "layers.*.net2": RowwiseParallel()}, torch.rand(2048, 256), tp)


@ranks
def test_mlp_of_uneven_parts(cluster, tp):
    torch.manual_seed(1)
    check_model(cluster, MLPModule(inputs=250, hidden=1022, dtype=F32), PAIR,
                torch.rand(2048, 250), tp)


@ranks
def test_mlp_whose_input_has_a_gradient(cluster, tp):
    torch.manual_seed(1)
    check_model(cluster, MLPModule(inputs=512, hidden=512, dtype=F32), PAIR,
                torch.rand(2048, 512, requires_grad=True), tp, loss="mean")


class Activations(nn.Module):
    """Element by element, one after the other; softmax and norm too."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(256, 512)
        self.norm = nn.LayerNorm(512)
        self.down = nn.Linear(512, 256)

    def forward(self, x):
        h = self.norm(self.up(x))
        h = nn.functional.gelu(h) * torch.sigmoid(h)
        h = nn.functional.silu(h) + torch.tanh(h)
        return self.down(torch.softmax(h, -1))


@ranks
def test_activations(cluster, tp):
    torch.manual_seed(1)
    check_model(cluster, Activations(), {"up": ColwiseParallel(
        output_layouts=torch.distributed.tensor.Replicate())},
        torch.rand(2048, 256), tp)


class SequenceMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(256)
        self.up = nn.Linear(256, 1024)
        self.down = nn.Linear(1024, 256)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


@ranks
def test_sequence_parallel(cluster, tp):
    torch.manual_seed(1)
    plan = {"": PrepareModuleInput(input_layouts=Shard(1),
                                   desired_input_layouts=Shard(1)),
            "norm": SequenceParallel(),
            "up": ColwiseParallel(input_layouts=Shard(1)),
            "down": RowwiseParallel(output_layouts=Shard(1))}
    check_model(cluster, SequenceMLP(), plan, torch.rand(4, 512, 256), tp)


@ranks
@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_transformer(cluster, tp, sequence_parallel):
    torch.manual_seed(1)
    args = TransformerArgs(layers=2, vocabulary=256, positions=256, dim=128,
                           heads=4, dtype=F32)
    check_model(cluster, Transformer(args),
                transformer_plan(sequence_parallel),
                torch.randint(0, 256, (8, 256)), tp)


# A rank's own sizes: 1022 hidden units over 4 ranks are 256, 256, 256 and 254.
def test_flops_by_rank(cluster):
    x = torch.zeros(8, 10)
    report = cluster.parallelize_module(
        MLPModule(hidden=1022, dtype=F32), {"tp": 4}, PAIR,
        example_inputs=(x,), loss="sum", validate_only=True)
    one = 2 * 8 * 10
    assert [(f.forward, f.backward) for f in report.flops] == [
        (2 * n * one, 3 * n * one) for n in (256, 256, 256, 254)]
    assert report.flops_per_rank == 5 * 256 * one
