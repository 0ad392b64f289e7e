"""--device: what a worker says of a device that it cannot use."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

import shardplane as sp

WORKER = os.path.join(os.environ.get("SHARDPLANE_BIN_DIR", ""), "worker",
                      "shardplane_worker")


def start(binary, device):
    return subprocess.run([binary, f"--device={device}", "--id=w"],
                          capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL)


def test_workers_say_where_they_compute(shared_cluster):
    assert {worker.device for worker in shared_cluster.workers()} == {"cpu"}


def test_a_gpu_that_is_not_there_ends_the_start_at_once():
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(RuntimeError) as caught:  # and no TimeoutError
        sp.LocalCluster(workers=1, device=device)
    text = str(caught.value)
    assert "worker-0 ended with code 1" in text
    assert "expected" in text and f"got: {device}" in text
    assert "GPU" in text


def test_up_ends_with_the_same_words():
    device = f"cuda:{torch.cuda.device_count()}"
    result = subprocess.run(
        [sys.executable, "-W", "ignore::RuntimeWarning:runpy", "-m",
         "shardplane.local_cluster", "up", "--workers=1",
         f"--device={device}"],
        capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert f"got: {device}" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_device_is_refused():
    for device in ("abacus", "cuda:x"):
        result = start(WORKER, device)
        assert result.returncode == 1
        assert f"expected cpu, cuda or cuda:N, got: {device}" in result.stderr


def test_without_the_binary_for_gpus_it_says_which_is_missing(tmp_path):
    alone = shutil.copy(WORKER, tmp_path)
    result = start(alone, "cuda:0")
    assert result.returncode == 1
    missing = os.path.join(tmp_path, "shardplane_worker_cuda")
    assert missing in result.stderr and "got: cuda:0" in result.stderr
