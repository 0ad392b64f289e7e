"""A running cluster as an operator sees it: metrics, health, drain."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel
from torch.distributed.tensor.parallel import RowwiseParallel

import shardplane as sp

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = pathlib.Path(os.environ.get("SHARDPLANE_BIN_DIR",
                                       ROOT / "bazel-bin"))
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}


class Daemon:
    """A coordinator or worker process, ready to serve."""

    def __init__(self, folder, name, *flags):
        self.ready_file = folder / f"{name}.json"
        self.log = folder / f"{name}.log"
        kind = name.split("-", maxsplit=1)[0]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [BINARIES / kind / f"shardplane_{kind}",
                 f"--ready_file={self.ready_file}", *flags],
                stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 30
        while not self.ready_file.exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{name} is not ready"
            time.sleep(0.01)
        ready = json.loads(self.ready_file.read_text())
        self.address = ready["address"]
        self.http_address = ready["http_address"]
        assert ready["pid"] == self.process.pid

    def get(self, path):
        """(status, body)"""
        try:
            with urllib.request.urlopen(f"http://{self.http_address}{path}",
                                        timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """name -> {labels: value}; labels as a frozenset of 'name=value'."""
        status, text = self.get("/metrics")
        assert status == 200
        found = {}
        for name, labels, value in SAMPLE.findall(text):
            key = frozenset(part.replace('"', "")
                            for part in labels.split(",") if part)
            found.setdefault(name, {})[key] = float(value)
        return found

    def terminate(self):
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Cluster:
    def __init__(self, folder, workers=2):
        self.daemons = []
        try:
            self.coordinator = self._start(folder, "coordinator")
            self.workers = [
                self._start(folder, f"worker-{n}", f"--id=worker-{n}",
                            f"--coordinator={self.coordinator.address}")
                for n in range(workers)]
        except BaseException:
            self.close()
            raise

    def _start(self, folder, name, *flags):
        daemon = Daemon(folder, name, *flags)
        self.daemons.append(daemon)
        return daemon

    def train(self, steps):
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(),
                                    torch.nn.Linear(16, 4))
        x = torch.randn(6, 8)
        with sp.connect(self.coordinator.address) as connection:
            m = connection.parallelize_module(
                model, {"tp": len(self.workers)},
                {"0": ColwiseParallel(), "2": RowwiseParallel(),
                 "typo": ColwiseParallel()}, example_inputs=(x,))
            for _ in range(steps):
                m.step(x, loss="sum", optimizer=sp.SGD(lr=0.01))
            m.close()

    def close(self):
        for daemon in reversed(self.daemons):
            daemon.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    yield started
    started.close()


def total(metrics, name, *labels):
    return sum(value for key, value in metrics.get(name, {}).items()
               if key.issuperset(labels))


def rise(before, after, name, *labels):
    return total(after, name, *labels) - total(before, name, *labels)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_step_shows_in_the_metrics(cluster):
    daemons = [cluster.coordinator, cluster.workers[0]]
    before = [daemon.metrics() for daemon in daemons]
    cluster.train(steps=3)
    coordinator, worker = [
        lambda *name, b=b, a=daemon.metrics(): rise(b, a, *name)
        for b, daemon in zip(before, daemons)]
    assert coordinator("shardplane_steps_total", "result=ok") >= 3
    assert coordinator("shardplane_step_duration_seconds_count") >= 3
    assert coordinator("shardplane_plan_resolve_seconds_count") >= 1
    assert coordinator("shardplane_plan_unmatched_patterns_total") == 1
    assert coordinator("shardplane_materialize_duration_seconds_count") == 1
    assert coordinator("shardplane_coordinator_epoch") >= 1
    for name in ("started_total", "duration_seconds_count"):
        assert coordinator(f"grpc_server_call_{name}", "grpc_method=Step") == 3
        assert worker(f"grpc_server_call_{name}", "grpc_method=Run") == 3
    # One all-reduce forward, after the rowwise layer; none backward.
    assert worker("shardplane_collectives_total", "collective=all_reduce",
                  "phase=forward") == 3
    assert worker("shardplane_collectives_total", "phase=backward") == 0
    assert worker("shardplane_collective_bytes_total",
                  "collective=all_reduce") == 3 * 6 * 4 * 4
    assert worker("shardplane_materialize_bytes_total") > 0
    assert worker("shardplane_step_duration_seconds_count") >= 3


def test_workers_are_counted_by_state(cluster):
    metrics = cluster.coordinator.metrics()
    assert total(metrics, "shardplane_workers", "state=READY") == 2
    assert total(metrics, "shardplane_workers", "state=LOST") == 0


def test_every_daemon_says_what_it_is(cluster):
    for daemon, component in [(cluster.coordinator, "coordinator"),
                              (cluster.workers[0], "worker")]:
        metrics = daemon.metrics()
        assert total(metrics, "shardplane_build_info",
                     f"component={component}") == 1
        assert total(metrics, "process_resident_memory_bytes") > 1e6


def test_metrics_pass_the_linter(cluster):
    for daemon in (cluster.coordinator, cluster.workers[0]):
        _, text = daemon.get("/metrics")
        done = subprocess.run(["promtool", "check", "metrics"], input=text,
                              check=False, capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_labels_are_bounded(cluster):
    for daemon in (cluster.coordinator, cluster.workers[0]):
        _, text = daemon.get("/metrics")
        assert "deployments/" not in text
        assert cluster.coordinator.address not in text


def test_live_and_ready(cluster):
    for daemon in (cluster.coordinator, *cluster.workers):
        assert daemon.get("/livez") == (200, "ok\n")
        status, text = daemon.get("/readyz?verbose")
        assert status == 200
        assert text.startswith("[+]ping ok\n")
        for check in re.findall(r"^\[\+\](\S+) ok$", text, re.MULTILINE):
            assert daemon.get(f"/readyz/{check}")[0] == 200


def call(channel, method, request, stream=False):
    kind = channel.stream_stream if stream else channel.unary_unary
    return kind(method)(iter([request]) if stream else request, timeout=10)


SERVICES = {"coordinator": ["", "shardplane.v1.ShardingCoordinator",
                            "shardplane.v1.WorkerRegistry",
                            "shardplane.v1.Rendezvous"],
            "worker": ["", "shardplane.v1.Worker"]}


@pytest.mark.parametrize("component, service", [
    (c, s) for c, names in SERVICES.items() for s in names])
def test_grpc_health(cluster, component, service):
    daemon = (cluster.coordinator if component == "coordinator"
              else cluster.workers[0])
    request = b"\x0a" + bytes([len(service)]) + service.encode()
    with grpc.insecure_channel(daemon.address) as channel:
        answer = call(channel, "/grpc.health.v1.Health/Check", request)
    assert answer == SERVING


@pytest.mark.parametrize("component", SERVICES)
def test_reflection_lists_the_services(cluster, component):
    daemon = (cluster.coordinator if component == "coordinator"
              else cluster.workers[0])
    list_services = b"\x3a\x01*"
    with grpc.insecure_channel(daemon.address) as channel:
        (answer,) = call(
            channel, "/grpc.reflection.v1alpha.ServerReflection/"
            "ServerReflectionInfo", list_services, stream=True)
    for service in filter(None, SERVICES[component]):
        assert service.encode() in answer


def test_listens_on_loopback_unless_told_otherwise(cluster):
    for daemon in (cluster.coordinator, *cluster.workers):
        assert daemon.address.startswith("127.0.0.1:")
        assert daemon.http_address.startswith("127.0.0.1:")


def test_termination_is_drain(tmp_path):
    cluster = Cluster(tmp_path, workers=1)
    try:
        assert cluster.workers[0].terminate() == 0
        metrics = cluster.coordinator.metrics()
        assert total(metrics, "shardplane_workers", "state=READY") == 0
        assert total(metrics, "shardplane_worker_lost_total") == 0
        assert cluster.coordinator.terminate() == 0
    finally:
        cluster.close()
