"""Steps with fused operators and their kernels, as graphs of a GPU, on one
rank. On CPUs the operators run as calls, and step by step."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import shardplane as sp
from tests.gpu.clusters import DEVICES, cluster_on

VOCABULARY, WIDTH, HEADS, LENGTH = 96, 64, 4, 24
STEPS = 6  # of which the third is captured


def turned(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), -1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = nn.RMSNorm(WIDTH, eps=1e-5)
        self.gate = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.down = nn.Linear(2 * WIDTH, WIDTH, bias=False)

    def forward(self, x, h, cos, sin):
        """The residual, and what it is added to: a sum goes to its norm."""
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
                   for part in self.qkv(h).chunk(3, -1))
        q = q * cos + turned(q) * sin
        k = k * cos + turned(k) * sin
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        h = self.norm(x)
        return x, self.down(F.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    def __init__(self, dropout=0.0, layers=2, seed=3):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(layers))
        self.norms = nn.ModuleList(
            nn.RMSNorm(WIDTH, eps=1e-5) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        half = WIDTH // HEADS // 2
        angles = torch.outer(torch.arange(LENGTH) * 1.0,
                             100 ** (-torch.arange(half) / half))
        self.register_buffer("cos", torch.cat((angles, angles), -1).cos())
        self.register_buffer("sin", torch.cat((angles, angles), -1).sin())

    def forward(self, ids):
        x = self.dropout(self.embedding(ids))
        h = x
        for block, norm in zip(self.blocks, self.norms):
            x, more = block(x, h, self.cos, self.sin)
            x = x + more
            h = norm(x)
        return self.head(h)


def loss_of(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def batch(step):
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(VOCABULARY, (2, LENGTH + 1), generator=generator)
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


def test_an_id_out_of_range_changes_nothing(fast):
    with train(fast, Model()) as m:
        for step in range(STEPS):
            ids, targets = batch(step)
            bad = targets.clone()
            bad[1, 2] = VOCABULARY
            before = m.state_dict()
            with pytest.raises(sp.InvalidArgumentError,
                               match=f"Target {VOCABULARY} is out of bounds"):
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
