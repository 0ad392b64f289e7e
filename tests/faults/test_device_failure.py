"""A worker whose device fails, as a GPU may: its process is of no more use."""

import math
import os
import pathlib

import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.models import MLPModule, rand

LIBRARY = (pathlib.Path(os.environ["SHARDPLANE_BIN_DIR"])
           / "worker/libfailing_device.so")
PAIR = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}


@pytest.fixture
def cluster(monkeypatch):
    """A worker whose device may fail, and one whose does not."""
    assert LIBRARY.exists()  # the loader would only warn
    with sp.LocalCluster(workers=0) as made:
        with monkeypatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(LIBRARY))
            made.add_workers(1)
        made.add_workers(1)
        yield made


def test_the_worker_says_so_and_ends(cluster):
    """So whoever starts workers anew starts one that has its device."""
    x, module = rand(6, 10), MLPModule()
    m = cluster.parallelize_module(module, {"tp": 2}, PAIR,
                                   example_inputs=(x,), loss="sum")
    torch.testing.assert_close(m(x), module(x).detach())
    bad = x.clone()
    bad[0] = math.nan
    with pytest.raises(sp.ShardplaneError) as raised:
        m.step(bad, optimizer=sp.SGD(lr=0.1))
    assert raised.value.reason == "DEVICE_FAILED"
    assert "unspecified launch failure" in raised.value.message
    process = cluster.processes[1]
    assert process.popen.wait(30) == 1
    log = process.log_tail()
    assert "cpu has failed, which only a new process can use: " in log
    assert log.count("which only a new process can use") == 1
    m.close()
    with pytest.raises(sp.FailedPreconditionError):
        cluster.parallelize_module(module, {"tp": 2}, PAIR)
    cluster.add_workers(1)
    with cluster.parallelize_module(module, {"tp": 2}, PAIR,
                                    example_inputs=(x,)) as again:
        torch.testing.assert_close(again(x), module(x).detach())
