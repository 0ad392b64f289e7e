"""Pods that end and come back: SIGTERM is drain, within the grace period."""

import concurrent.futures
import os
import re
import signal

import pytest

from tests.deploy import probes
from tests.deploy.pods import Pods, wait_ready

# A step takes the workers a third of a second for each of REPEATS, and hardly
# any to send.
DEPLOY = """
import torch
from torch import nn
import shardplane as sp
torch.set_num_threads(1)
class Again(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2048, 2048)
    def forward(self, x):
        for _ in range(REPEATS):
            x = torch.tanh(self.linear(x))
        return x.sum()
x = torch.rand(768, 2048)
cluster = sp.connect("shardplane-coordinator:7070")
def deploy():
    return cluster.parallelize_module(
        Again(), {"tp": 2}, {"linear": sp.ColwiseParallel()},
        example_inputs=(x,), loss="sum")
m = deploy()
def states():
    return {w.name.removeprefix("workers/"):
            (w.address, pb.WorkerNode.State.Name(w.state))
            for w in cluster.workers()}
from shardplane.v1 import coordinator_pb2 as pb
"""
SHORT, ENDLESS = "REPEATS = 5", "REPEATS = 150"
LONG_STEP = """
reply = bool(torch.isfinite(m.step(x, optimizer=sp.SGD(lr=1e-3))))
"""


@pytest.fixture
def pods(images, tmp_path):
    with Pods("cpu-gloo", images, tmp_path) as made:
        yield made


def total(pod, pattern):
    """Of the metrics whose name and labels match."""
    _, text = probes.get(pod, "http", "/metrics")
    found = re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


def begin_long_step(client, pods):
    """Returns when the coordinator has it, and workers compute."""
    (coordinator,) = pods.of("coordinator")
    watched = [(coordinator, r"grpc_server_call_started_total\{grpc_method="
                r'"shardplane.v1.ShardingCoordinator/Step"\}', 0.5)]
    watched += [(worker, "process_cpu_seconds_total", 0.2)
                for worker in pods.of("worker")]
    before = [total(pod, pattern) for pod, pattern, _ in watched]
    client.begin(LONG_STEP)
    probes.until(lambda: all(
        total(pod, pattern) > was + more
        for (pod, pattern, more), was in zip(watched, before)))


def stop_watching(pod):
    """(exit code, what /readyz said meanwhile)"""
    said = []
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        stopped = thread.submit(pod.stop)
        while not stopped.done():
            said.append(probes.get(pod, "http", "/readyz")[0])
    return stopped.result(), said


@pytest.mark.parametrize("component", ["worker", "coordinator"])
def test_a_pod_that_is_told_to_end_finishes_its_step(pods, component):
    pods.start_all(workers=2)
    client = pods.client()
    client.run(SHORT + DEPLOY + LONG_STEP)
    begin_long_step(client, pods)
    code, said = stop_watching(pods.of(component)[0])
    assert code == 0, pods.of(component)[0].log.read_text()
    assert client.finish() is True
    assert 503 in said, said


def test_what_takes_longer_than_the_drain_is_ended(pods):
    """The step would take minutes; a grace period of the manifests has room
    for the time to drain and little more, which the processes must keep."""
    pods.changed = {"drain_ms": 1000, "drain_timeout": "1s"}
    pods.start_all(workers=2)
    client = pods.client()
    client.run(ENDLESS + DEPLOY)
    begin_long_step(client, pods)
    for pod in (*pods.of("coordinator"), *pods.of("worker")):
        pod.spec["terminationGracePeriodSeconds"] = 30
        assert pod.stop() == 0, pod.log.read_text()
    with pytest.raises(AssertionError, match="UnavailableError"):
        client.finish()


def ready(client):
    """name -> address of the workers that are READY."""
    return {name: address for name, (address, state)
            in client.run("reply = states()").items()
            if state == "STATE_READY"}


def test_what_a_worker_leaves_and_who_takes_its_place(pods):
    """One ends by itself, one is killed; StatefulSets bring pods of the same
    names, with other addresses."""
    pods.start_all(workers=2)
    client = pods.client()
    client.run(SHORT + DEPLOY)
    first, second = pods.of("worker")
    assert first.stop() == 0
    assert client.run("reply = states()")[first.name][1] == "STATE_RETIRED"
    assert set(ready(client)) == {second.name}
    os.kill(second.pid, signal.SIGKILL)
    second.process.wait(10)
    for name in (first.name, second.name):
        wait_ready(pods.start("worker", name))
    addresses = {pod.name: f"{pod.address}:7071" for pod in pods.of("worker")}
    assert addresses[first.name] != f"{first.address}:7071"
    probes.until(lambda: ready(client) == addresses)
    # What lay with them is lost; the cluster is not.
    with pytest.raises(AssertionError,
                       match="has FAILED: worker .* is RETIRED"):
        client.run("m(x)")
    assert client.run("m.close()\nm = deploy()" + LONG_STEP) is True


def test_workers_outlive_their_coordinator(pods):
    pods.start_all(workers=2)
    client = pods.client()
    client.run(SHORT + DEPLOY)
    workers = pods.of("worker")
    (coordinator,) = pods.of("coordinator")
    assert coordinator.stop() == 0
    wait_ready(pods.start("coordinator", coordinator.name))
    with pytest.raises(AssertionError, match="NotFoundError"):
        client.run("m(x)")
    assert client.run("reply = len(cluster.deployments())") == 0
    probes.until(lambda: set(ready(client)) == {w.name for w in workers})
    assert client.run("m = deploy()\nreply = tuple(m(x).shape)") == []
    assert [w.process.poll() for w in workers] == [None, None]


def test_no_process_outlives_the_test(pods):
    """Not even one that ends without a word: its pipes are closed then."""
    worker = pods.start("worker", "shardplane-worker-0")
    probes.wait(worker, "startupProbe")
    worker.guard.stdin.close()
    assert worker.process.wait(30) != 0
    assert not os.path.exists(f"/proc/{worker.pid}")


def test_a_worker_without_a_coordinator_lives_and_is_not_ready(pods):
    worker = pods.start("worker", "shardplane-worker-0")
    assert probes.wait(worker, "startupProbe") <= 10
    assert probes.passes(worker, "livenessProbe")
    assert not probes.passes(worker, "readinessProbe")
    _, text = probes.get(worker, "http", "/readyz?verbose")
    assert "[-]registered failed: UNAVAILABLE" in text
    assert worker.stop() == 0
