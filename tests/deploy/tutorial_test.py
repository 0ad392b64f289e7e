"""Runs what docs/kubernetes.md shows, as far as that goes without a cluster."""

import pathlib
import re

import pytest

from tests.deploy import cluster
from tests.deploy import image
from tests.deploy import kustomize
from tests.deploy import manifests_test
from tests.deploy.kustomize import ROOT
from tests.deploy.pods import Pods

PAGE = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
# Parameters, gradients, moments and activations, all of some megabytes.
LARGE = """
torch.set_num_threads(1)
big = nn.Sequential(*(nn.Sequential(
    nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 1024))
    for _ in range(4)))
plan = {"*.0": sp.ColwiseParallel(), "*.2": sp.RowwiseParallel()}
x = torch.rand(1024, 1024)
m = cluster.parallelize_module(big, {"tp": 4}, plan, example_inputs=(x,),
                               loss="sum")
for _ in range(2):
    m.step(x, optimizer=sp.Adam(lr=1e-4))
reply = memory_limit(m.report, "Adam")
m.close()
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE,
                      re.MULTILINE | re.DOTALL)


def commands():
    """Of the indented blocks, continuation lines joined."""
    lines = [line.strip() for line in re.findall(r"^ {4,}\S.*$", PAGE.replace(
        "\\\n", " "), re.MULTILINE)]
    return [line for line in lines if line.startswith(("kubectl", "docker"))]


def built(folder, text, overlay):
    """The page's overlay `text`, on another one, by each kubectl."""
    if overlay.startswith("gpu"):
        text = re.sub("shardplane/worker$", "shardplane/worker-gpu", text,
                      flags=re.MULTILINE)
    (folder / "shardplane").symlink_to(ROOT)
    (folder / "cluster").mkdir(exist_ok=True)
    (folder / "cluster/kustomization.yaml").write_text(
        text.replace("cpu-gloo", overlay))
    for kubectl in kustomize.kubectls():
        yield cluster.Cluster(kustomize.render(kubectl, folder / "cluster"))


@pytest.mark.parametrize("overlay", ["cpu-gloo", "gpu-nccl"])
def test_weights_on_a_volume(tmp_path, overlay):
    text, addition, patch = blocks("yaml")
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster/weights.yaml").write_text(patch)
    for made in built(tmp_path, text + addition, overlay):
        container, pod = made.container("worker"), made.pod("worker")
        assert container["args"][-1] == "--weights_root=/weights"
        assert "--drain_timeout=90s" in container["args"]
        assert container["volumeMounts"][-1] == {
            "name": "weights", "mountPath": "/weights", "readOnly": True}
        assert pod["volumes"][-1]["persistentVolumeClaim"] == {
            "claimName": "weights", "readOnly": True}


@pytest.mark.parametrize("overlay", kustomize.CLUSTERS)
def test_the_overlay_of_ones_own_builds(tmp_path, overlay):
    text, *_ = blocks("yaml")
    for made in built(tmp_path, text, overlay):
        for component in cluster.COMPONENTS:
            name = made.container(component)["image"]
            assert name.startswith("registry.example/shardplane/")
        assert {item["metadata"]["namespace"]
                for item in made.objects} == {"training"}


def test_there_are_commands():
    assert len(commands()) > 15


def test_folders_that_are_applied_exist():
    for folder in re.findall(r"apply -k (\S+)", "\n".join(commands())):
        if folder != "cluster":
            path = ROOT / folder.removeprefix("shardplane/")
            assert path.parent == kustomize.OVERLAYS and path.exists(), folder


def test_objects_that_are_named_exist():
    made = {kustomize.name_of(item).lower() for overlay in kustomize.CLUSTERS
            for item in kustomize.build(overlay)}
    named = re.findall(r"\b((?:statefulset|leaderworkerset|service)/\S+?)[\s`]",
                       PAGE)
    assert named and set(named) <= made


def test_every_overlay_is_in_the_table():
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)
    assert rows == [*kustomize.CLUSTERS, "monitoring"]


def test_images_are_built_from_targets_of_the_recipe():
    (targets,) = re.findall(r"for target in (.*); do", PAGE)
    assert targets.split() == image.TARGETS
    (tag,) = set(re.findall(r"\$target:(\S+)", PAGE))
    for overlay in kustomize.CLUSTERS:
        for component in cluster.COMPONENTS:
            container = cluster.load(overlay).container(component)
            assert container["image"].endswith(f":{tag}")


def test_flags_are_those_of_the_binaries():
    known = {*manifests_test.known_flags("coordinator"),
             *manifests_test.known_flags("worker")}
    named = set(re.findall(r"`--([a-z_]+)", PAGE))
    assert {"drain_ms", "drain_timeout", "lease_ms", "device"} <= named <= known


def test_the_table_of_what_runs_is_true():
    made = cluster.load("cpu-gloo")
    rows = {cells[0]: cells[1:] for cells in (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines() if line.startswith("|"))}
    for column, component in enumerate(cluster.COMPONENTS):
        ports, pod = made.ports(component), made.pod(component)
        assert rows["gRPC"][column] == str(ports["grpc"])
        (http,) = [r[column] for name, r in rows.items()
                   if name.startswith("HTTP")]
        assert http == str(ports["http"])
        drain = manifests_test.drain_seconds(made.flags(component))
        assert f"for {drain:.0f} s (" in rows["SIGTERM"][column]
        grace = pod["terminationGracePeriodSeconds"]
        assert rows["grace period"][column] == f"{grace} s"


def test_labels_are_those_of_the_policies():
    policies = str(cluster.load("cpu-gloo").of_kind("NetworkPolicy"))
    for label in ("client", "monitoring"):
        assert f"shardplane.dev/{label}" in policies
        assert f"shardplane.dev/{label}" in PAGE


def test_lines_of_logs_and_checks_are_those_of_the_binaries():
    source = (ROOT / "worker/daemon.cc").read_text()
    for name, message in re.findall(
            r"`\[-\]([a-z]+) failed(?:: UNAVAILABLE: ([^`]*))?`", PAGE):
        assert f'{{"{name}", ' in source and message in source
    assert "lease: " in (ROOT / "worker/membership.cc").read_text()
    assert "TOO_FEW_WORKERS" in (
        ROOT / "coordinator/worker_registry.cc").read_text()
    assert "DEPLOYMENT_NOT_FOUND" in (
        ROOT / "coordinator/coordinator.cc").read_text()


@pytest.fixture(scope="module")
def running(images, tmp_path_factory):
    """The variant that tests/deploy/pods_test.py does not run."""
    with Pods("cpu-gloo-lws", images, tmp_path_factory.mktemp("pods")) as pods:
        pods.start_all()
        (coordinator,) = pods.of("coordinator")
        # As the port-forward of the page does.
        pods.trainer = pods.client(within=coordinator)
        yield pods


def test_the_client_of_the_page_trains(running):
    code = blocks("python")[0]
    losses = running.trainer.run(code + "m.close()\nreply = losses")
    assert len(losses) == 3 and losses[2] < losses[1] < losses[0]


def test_memory_is_what_the_page_says(running):
    """At most, and not by far."""
    limit = running.trainer.run(blocks("python")[0] + "m.close()\n" +
                                blocks("python")[1] + LARGE)
    for worker in running.of("worker"):
        text = pathlib.Path(f"/proc/{worker.pid}/status").read_text()
        most = int(re.search(r"VmHWM:\s+(\d+)", text)[1]) * 1024
        assert limit / 3 < most < limit
