"""`bench hotspots`: how it groups stacks, and that it runs."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

# pylint: disable=wrong-import-position
from measure.stacks import GROUPS, count_groups, group_of, stacks

SCRIPT = """\
\t    7f1 mkl_blas_avx512_sgemm_kernel_0_b0 (/venv/torch/lib/libtorch_cpu.so)
\t    7f2 [unknown] ([unknown])

\t    7f3 _int_malloc (/lib/x86_64-linux-gnu/libc.so.6)
\t    7f4 at::native::add(at::Tensor const&, at::Tensor const&) (/l/libtorch_cpu.so)
\t    7f5 shardplane::PreparedOp::Call(int) const (/bin/shardplane_worker)
"""

TORCH = "libtorch_cpu.so"
WORKER = "shardplane_worker"
CASES = {
    "matrix product": ("matrix products", [
        ("mkl_blas_avx512_sgemm_kernel_0_b0", TORCH), ("[unknown]", "?")]),
    "vectorized": ("kernels", [
        ("c10::function_ref<void>::callback_fn<at::native::AVX2::"
         "VectorizedLoop2d<x> >", TORCH)]),
    "kernel by name": ("kernels", [
        ("at::native::(anonymous namespace)::LayerNormKernelImpl", TORCH)]),
    "compiled by oneDNN": ("kernels", [("[unknown]", "perf-17.map")]),
    "dispatcher": ("LibTorch", [
        ("at::_ops::add_Tensor::call", TORCH),
        ("shardplane::PreparedOp::Call", WORKER)]),
    "called by the dispatcher": ("LibTorch", [
        ("__tls_get_addr", "ld-linux-x86-64.so.2"),
        ("at::_ops::add_Tensor::call", TORCH),
        ("shardplane::PreparedOp::Call", WORKER)]),
    "allocation": ("memory", [
        ("_int_malloc", "libc.so.6"), ("at::empty", TORCH)]),
    "our blocks": ("memory", [("shardplane::BlockCache::Free", WORKER)]),
    "page fault": ("memory", [
        ("asm_exc_page_fault", "[kernel.kallsyms]"), ("at::empty", TORCH)]),
    "copy for a collective": ("collectives", [
        ("direct_copy_kernel", TORCH),
        ("shardplane::Communicator::AllGather", WORKER)]),
    "shared memory": ("collectives", [
        ("shardplane::CopyBytes", WORKER),
        ("shardplane::ShmChannel::Wait", WORKER)]),
    "optimizer": ("update", [
        ("at::native::(anonymous namespace)::fused_adam_kernel", TORCH),
        ("shardplane::Optimizers::Apply", WORKER)]),
    "between operators": ("executor", [
        ("memcmp", "libc.so.6"),
        ("shardplane::PreparedProgram::CheckShape", WORKER)]),
    "an answer that leaves": ("messages", [
        ("memcpy", "libc.so.6"),
        ("grpc_core::ExecCtx::Flush", "libgrpc.so.29"),
        ("shardplane::GangWorker::Step", WORKER)]),
    "gRPC": ("messages", [
        ("grpc_core::ExecCtx::Flush", "libgrpc.so.29"),
        ("clone3", "libc.so.6")]),
}


def test_stacks_are_read_from_the_innermost_frame_on():
    first, second = stacks(SCRIPT.splitlines())
    assert first == [("mkl_blas_avx512_sgemm_kernel_0_b0", TORCH),
                     ("[unknown]", "[unknown]")]
    assert [symbol for symbol, _ in second] == [
        "_int_malloc", "at::native::add(at::Tensor const&, at::Tensor const&)",
        "shardplane::PreparedOp::Call(int) const"]


@pytest.mark.parametrize("name", CASES)
def test_group(name):
    group, frames = CASES[name]
    assert group_of(frames) == group


def test_groups_are_counted_in_their_order():
    groups, symbols = count_groups(SCRIPT.splitlines())
    assert list(groups) == list(GROUPS)
    assert groups["matrix products"] == 1 and groups["memory"] == 1
    assert sum(groups.values()) == 2
    assert symbols["_int_malloc"] == 1


def may_sample():
    return shutil.which("perf") is not None and subprocess.run(
        ["perf", "record", "--output=/dev/null", "true"], check=False,
        capture_output=True).returncode == 0


@pytest.mark.skipif(not may_sample(), reason="perf is not there, or may not")
def test_a_step_is_sampled(tmp_path):
    path = tmp_path / "hotspots.json"
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "hotspots.py", "--models=digits",
         "--ranks=2", "--seconds=1", f"--json={path}"],
        capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert [f["group"] for f in figures] == list(GROUPS)
    seconds = {f["group"]: f["median"] for f in figures}
    assert all(0 <= value < 1 for value in seconds.values())
    assert seconds["LibTorch"] > 0 and seconds["matrix products"] > 0
    assert "ms of CPU a step" in done.stdout
