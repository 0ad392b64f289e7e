"""Which device and environment LocalCluster gives each worker: the daemons are
stand-ins that write down how they were called."""

import json
import os
import sys

import pytest

import shardplane as sp

STAND_IN = f"""#!{sys.executable}
import json, os, signal, sys
flags = dict(a[2:].split("=", 1) for a in sys.argv[1:] if "=" in a)
shared = {{k: v for k, v in os.environ.items() if k.startswith("NCCL_")}}
with open(os.path.join(os.environ["RECORD"], flags.get("id", "c")), "w") as f:
    json.dump([flags.get("device"), shared], f)
path = flags["ready_file"]
with open(path + ".tmp", "w") as f:
    json.dump({{"address": "127.0.0.1:1", "http_address": "127.0.0.1:2"}}, f)
os.rename(path + ".tmp", path)
signal.pause()
"""


@pytest.fixture
def record(tmp_path, monkeypatch):
    """device -> what each of two workers was told."""
    for name in ("coordinator", "worker"):
        binary = tmp_path / "bin" / name / f"shardplane_{name}"
        binary.parent.mkdir(parents=True)
        binary.write_text(STAND_IN)
        binary.chmod(0o755)
    monkeypatch.setenv("SHARDPLANE_BIN_DIR", str(tmp_path / "bin"))
    monkeypatch.setenv("RECORD", str(tmp_path))
    for variable in [v for v in os.environ if v.startswith("NCCL_")]:
        monkeypatch.delenv(variable)

    def run(**options):
        with sp.LocalCluster(workers=2, **options):
            return [json.loads((tmp_path / f"worker-{i}").read_text())
                    for i in range(2)]
    return run


def test_cpus_are_the_default(record):
    assert record() == [["cpu", {}], ["cpu", {}]]


def test_cuda_gives_each_worker_a_gpu(record):
    assert record(device="cuda") == [["cuda:0", {}], ["cuda:1", {}]]


def test_one_gpu_for_all_is_shared_knowingly(record, monkeypatch):
    monkeypatch.setenv("NCCL_MAX_CTAS", "2")  # what is set stays
    shared = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0",
              "NCCL_MAX_CTAS": "2"}
    assert record(device="cuda:1") == [["cuda:1", shared]] * 2
