"""Clusters of the tests of this folder."""

import contextlib

import pytest
import torch

import shardplane as sp

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
