"""Clusters of the tests of this folder."""

import contextlib

import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.models import MLPModule

MLP_PLAN = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
# And two ranks of a GPU that NCCL cannot connect.
SHARED_DEVICES = [*DEVICES, pytest.param("cuda/shm", marks=pytest.mark.gpu)]


@contextlib.contextmanager
def cluster_on(device, workers, **options):
    """A GPU for each worker, or where there are too few the first for all.
    "cuda/shm": collectives go through the host's memory."""
    device, _, collectives = device.partition("/")
    if device == "cuda" and torch.cuda.device_count() < workers:
        device = "cuda:0"
    with sp.LocalCluster(workers=workers, device=device,
                         collectives=collectives or "auto",
                         **options) as cluster:
        yield cluster


@contextlib.contextmanager
def two_workers_on(device, **options):
    """cluster_on with two; skips the test where NCCL lets ranks share no
    GPU."""
    with cluster_on(device, 2, **options) as cluster:
        try:
            with cluster.parallelize_module(MLPModule(), {"tp": 2}, MLP_PLAN):
                pass
        except sp.FailedPreconditionError as error:
            if error.reason != "GPU_SHARED":
                raise
            pytest.skip(error.message)
        yield cluster
