"""What a profiler sees of workers that run with --nvtx."""

import os
import pathlib
import subprocess

import pytest
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.models import MLPModule, rand

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAN = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}


@pytest.fixture(scope="module")
def recorder():
    """The profiler of worker/nvtx_recorder; a run of selected tests has not
    built it."""
    done = subprocess.run(
        [ROOT / "shardplane", "build", "//worker:libnvtx_recorder.so"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return os.path.join(os.environ["SHARDPLANE_BIN_DIR"], "worker",
                        "libnvtx_recorder.so")


def ranges(text):
    """(depth, name) of each, in order; all end, and in the profiler's domain."""
    found, depth = [], 0
    for line in text.splitlines():
        domain = "shardplane"
        assert line.startswith(domain), line
        if line == domain + "}":
            depth -= 1
            assert depth >= 0
        else:
            found.append((depth, line.removeprefix(domain + "{")))
            depth += 1
    assert depth == 0
    return found


def trained(recorder, folder, monkeypatch, worker_args):
    """Two steps on two workers; what the profiler has written, by worker."""
    monkeypatch.setenv("NVTX_INJECTION64_PATH", recorder)
    monkeypatch.setenv("NVTX_RECORDER_FILE", str(folder / "ranges"))
    with sp.LocalCluster(workers=2, worker_args=worker_args) as cluster:
        with cluster.parallelize_module(MLPModule(), {"tp": 2}, PLAN) as m:
            for seed in range(2):
                m.step(rand(4, 10, seed=seed), loss="mean",
                       optimizer=sp.SGD(lr=0.1))
    return [path.read_text("utf-8") for path in sorted(folder.glob("ranges*"))]


def test_steps_modules_and_collectives_have_names(recorder, tmp_path,
                                                  monkeypatch):
    texts = trained(recorder, tmp_path, monkeypatch, ("--nvtx",))
    assert len(texts) == 2
    for text in texts:
        found = ranges(text)
        assert [name for depth, name in found
                if depth == 0 and name.startswith("step")] == ["step 1",
                                                               "step 2"]
        step = found[found.index((0, "step 1")):found.index((0, "step 2"))]
        assert [name for depth, name in step if depth == 1] == [
            "forward", "backward", "agree", "update"]
        inner = [name for depth, name in step if depth == 2]
        for name in ("net1", "net2"):
            assert inner.count(name) == 1, inner
        assert any(name.startswith("all_reduce[tp, sum] ") for name in inner)
        assert any(name.startswith("backward of ") for name in inner)


def test_without_the_flag_there_is_nothing(recorder, tmp_path, monkeypatch):
    assert trained(recorder, tmp_path, monkeypatch, ()) == []
