"""A running cluster as an operator sees it: metrics, health, drain."""

import functools
import re
import signal
import subprocess
import urllib.error
import urllib.request

import grpc
import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel
from torch.distributed.tensor.parallel import RowwiseParallel

import shardplane as sp

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
WORKERS = 2


@pytest.fixture(scope="module")
def cluster():
    with sp.LocalCluster(workers=WORKERS) as started:
        yield started


def coordinator_and_worker(cluster):
    return cluster.processes[0], cluster.processes[1]


def get(process, path):
    """(status, body)"""
    try:
        with urllib.request.urlopen(f"http://{process.http_address}{path}",
                                    timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scrape(process):
    """name -> {labels: value}; labels as a frozenset of 'name=value'."""
    status, text = get(process, "/metrics")
    assert status == 200
    found = {}
    for name, labels, value in SAMPLE.findall(text):
        key = frozenset(part.replace('"', "")
                        for part in labels.split(",") if part)
        found.setdefault(name, {})[key] = float(value)
    return found


def train(cluster, steps):
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(),
                                torch.nn.Linear(16, 4))
    x = torch.randn(6, 8)
    m = cluster.parallelize_module(
        model, {"tp": WORKERS},
        {"0": ColwiseParallel(), "2": RowwiseParallel(),
         "typo": ColwiseParallel()}, example_inputs=(x,))
    for _ in range(steps):
        m.step(x, loss="sum", optimizer=sp.SGD(lr=0.01))
    m.close()


def total(metrics, name, *labels):
    return sum(value for key, value in metrics.get(name, {}).items()
               if key.issuperset(labels))


def rise(before, after, name, *labels):
    return total(after, name, *labels) - total(before, name, *labels)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_step_shows_in_the_metrics(cluster):
    processes = coordinator_and_worker(cluster)
    before = [scrape(process) for process in processes]
    train(cluster, steps=3)
    coordinator, worker = [
        functools.partial(rise, earlier, scrape(process))
        for earlier, process in zip(before, processes)]
    assert coordinator("shardplane_steps_total", "result=ok") >= 3
    assert coordinator("shardplane_step_duration_seconds_count") >= 3
    assert coordinator("shardplane_plan_resolve_seconds_count") >= 1
    assert coordinator("shardplane_plan_unmatched_patterns_total") == 1
    assert coordinator("shardplane_materialize_duration_seconds_count") == 1
    assert coordinator("shardplane_coordinator_epoch") >= 1
    for name in ("started_total", "duration_seconds_count"):
        assert coordinator(
            f"grpc_server_call_{name}",
            "grpc_method=shardplane.v1.ShardingCoordinator/Step") == 3
    # To a worker all steps of a deployment go over one stream.
    assert worker("shardplane_step_streams_total", "transport=local") == 1
    assert worker("grpc_server_call_started_total",
                  "grpc_method=shardplane.v1.Worker/Steps") == 0
    # One all-reduce forward, after the rowwise layer; none backward.
    assert worker("shardplane_collectives_total", "collective=all_reduce",
                  "phase=forward") == 3
    assert worker("shardplane_collectives_total", "phase=backward") == 0
    # And one of a number by which the ranks agree to commit the step.
    assert worker("shardplane_collectives_total", "collective=all_reduce",
                  "phase=commit") == 3
    assert worker("shardplane_collective_bytes_total",
                  "collective=all_reduce") == 3 * (6 * 4 * 4 + 4)
    assert worker("shardplane_materialize_bytes_total") > 0
    assert worker("shardplane_step_duration_seconds_count") >= 3


def test_workers_are_counted_by_state(cluster):
    metrics = scrape(cluster.coordinator)
    assert total(metrics, "shardplane_workers", "state=ready") == WORKERS
    assert total(metrics, "shardplane_workers", "state=lost") == 0


def test_every_daemon_says_what_it_is(cluster):
    for process, component in zip(coordinator_and_worker(cluster),
                                  ("coordinator", "worker")):
        metrics = scrape(process)
        assert total(metrics, "shardplane_build_info",
                     f"component={component}") == 1
        assert total(metrics, "process_resident_memory_bytes") > 1e6


def test_metrics_pass_the_linter(cluster):
    for process in coordinator_and_worker(cluster):
        _, text = get(process, "/metrics")
        done = subprocess.run(["promtool", "check", "metrics"], input=text,
                              check=False, capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_labels_are_bounded(cluster):
    for process in coordinator_and_worker(cluster):
        _, text = get(process, "/metrics")
        assert "deployments/" not in text
        assert cluster.coordinator.address not in text


def test_live_and_ready(cluster):
    for process in cluster.processes:
        assert get(process, "/livez") == (200, "ok\n")
        status, text = get(process, "/readyz?verbose")
        assert status == 200
        assert text.startswith("[+]ping ok\n")
        for check in re.findall(r"^\[\+\](\S+) ok$", text, re.MULTILINE):
            assert get(process, f"/readyz/{check}")[0] == 200


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
    process = dict(zip(SERVICES, coordinator_and_worker(cluster)))[component]
    request = b"\x0a" + bytes([len(service)]) + service.encode()
    with grpc.insecure_channel(process.address) as channel:
        answer = call(channel, "/grpc.health.v1.Health/Check", request)
    assert answer == SERVING


@pytest.mark.parametrize("component", SERVICES)
def test_reflection_lists_the_services(cluster, component):
    process = dict(zip(SERVICES, coordinator_and_worker(cluster)))[component]
    list_services = b"\x3a\x01*"
    with grpc.insecure_channel(process.address) as channel:
        (answer,) = call(
            channel, "/grpc.reflection.v1alpha.ServerReflection/"
            "ServerReflectionInfo", list_services, stream=True)
    for service in filter(None, SERVICES[component]):
        assert service.encode() in answer


def test_listens_on_loopback_unless_told_otherwise(cluster):
    for process in cluster.processes:
        assert process.address.startswith("127.0.0.1:")
        assert process.http_address.startswith("127.0.0.1:")


def exit_code_after_sigterm(process):
    process.popen.send_signal(signal.SIGTERM)
    return process.popen.wait(timeout=30)


def test_termination_is_drain():
    with sp.LocalCluster(workers=1) as cluster:
        coordinator, worker = coordinator_and_worker(cluster)
        assert exit_code_after_sigterm(worker) == 0
        metrics = scrape(coordinator)
        assert total(metrics, "shardplane_workers", "state=ready") == 0
        assert total(metrics, "shardplane_worker_lost_total",
                     "reason=lost") == 0
        assert exit_code_after_sigterm(coordinator) == 0
