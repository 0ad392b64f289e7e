"""The most memory that a run takes is what the report predicts. On a GPU
LibTorch's allocator says what tensors have asked for: neither that it rounds up
to 512 bytes, nor the 2 and 20 MiB that it takes from CUDA at once, is in it."""

import pytest
import torch
from torch import nn

import shardplane as sp
from tests.gpu.clusters import DEVICES, cluster_on

# A prediction's, as on CPUs (tests/conformance/test_report.py).
MARGIN = 0.1
# cuBLAS and cuBLASLt have a workspace, on Hopper of 32 MiB, for each thread and
# stream that they compute on, and keep it: the worker's thread and autograd's
# take theirs in the first call, on the default stream, and when they capture.
WORKSPACES = 4 * (32 << 20)
STEPS = 6  # of which a graph's third is captured


class Stack(nn.Module):
    """Its activations are most of what it takes."""

    def __init__(self, width, layers):
        super().__init__()
        torch.manual_seed(4)
        self.layers = nn.ModuleList(
            nn.Linear(width, width) for _ in range(layers))

    def forward(self, x):
        for layer in self.layers:
            x = nn.functional.gelu(layer(x))
        return x


@pytest.fixture(scope="module", params=DEVICES)
def plain(request):
    with cluster_on(request.param, 1) as cluster:
        cluster.on_gpu = request.param != "cpu"
        yield cluster


@pytest.fixture(scope="module", params=DEVICES)
def graphs(request):
    with cluster_on(request.param, 1,
                    worker_args=["--cuda_graphs"]) as cluster:
        cluster.on_gpu = request.param != "cpu"
        yield cluster


def batch_of(cluster):
    # On a GPU 32 MiB an activation, on a CPU 4.
    return torch.rand(16384 if cluster.on_gpu else 2048, 512)


def train(cluster, x):
    return cluster.parallelize_module(Stack(512, 4), {"tp": 1}, {},
                                      example_inputs=(x,), loss="sum")


def check_peak(m, more=0):
    (memory,) = m.program_report().memory
    (taken,) = m.peak_run_bytes
    predicted = memory.peak_run_bytes
    print(f"predicted {predicted:,} bytes, taken {taken:,}")
    assert predicted > 8 << 20
    assert taken >= (1 - MARGIN) * predicted
    assert taken <= (1 + MARGIN) * predicted + more
    return taken


def test_of_calls_and_steps(plain):
    x = batch_of(plain)
    with train(plain, x) as m:
        m.step(x, optimizer=sp.SGD(lr=1e-3, momentum=0.9))
        check_peak(m, more=WORKSPACES if plain.on_gpu else 0)
        m(x)
        check_peak(m)
        m.step(x, optimizer=sp.SGD(lr=1e-3, momentum=0.9))
        check_peak(m)


def test_of_steps_that_are_a_graph(graphs):
    """Which has its inputs once more, and workspaces for its stream."""
    x = batch_of(graphs)
    with train(graphs, x) as m:
        peaks = []
        for step in range(STEPS):
            m.step(x, optimizer=sp.SGD(lr=1e-3, momentum=0.9))
            more = x.nbytes + WORKSPACES if graphs.on_gpu else 0
            peaks.append(check_peak(m, more if step != 1 else 0))
        if graphs.on_gpu:
            assert "steps run as a CUDA graph" in (
                graphs.processes[1].log_tail())
            assert len(set(peaks[2:])) == 1, "a replay takes what it captured"


@pytest.mark.parametrize("graphs", DEVICES[1:], indirect=True)
def test_of_a_deployment_that_is_deleted(graphs):
    """What a graph has computed in goes back, and others can have it."""
    x = batch_of(graphs)
    free = []  # (while there is one, when it is deleted)
    for _ in range(2):  # libraries have what they keep after the first
        with train(graphs, x) as m:
            for _ in range(STEPS):
                m.step(x, optimizer=sp.SGD(lr=1e-3, momentum=0.9))
            (memory,) = m.program_report().memory
            during, _ = torch.cuda.mem_get_info()
        free.append((during, torch.cuda.mem_get_info()[0]))
    (_, before), (during, after) = free
    assert during <= before - memory.peak_run_bytes
    assert after >= before - memory.peak_run_bytes / 2
