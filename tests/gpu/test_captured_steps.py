"""Steps with fused operators and their kernels, as graphs of a GPU, on one
rank. On CPUs the operators run as calls, and step by step."""

import dataclasses
from copy import deepcopy

import pytest
import torch
from torch import nn

import shardplane as sp
from bench.measure.gpu_models import SHAPES, Llama, loss_of
from tests.gpu.clusters import DEVICES, cluster_on

SHAPE = dataclasses.replace(
    SHAPES["tiny"], dim=64, hidden=128, heads=4, kv_heads=2, vocabulary=96,
    batch=2, length=24)
STEPS = 6  # of which the third is captured, and the fifth's update


class Model(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(3)
        self.llama = Llama(SHAPE)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids):
        return self.dropout(self.llama(ids))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(SHAPE.vocabulary, (SHAPE.batch, SHAPE.length + 1),
                        generator=generator)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


@pytest.fixture(scope="module", params=DEVICES)
def fast(request):
    with cluster_on(request.param, 1, coordinator_args=["--fused_operators"],
                    worker_args=["--cuda_graphs"]) as cluster:
        cluster.on_gpu = request.param != "cpu"
        yield cluster


def train(cluster, module, **options):
    ids, targets = batch(0)
    return cluster.parallelize_module(
        module, {"tp": 1}, {}, example_inputs=(ids,), loss=loss_of,
        example_targets=(targets,), **options)


def log_of(cluster):
    return cluster.processes[1].log_tail()


def test_steps_are_pytorchs(fast):
    module = Model()
    reference = deepcopy(module)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9)
    with train(fast, module) as m:
        for name, count in {"swiglu": 2, "rotary": 4, "add_rms_norm": 4,
                            "cross_entropy": 1}.items():
            found = m.report.program_text.count(f"shardplane.{name}.default(")
            assert found == count, name
        for step in range(STEPS):
            ids, targets = batch(step)
            loss = m.step(ids, targets=targets,
                          optimizer=sp.SGD(lr=0.05, momentum=0.9))
            expected = loss_of(reference(ids), targets)
            optimizer.zero_grad()
            expected.backward()
            optimizer.step()
            assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(m.state_dict()[name], value,
                                       rtol=1e-3, atol=1e-5)
        if fast.on_gpu:
            assert "kernels of this GPU" in log_of(fast)
            assert "steps run as a CUDA graph" in log_of(fast)


def test_updates_are_pytorchs(fast):
    module = Model()
    reference = deepcopy(module)
    optimizer = torch.optim.AdamW(reference.parameters())
    with train(fast, module) as m:
        for step in range(STEPS):
            ids, targets = batch(step)
            lr = 0.01 / (1 + step)
            m.step(ids, targets=targets, optimizer=sp.AdamW(lr=lr, eps=0.1),
                   clip_norm=0.2)
            for group in optimizer.param_groups:
                group.update(lr=lr, eps=0.1)
            optimizer.zero_grad()
            loss_of(reference(ids), targets).backward()
            nn.utils.clip_grad_norm_(reference.parameters(), 0.2)
            optimizer.step()
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(m.state_dict()[name], value,
                                       rtol=1e-3, atol=1e-5)
        if fast.on_gpu:
            assert "updates run as a CUDA graph" in log_of(fast)


def test_an_id_out_of_range_changes_nothing(fast):
    beyond = SHAPE.vocabulary
    with train(fast, Model()) as m:
        for step in range(STEPS):
            ids, targets = batch(step)
            bad = targets.clone()
            bad[1, 2] = beyond
            before = m.state_dict()
            with pytest.raises(sp.InvalidArgumentError,
                               match=f"Target {beyond} is out of bounds"):
                m.step(ids, targets=bad, optimizer=sp.SGD(lr=0.1))
            for name, value in m.state_dict().items():
                assert torch.equal(value, before[name]), name
            m.step(ids, targets=targets, optimizer=sp.SGD(lr=0.1))


def test_steps_with_dropout_are_those_of_a_cpu(fast, shared_cluster):
    def losses(cluster):
        with train(cluster, Model(dropout=0.5), seed=11) as m:
            return [m.step(ids, targets=targets,
                           optimizer=sp.SGD(lr=0.05)).item()
                    for ids, targets in map(batch, range(STEPS))]
    assert losses(fast) == pytest.approx(losses(shared_cluster), rel=1e-5)


def test_micro_batches_accumulate(fast):
    reference = Model()
    with train(fast, Model()) as m:
        for _ in range(STEPS):
            reference.zero_grad()
            for step in range(3):
                ids, targets = batch(step)
                loss_of(reference(ids), targets).backward()
                m.forward_backward(ids, targets=targets, accumulate=step > 0)
            gradients = m.gradients()
            for name, parameter in reference.named_parameters():
                torch.testing.assert_close(gradients[name], parameter.grad,
                                           rtol=1e-3, atol=1e-5)
