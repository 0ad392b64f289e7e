"""What the manifests say is what the binaries do: their pods run as processes,
restricted as they are in a cluster (tests/deploy/pod.py)."""

import pathlib
import re

import pytest

from tests.deploy import kustomize
from tests.deploy import network_policy
from tests.deploy import pod as pod_module
from tests.deploy import probes
from tests.deploy import sockets
from tests.deploy.pods import Pods

# The kernel's choice begins here.
FIRST_EPHEMERAL = 32768
DEPLOY = """
import torch
from torch import nn
import shardplane as sp
torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
x = torch.rand(32, 64)
cluster = sp.connect("shardplane-coordinator:7070")
m = cluster.parallelize_module(
    model, {"tp": 4}, {"0": sp.ColwiseParallel(), "2": sp.RowwiseParallel()},
    example_inputs=(x,), loss="sum")
"""
STEPS = """
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
losses = []
for _ in range(3):
    loss = model(x).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    ours = m.step(x, optimizer=sp.SGD(lr=1e-3))
    torch.testing.assert_close(ours, loss.detach())
    losses.append(float(ours))
reply = losses
"""


@pytest.fixture(scope="module")
def running(images, tmp_path_factory):
    """All are ready, and a client has a deployment over all workers."""
    with Pods("cpu-gloo", images, tmp_path_factory.mktemp("pods")) as pods:
        pods.start_all()
        pods.trainer = pods.client()
        pods.trainer.run(DEPLOY)
        yield pods


def test_a_client_trains_as_plain_pytorch(running):
    losses = running.trainer.run(STEPS)
    assert len(losses) == 3 and losses[2] < losses[1] < losses[0]
    for worker in running.of("worker"):
        assert "collectives on mesh dim tp: gloo" in worker.log.read_text()


def status(pod):
    text = pathlib.Path(f"/proc/{pod.pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines())


def test_processes_are_restricted_as_the_manifest_says(running):
    for pod in running.pods.values():
        security = pod.spec["securityContext"]
        found = status(pod)
        assert set(found["Uid"].split()) == {str(security["runAsUser"])}
        assert set(found["Gid"].split()) == {str(security["runAsGroup"])}
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(found[capabilities], 16) == 0
        assert found["NoNewPrivs"] == "1"
        assert found["Seccomp"] == "2"
        assert found["NSpid"].split()[-1] == "1"
        command = pathlib.Path(f"/proc/{pod.pid}/cmdline").read_text()
        assert command.split("\0")[:-1] == pod.command()


# The kernel's: no files are made there.
KERNELS = {"proc", "devpts", "devtmpfs"}


def writable_mounts(pod):
    """where -> options of the file system"""
    text = pathlib.Path(f"/proc/{pod.pid}/mountinfo").read_text()
    for line in text.splitlines():
        before, after = line.split(" - ")
        place, options = before.split()[4:6]
        kind, _, more = after.split()
        if "rw" in options.split(",") and kind not in KERNELS:
            yield place, more.split(",")


def test_nothing_but_shared_memory_can_be_written(running):
    for pod in running.pods.values():
        writable = dict(writable_mounts(pod))
        assert set(writable) == {"/dev/shm"}
        size = pod_module.shared_memory(pod.spec, pod.container)
        assert f"size={size // 1024}k" in writable["/dev/shm"]
        written = pathlib.Path(f"/proc/{pod.pid}/root/dev/shm").iterdir()
        assert list(written) == []


@pytest.mark.parametrize("command, refused", [
    (["/usr/bin/touch", "/tmp/file"], "Read-only file system"),
    (["/usr/bin/touch", "/dev/file"], "Read-only file system"),
    (["/usr/bin/unshare", "--user", "/bin/true"], "Operation not permitted"),
    (["/bin/cat", "/etc/shadow"], "Permission denied"),
])
def test_the_restrictions_hold(running, images, tmp_path, command, refused):
    """In the very root and sandbox of a worker."""
    (one, *_) = running.of("worker")
    probe = pod_module.Pod("probe", one.labels, one.spec, one.image,
                           images["worker"], running.network, tmp_path)
    probe.start([], command)
    assert probe.process.wait(30) != 0
    assert refused in probe.log.read_text()


def test_every_port_is_declared_or_the_kernels_choice(running):
    for component in ("coordinator", "worker"):
        declared = set(running.cluster.ports(component).values())
        for pod in running.of(component):
            found = sockets.listening(pod.pid)
            assert declared <= found
            others = found - declared
            assert all(port >= FIRST_EPHEMERAL for port in others)
            # Collectives': none but workers have them.
            assert bool(others) == (component == "worker")


def connections(running):
    """{(labels of who connects, of whom, port)}, the node's probes aside."""
    pods = [*running.pods.values(), running.trainer]
    by_address = {pod.address: pod for pod in pods}
    listening = {pod.address: sockets.listening(pod.pid) for pod in pods}
    found = {}
    for pod in pods:
        for socket in sockets.established(pod.pid):
            (address, port), (peer, _) = socket.local, socket.remote
            if port in listening[address] and peer in by_address:
                found[by_address[peer].address, address, port] = (
                    by_address[peer].labels, pod.labels, port)
    return found


def test_every_connection_is_allowed(running):
    running.trainer.run("m(x)")
    found = connections(running)
    for source, target, port in found.values():
        assert network_policy.allows(running.cluster, source, target, port)
    coordinator, worker = (running.cluster.labels(c)
                           for c in ("coordinator", "worker"))
    kinds = [(s, t, min(port, FIRST_EPHEMERAL)) for s, t, port in
             found.values()]
    for kind in [(worker, coordinator, 7070), (coordinator, worker, 7071),
                 (running.trainer.labels, coordinator, 7070),
                 (worker, worker, FIRST_EPHEMERAL)]:
        assert kind in kinds


def test_prometheus_finds_metrics_where_the_pod_monitor_says(running):
    (monitor,) = [item for item in kustomize.build("monitoring")
                  if item["kind"] == "PodMonitor"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for pod in running.pods.values():
        code, text = probes.get(pod, endpoint["port"], endpoint["path"])
        assert code == 200
        assert re.search(r"^shardplane_build_info\{", text, re.MULTILINE)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_say_what_they_checked(running, path):
    for pod in running.pods.values():
        code, text = probes.get(pod, "http", f"{path}?verbose")
        assert code == 200 and "[+]ping ok" in text


def test_threads_are_the_processor_limit(running):
    for worker in running.of("worker"):
        environment = pathlib.Path(f"/proc/{worker.pid}/environ").read_text()
        limit = worker.container["resources"]["limits"]["cpu"]
        assert f"\0OMP_NUM_THREADS={limit}\0" in f"\0{environment}"


def test_a_small_model_needs_less_memory_than_is_requested(running):
    for pod in running.pods.values():
        most = int(status(pod)["VmHWM"].split()[0]) * 1024
        resources = pod.container["resources"]
        assert most < pod_module.quantity(resources["requests"]["memory"])


def test_shared_memory_leaves_room_for_the_process(running):
    for pod in running.pods.values():
        limit = pod_module.quantity(
            pod.container["resources"]["limits"]["memory"])
        assert pod_module.shared_memory(pod.spec, pod.container) < limit / 2
