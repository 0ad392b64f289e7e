"""Layers whose parameters are gathered before use, given back after it and
gathered again for the backward pass, with and without overlap."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.conformance.test_report import check_peak
from tests.models import rand
from tests.parity import (assert_close, assert_counts, assert_predicted,
                          check_gradients, check_parameters)

LAYERS = 4
OVERLAPS = {"none": (), "prefetch": ("prefetch",), "gradients": "gradients",
            "all": None}


class Layer(nn.Module):
    def __init__(self, width, hidden, **options):
        super().__init__()
        self.up = nn.Linear(width, hidden, **options)
        self.down = nn.Linear(hidden, width, **options)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


def stack(width=12, hidden=20, layers=LAYERS, dtype=torch.float64):
    torch.manual_seed(7)
    return nn.Sequential(*(Layer(width, hidden, dtype=dtype)
                           for _ in range(layers)))


def lines(m, *words):
    return [line for line in m.report.program_text.splitlines()
            if all(word in line for word in words)]


@pytest.mark.parametrize("overlap", OVERLAPS.values(), ids=OVERLAPS)
@pytest.mark.parametrize("mesh, plan", [
    ({"dp": 4}, {}),
    ({"dp": 2, "tp": 2}, {"*.up": ColwiseParallel(),
                          "*.down": RowwiseParallel()}),
    ({"a": 2, "b": 2}, {})], ids=["dp", "dp_tp", "two_dims"])
def test_each_layer_travels_by_itself(cluster, mesh, plan, overlap):
    """Gathered once forward and again backward, but for the last layer; its
    gradients go back in one reduce-scatter."""
    reference, x = stack(), rand(7, 12)
    kinds = dict.fromkeys(mesh.keys() - {"tp"}, "fully_shard")
    with cluster.parallelize_module(
            deepcopy(reference), mesh, plan, example_inputs=(x,), loss="mean",
            data_parallel=kinds, unit_bytes=0, overlap=overlap) as m:
        optimizer = torch.optim.Adam(reference.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            expected = reference(x).mean()
            expected.backward()
            assert_close(m.step(x, optimizer=sp.Adam(lr=1e-2)), expected,
                         "loss")
            assert_predicted(m)
            check_gradients(m, reference)
            optimizer.step()
        check_parameters(m, reference, "after three steps")
        sums = {"all_reduce": LAYERS} if plan else {}
        back = {"all_reduce": LAYERS - 1} if plan else {}
        assert_counts(
            m, forward={"all_gather": len(kinds) * LAYERS} | sums,
            backward={"all_gather": len(kinds) * (LAYERS - 1),
                      "reduce_scatter": len(kinds) * LAYERS} | back)
        assert_close(m(x), reference(x), "forward")
        assert lines(m, "reshard")
        ahead = lines(m, "start", "all_gather")
        assert bool(ahead) == (overlap is None or "prefetch" in overlap)
        behind = lines(m, "start", "reduce_scatter")
        assert bool(behind) == (overlap is None or "gradients" in overlap)


@pytest.mark.parametrize("overlap", OVERLAPS.values(), ids=OVERLAPS)
def test_replicas_reduce_full_buckets(cluster, overlap):
    """Two layers of 16 MB in float64: one bucket each and the rest."""
    torch.manual_seed(3)
    reference = nn.Sequential(*(nn.Linear(1448, 1448, dtype=torch.float64)
                                for _ in range(4)))
    x = rand(4, 1448)
    with cluster.parallelize_module(
            deepcopy(reference), {"dp": 2}, {}, example_inputs=(x,),
            loss="mean", data_parallel="replicate", overlap=overlap) as m:
        expected = reference(x).mean()
        expected.backward()
        assert_close(m.forward_backward(x), expected, "loss")
        assert_predicted(m)
        check_gradients(m, reference)
        assert_counts(m, forward={}, backward={"all_reduce": 2})
        started = lines(m, "start", "all_reduce")
        assert len(started) == (overlap is None or "gradients" in overlap)


@pytest.mark.parametrize("overlap, forward, step", [((), 2.0, 4.0),
                                                    (None, 2.25, 5.75)],
                         ids=["none", "all"])
def test_two_layers_are_there_at_a_time(cluster, overlap, forward, step):
    """Eight layers of 4 MB on four ranks; peaks in layers, beside what each
    rank stores. Forward: a layer and its gathered buffer, or the next layer,
    of which a quarter is sent. Backward, the gradients that it has made (two
    layers in the end), and one layer's on their way."""
    ranks, layers = 4, 8
    module = stack(512, 1024, layers, torch.float32)
    layer = sum(p.numel() * 4 for p in module[0].parameters())
    x = rand(8, 512, dtype=torch.float32)
    with cluster.parallelize_module(
            module, {"dp": ranks}, {}, example_inputs=(x,), loss="sum",
            data_parallel="fully_shard", overlap=overlap) as m:
        m(x)
        for memory in m.program_report().memory:
            assert memory.parameter_bytes == layers * layer / ranks
        check_peak(m, "forward")
        assert max(m.peak_run_bytes) <= 1.01 * forward * layer
        m.step(x, optimizer=sp.SGD(lr=1e-3))
        check_peak(m, "step")
        assert max(m.peak_run_bytes) <= 1.01 * step * layer


@pytest.mark.parametrize("bad, error, said", [
    ("all", ValueError, "expected some of 'prefetch', 'gradients', "
     "'input_gradients', 'chunks', got: 'all'"),
    (3, TypeError, "expected None or some of 'prefetch', 'gradients', "
     "'input_gradients', 'chunks', got: 3")])
def test_bad_overlap(cluster, bad, error, said):
    with pytest.raises(error, match=said):
        cluster.parallelize_module(stack(), {"dp": 2}, {}, overlap=bad)


def test_units_have_no_negative_size(cluster):
    with pytest.raises(sp.InvalidArgumentError,
                       match="unit_bytes: expected 0 or more, got: -1"):
        cluster.parallelize_module(stack(), {"dp": 2}, {}, unit_bytes=-1,
                                   data_parallel="fully_shard")
