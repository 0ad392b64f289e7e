"""Steps of several ranks on one GPU as graphs that have NCCL's collectives. On
CPUs they run step by step."""

from copy import deepcopy

import pytest
import torch

import shardplane as sp
from tests.gpu.clusters import DEVICES, MLP_PLAN, two_workers_on
from tests.models import MLPModule, rand

STEPS = 6  # of which the third is captured
MODEL = {"hidden": 64, "dtype": torch.float32}


@pytest.fixture(params=DEVICES)
def two(request):
    with two_workers_on(request.param,
                        worker_args=["--cuda_graphs"]) as cluster:
        cluster.on_gpu = request.param != "cpu"
        yield cluster


def batch(step):
    return rand(8, 10, seed=step).float()


def logs(cluster):
    return [process.log_tail() for process in cluster.processes[1:]]


def train(cluster, module):
    return cluster.parallelize_module(
        module, {"tp": 2}, MLP_PLAN, example_inputs=(batch(0),), loss="mean")


def test_steps_are_pytorchs(two):
    module = MLPModule(**MODEL)
    reference = deepcopy(module)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.01, eps=0.1)
    with train(two, module) as m:
        for step in range(STEPS):
            loss = m.step(batch(step), optimizer=sp.AdamW(lr=0.01, eps=0.1),
                          clip_norm=0.5)
            optimizer.zero_grad()
            expected = reference(batch(step)).mean()
            expected.backward()
            torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
            optimizer.step()
            assert loss.item() == pytest.approx(expected.item(), rel=1e-4,
                                                abs=1e-6)
            # Replays count as the calls that they stand for.
            assert m.comm_counts()["forward"] == {"all_reduce": 1}
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(m.state_dict()[name], value,
                                       rtol=1e-3, atol=1e-5)
        if two.on_gpu:
            for log in logs(two):
                assert "steps run as a CUDA graph" in log


def test_a_rank_that_goes_ends_the_others_graph(two):
    """NCCL waits for graphs before it lets go of a connection."""
    with train(two, MLPModule(**MODEL)) as m:
        for step in range(STEPS):
            m.step(batch(step), optimizer=sp.SGD(lr=0.1))
        two.processes[2].kill()
        with pytest.raises(sp.ShardplaneError):
            for step in range(STEPS):
                m.step(batch(step), optimizer=sp.SGD(lr=0.1))
    two.add_workers(1)
    with train(two, MLPModule(**MODEL)) as m:
        for step in range(STEPS):
            m.step(batch(step), optimizer=sp.SGD(lr=0.1))
