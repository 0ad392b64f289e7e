"""The folder that deploy/portable/pack.sh fills: what it needs, that it runs."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
GLIBC = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0",
         "librt.so.1", "ld-linux-x86-64.so.2"}
GCC = {"libstdc++.so.6", "libgcc_s.so.1"}
TORCH = {"libc10.so", "libtorch_cpu.so"}
TORCH_CUDA = {"libc10_cuda.so", "libtorch_cuda.so"}
OWN = {"libcivetweb.so.1", "libprometheus-cpp-core.so.1.0"}
GPU_TESTS = [f"{name}_gpu_test" for name in (
    "captured_run", "captured_update", "collectives", "fused_kernels",
    "host_staged_group", "nccl_group", "optimizers", "stored_tensors",
    "torch_executor", "torch_tensors")]
NEEDED = {
    "bin/coordinator/shardplane_coordinator": GLIBC | GCC | OWN,
    "bin/worker/shardplane_worker": GLIBC | GCC | OWN | TORCH,
    "bin/worker/shardplane_worker_cuda": GLIBC | GCC | OWN | TORCH | TORCH_CUDA,
    **{f"gpu_tests/{name}": GLIBC | GCC | TORCH | TORCH_CUDA
       for name in GPU_TESTS},
    **{f"lib/{name}": GLIBC | GCC for name in OWN},
}
# Debian 12's.
NEWEST = {"GLIBC": (2, 36), "GLIBCXX": (3, 4, 30), "CXXABI": (1, 3, 13)}
RUN = """
import torch, shardplane as sp
from tests.models import MLPModule, rand
from torch.distributed.tensor.parallel import ColwiseParallel
x, module = rand(4, 10), MLPModule()
with sp.LocalCluster(workers=2) as cluster:
    with cluster.parallelize_module(module, {"tp": 2},
                                    {"net1": ColwiseParallel()},
                                    example_inputs=(x,)) as m:
        torch.testing.assert_close(m(x), module(x).detach())
print("equal")
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    done = subprocess.run([ROOT / "deploy/portable/pack.sh", folder],
                          capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def is_elf(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def readelf(path, option):
    return subprocess.run(["readelf", "-W", option, path], check=True,
                          capture_output=True, text=True).stdout


def test_the_table_names_every_binary(packed):
    found = {str(path.relative_to(packed)) for path in packed.rglob("*")
             if path.is_file() and is_elf(path)}
    assert found == set(NEEDED)


@pytest.mark.parametrize("name", NEEDED)
def test_it_needs_torch_and_what_any_machine_has(packed, name):
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]",
                            readelf(packed / name, "-d")))
    assert needed and needed <= NEEDED[name], needed - NEEDED[name]


@pytest.mark.parametrize("name", NEEDED)
def test_it_asks_for_no_newer_glibc_than_debians(packed, name):
    versions = re.findall(r"\b(GLIBC|GLIBCXX|CXXABI)_([\d.]+)",
                          readelf(packed / name, "-V"))
    assert versions
    for kind, version in versions:
        numbers = tuple(int(n) for n in version.split("."))
        assert numbers <= NEWEST[kind], f"{kind}_{version}"


def test_it_runs(packed):
    paths = [packed / "python", packed / "stubs", packed]
    environment = {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": os.path.join(torch.__path__[0], "lib"),
        "SHARDPLANE_BIN_DIR": str(packed / "bin"),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", RUN], env=environment,
                          cwd=packed, capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"


def test_pytorchs_own_models_for_tests_are_there(packed):
    """They import expecttest."""
    code = ("import expecttest\n"
            "from torch.testing._internal.distributed._tensor import "
            "common_dtensor\n"
            "print(expecttest.__file__)")
    done = subprocess.run(
        ["bash", "-c", ". ./environment.sh && exec \"$PYTHON\" -c \"$0\"",
         code],
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable,
             "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=packed, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(packed))


def test_it_measures(packed):
    """As docs/gpu.md has it, but on a CPU."""
    done = subprocess.run(
        ["bash", "-c", ". ./environment.sh && exec \"$PYTHON\" bench/gpu.py "
         "--device=cpu --models=tiny --length=16 --rounds=1 --steps=2 "
         "--sides=shardplane,eager --json=results/gpu.json"],
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable,
             "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=packed, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((packed / "results/gpu.json").read_text())
    assert [f["side"] for f in figures if f["figure"] == "step_seconds"] == [
        "shardplane", "eager"]


def test_gpu_tests_say_that_there_is_no_gpu(packed):
    """They start, at least; where there is a GPU they run anyway."""
    if torch.cuda.device_count():
        return
    done = subprocess.run(
        [packed / "gpu_tests/nccl_group_gpu_test"], capture_output=True,
        text=True, timeout=120, check=False,
        env={"SHARDPLANE_TEST_DEVICE": "cuda",
             "LD_LIBRARY_PATH": os.path.join(torch.__path__[0], "lib")})
    assert done.returncode != 0
    assert re.search("NVIDIA driver|CUDA GPUs", done.stdout), done.stdout
