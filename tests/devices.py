"""Where the workers of tests compute. On CPUs, unless these say otherwise, for
conformance, zoo and differential tests on GPUs (docs/gpu.md):

  SHARDPLANE_TEST_DEVICE       "cuda": a GPU for each worker; "cuda:0": that one
                               for all
  SHARDPLANE_TEST_COLLECTIVES  what carries collectives: auto, shm, gloo
"""

import contextlib
import os

import torch

import shardplane as sp


def device():
    return os.environ.get("SHARDPLANE_TEST_DEVICE", "cpu")


def collectives():
    return os.environ.get("SHARDPLANE_TEST_COLLECTIVES", "auto")


def options():
    """Of a LocalCluster."""
    return {"device": device(), "collectives": collectives()}


@contextlib.contextmanager
def cluster(workers):
    """A LocalCluster there."""
    with sp.LocalCluster(workers=workers, **options()) as made:
        if device() != "cpu":
            _take_workspaces(made)
        yield made


def _take_workspaces(made):
    """A GPU's libraries take memory with their first work, which else would be
    in the first peaks that tests look at."""
    x = torch.rand(8, 8)
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU())
    with made.parallelize_module(module, {"tp": len(made.processes) - 1}, {},
                                 example_inputs=(x,), loss="sum") as m:
        m.step(x, optimizer=sp.SGD(lr=0.1))
