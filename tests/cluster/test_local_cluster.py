"""What a cluster shows from outside: addresses, health, reflection, metrics,
and the two commands that start one."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import grpc
import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel

import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb
from tests.models import linear, rand

COORDINATOR = "shardplane.v1.ShardingCoordinator"


def raw(address, method, request, stream=False):
    """A call by bytes: health and reflection need no stubs of their own."""
    with grpc.insecure_channel(address) as channel:
        if stream:
            call = channel.stream_stream(method)
            return next(call(iter([request]), timeout=30))
        return channel.unary_unary(method)(request, timeout=30)


def test_health(shared_cluster):
    for process in shared_cluster.processes:
        answer = raw(process.address, "/grpc.health.v1.Health/Check", b"")
        assert answer == b"\x08\x01", process.name  # status: SERVING
    name = COORDINATOR.encode()
    request = b"\x0a" + bytes([len(name)]) + name  # service
    assert raw(shared_cluster.address, "/grpc.health.v1.Health/Check",
               request) == b"\x08\x01"


def test_reflection(shared_cluster):
    answer = raw(
        shared_cluster.address,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        b"\x3a\x01*", stream=True)  # list_services: "*"
    assert COORDINATOR.encode() in answer


def metrics(process):
    with urllib.request.urlopen(
            f"http://{process.http_address}/metrics", timeout=30) as page:
        return page.read().decode()


def test_metrics(cluster):
    x = rand(4, 16)
    with cluster.parallelize_module(
            linear(16, 16), {"tp": 4}, ColwiseParallel(),
            example_inputs=(x,), loss="sum") as m:
        m.step(x, optimizer=sp.SGD(lr=0.1))
        page = metrics(cluster.coordinator)
        ready = re.search(r'shardplane_workers{[^}]*"?ready"?[^}]*} (\d+)',
                          page, re.IGNORECASE)
        assert ready, page
        assert "shardplane_steps_total" in page
        assert "grpc_server_call_started_total" in page
        for process in cluster.processes[1:]:
            assert "shardplane_collectives_total" in metrics(process)


def test_probes(shared_cluster):
    for process in shared_cluster.processes:
        for path in ("livez", "readyz"):
            url = f"http://{process.http_address}/{path}"
            with urllib.request.urlopen(url, timeout=30) as page:
                assert page.status == 200


def test_listens_on_loopback_alone(shared_cluster):
    for process in shared_cluster.processes:
        for address in (process.address, process.http_address):
            host, port = address.rsplit(":", 1)
            assert host == "127.0.0.1"
            for other in other_addresses():
                with contextlib.closing(socket.socket()) as probe:
                    probe.settimeout(5)
                    assert probe.connect_ex((other, int(port))) != 0


def other_addresses():
    """This machine's own, apart from 127.0.0.1."""
    return ["127.0.0.2"]


def test_workers_and_deployments_are_listed(cluster):
    workers = cluster.workers()
    assert [w.state for w in workers] == [pb.WorkerNode.STATE_READY] * 4
    assert all(w.device == "cpu" and w.incarnation for w in workers)
    assert len({w.incarnation for w in workers}) == 4
    with cluster.parallelize_module(linear(4, 4), {"tp": 3},
                                    ColwiseParallel(), name="listed") as m:
        (listed,) = cluster.deployments()
        assert listed.name == m.name == "deployments/listed"
        assert listed.state == pb.Deployment.STATE_READY
        busy = {w.name: w.rank for w in cluster.workers() if w.deployment}
        assert [busy[name] for name in listed.workers] == [0, 1, 2]
    assert cluster.deployments() == []
    assert not any(w.deployment for w in cluster.workers())


def test_two_deployments_side_by_side(cluster):
    x = rand(4, 8)
    modules = [linear(8, 8, seed=seed) for seed in range(2)]
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(cluster.parallelize_module(
            module, {"tp": 2}, ColwiseParallel())) for module in modules]
        for _ in range(2):
            for m, module in zip(handles, modules):
                torch.testing.assert_close(m(x), module(x).detach())
        with pytest.raises(sp.FailedPreconditionError):
            cluster.parallelize_module(modules[0], {"tp": 1},
                                       ColwiseParallel())


def test_name_that_is_taken(cluster):
    with cluster.parallelize_module(linear(4, 4), {"tp": 1},
                                    ColwiseParallel(), name="one"):
        with pytest.raises(sp.AlreadyExistsError, match="one"):
            cluster.parallelize_module(linear(4, 4), {"tp": 1},
                                       ColwiseParallel(), name="one")


def test_connect(cluster):
    with sp.connect(cluster.address) as connection:
        with connection.parallelize_module(
                linear(8, 8), {"tp": 2}, ColwiseParallel()) as m:
            assert m(rand(2, 8)).shape == (2, 8)


@contextlib.contextmanager
def up(targets):
    """Of one worker; `targets`: the file of scrape targets. It must end by
    itself, and well."""
    with subprocess.Popen(
            [sys.executable, "-m", "shardplane.local_cluster", "up",
             "--workers=1", f"--scrape_targets={targets}"],
            stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
            assert process.wait(60) == 0
            assert process.stdout.read().endswith("stopped\n")
        finally:
            process.terminate()  # so that its daemons end


def test_up_prints_where_it_listens(tmp_path):
    targets = tmp_path / "targets.json"
    with up(targets) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        assert [(target["targets"], target["labels"]["pod"])
                for target in json.loads(targets.read_text())] == [
            (re.findall(r"http://([\d.:]+)/", line), name)
            for line, name in zip(lines, ("coordinator", "worker-0"))]
        address = re.search(r"127\.0\.0\.1:\d+", lines[0]).group()
        with sp.connect(address) as connection:
            assert len(connection.workers()) == 1
        process.send_signal(signal.SIGINT)


def test_up_that_is_ended_while_it_still_prints(tmp_path):
    nobody_reads = tmp_path / "targets"
    os.mkfifo(nobody_reads)
    with up(nobody_reads) as process:
        assert process.stdout.readline().startswith("coordinator")
        process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("flag", [
    "--worker_arg=--no_such_flag", "--coordinator_arg=--no_such_flag"])
def test_up_hands_flags_to_the_daemons(flag):
    up = subprocess.run(
        [sys.executable, "-m", "shardplane.local_cluster", "up", "--workers",
         "1", flag], capture_output=True, text=True, timeout=60, check=False)
    assert up.returncode == 1
    daemon = flag.removeprefix("--").partition("_")[0]
    assert re.search(f"{daemon}(.|\n)*no_such_flag", up.stderr), up.stderr


def test_digits_demo_in_short():
    """All of the demo but its length: it has learnt nothing yet, says so."""
    done = subprocess.run(
        [sys.executable, "-m", "shardplane.demo", "digits", "--workers", "2",
         "--steps", "5"], capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 1, done.stderr
    assert "FAILED: held-out accuracy" in done.stdout
    assert "FAILED: loss difference" not in done.stdout
    for part in ("ColwiseParallel", "all_reduce", "5/5", "steps per second"):
        assert part in done.stdout
