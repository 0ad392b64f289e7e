"""Checks the image recipes: what a linter asks for, that names agree, and that
what they copy is enough."""

import re
import subprocess

import pytest

from tests.deploy import cluster
from tests.deploy import debian
from tests.deploy import image
from tests.deploy import kustomize
from tests.deploy import pod_network
from tests.deploy.image import Image
from tests.deploy.image import ROOT
from tests.deploy.image import TARGETS
from tests.deploy.pod import Pod

# Target -> component, the most bytes (not compressed), overlays of it.
IMAGES = {
    "coordinator": ("coordinator", 200e6, kustomize.CLUSTERS),
    "worker": ("worker", 700e6, ["cpu-gloo", "cpu-gloo-lws"]),
    "worker-gpu": ("worker", 4e9, ["gpu-nccl", "gpu-nccl-lws"]),
}


@pytest.fixture(params=TARGETS)
def target(request):
    return Image(request.param)


@pytest.fixture
def component(target):
    return IMAGES[target.target][0]


def lint(path):
    return subprocess.run([image.hadolint(), "--failure-threshold", "style",
                           path], capture_output=True, text=True, check=False)


def test_the_linter_finds_nothing():
    done = lint(image.RECIPE)
    assert done.returncode == 0, done.stdout


def test_the_linter_would_find_something(tmp_path):
    unpinned = re.sub(r"(libprotobuf32)=\S+", r"\1", image.RECIPE.read_text())
    (tmp_path / "Dockerfile").write_text(unpinned)
    done = lint(tmp_path / "Dockerfile")
    assert done.returncode != 0 and "DL3008" in done.stdout


def test_every_target_is_known():
    assert {*image.stages()} == {"build", "base", *TARGETS} and TARGETS == [
        *IMAGES]


def test_base_images_are_pinned_by_digest():
    for rest in (r for i, r in image.instructions() if i == "FROM"):
        source = rest.split()[0]
        assert (source in image.stages() or
                source == "debian:12-slim@${DEBIAN_DIGEST}")
    # Without a default: a build says what it is made from.
    assert ("ARG", "DEBIAN_DIGEST") in image.instructions()


def test_packages_are_pinned_and_leave_nothing_behind(target):
    assert target.packages
    assert [p for p in target.packages if not re.search(r"=\d", p)] == []
    for run in target.of("RUN"):
        assert "apt-get update &&" in run
        assert "--no-install-recommends" in run
        assert "rm -rf /var/lib/apt/lists/*" in run


def test_the_root_has_the_packages(target):
    status = (debian.root(target.packages) / "var/lib/dpkg/status").read_text()
    for package in target.packages:
        name, version = package.split("=")
        assert re.search(
            rf"^Package: {re.escape(name)}\n(?:.+\n)*Version: "
            rf"{re.escape(version).replace(re.escape('*'), '.*')}$", status,
            re.MULTILINE), package


def test_runs_as_a_number_that_is_not_root(target):
    assert target.user == (65532, 65532)


def test_ends_by_the_signal_that_drains(target):
    assert target.stop_signal == "SIGTERM"


def test_entry_point_is_the_binary_that_was_copied(target, component):
    assert target.entrypoint == [f"/usr/local/bin/shardplane_{component}"]
    assert (f"bin/shardplane_{component}", "/usr/local/bin/") in target.copies


def test_binaries_are_targets_of_the_build(target):
    (build,) = [r for i, r in image.stages()["build"] if i == "RUN"]
    for source, _ in target.copies:
        if source.startswith("bin/"):
            name = source.removeprefix("bin/")
            folder = name.split("_")[1]
            assert re.search(rf"//{folder}:{name}\s", build)
            assert f'name = "{name}"' in (
                ROOT / folder / "BUILD.bazel").read_text()


def test_manifests_name_the_image_its_ports_and_its_user(target, component):
    for overlay in IMAGES[target.target][2]:
        made = cluster.load(overlay)
        name, tag = made.container(component)["image"].split(":")
        assert name == f"shardplane/{target.target}"
        assert tag in image.RECIPE.read_text()
        exposed = {int(p) for p in " ".join(target.of("EXPOSE")).split()}
        assert set(made.ports(component).values()) == exposed
        security = made.pod(component)["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"]) == target.user


def test_it_is_small(target, collected):
    assert image.bytes_of(target, collected) < IMAGES[target.target][1]


def test_libraries_lie_where_the_environment_says(collected):
    folder = Image("worker").environment["LD_LIBRARY_PATH"]
    for name, source in [("libtorch_cpu.so", "cpu"), ("libgomp.so.1", "cpu"),
                         ("libtorch_cuda.so", "gpu")]:
        assert (collected / source / "torch/lib" / name).exists()
    assert folder == "/opt/shardplane/torch/lib"


def test_images_for_cpus_have_nothing_of_the_gpus(collected):
    names = {p.name for p in (collected / "cpu").rglob("*") if p.is_file()}
    assert names == {"libc10.so", "libcudart.so.13", "libcupti.so.13",
                     "libgomp.so.1", "libtorch_cpu.so"}


def test_the_worker_for_gpus_starts_in_its_image(collected, tmp_path):
    """All that it links is there; then it says that there is no driver, which
    a node with GPUs would bring."""
    made, gpu = cluster.load("gpu-nccl"), Image("worker-gpu")
    network = pod_network.Network()
    pod = Pod("worker", made.labels("worker"), made.pod("worker"), gpu,
              image.make(gpu, collected, tmp_path / "image"), network,
              tmp_path)
    pod.start([])
    try:
        assert pod.process.wait(60) == 1
    finally:
        pod.close()
        network.close()
    assert re.search("cannot start: .*(NVIDIA driver|CUDA)",
                     pod.log.read_text()), pod.log.read_text()
    assert "does not start" not in pod.log.read_text()


def test_what_is_loaded_later_is_linked_too(collected, tmp_path):
    """In the image, every library finds those that it names; libcuda is the
    driver's, InfiniBand's are not there."""
    gpu = Image("worker-gpu")
    options = image.make(gpu, collected, tmp_path)
    done = subprocess.run(
        ["bwrap", *options, "--proc", "/proc", "--dev", "/dev", "--clearenv",
         "--setenv", "LD_LIBRARY_PATH", gpu.environment["LD_LIBRARY_PATH"],
         "--", "/bin/sh", "-c",
         "find /opt/shardplane -name '*.so*' -type f | xargs ldd"],
        capture_output=True, text=True, check=False, timeout=120)
    missing = set(re.findall(r"(\S+) => not found", done.stdout))
    assert "libtorch_cuda_linalg.so" in done.stdout, done.stderr
    assert missing <= {"libcuda.so.1", "libibverbs.so.1", "librdmacm.so.1",
                       "libmlx5.so.1"}, missing


def test_context_has_what_is_built_and_no_more():
    ignore = image.IMAGES / "Dockerfile.dockerignore"
    lines = [line for line in ignore.read_text().splitlines()
             if line and not line.startswith("#")]
    assert lines[0] == "*"
    for line in lines[1:]:
        if line.startswith("!"):
            assert (ROOT / line[1:]).exists(), line
    # A folder with C++ that a binary links must not be forgotten.
    for folder in ("common", "proto", "telemetry", "third_party",
                   "deploy/images/collect.sh"):
        assert f"!{folder}" in lines
