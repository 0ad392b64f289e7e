"""Where the workers of tests compute. On CPUs, unless these say otherwise, for
conformance, zoo and differential tests on GPUs (docs/gpu.md):

  SHARDPLANE_TEST_DEVICE       "cuda": a GPU for each worker; "cuda:0": that one
                               for all
  SHARDPLANE_TEST_COLLECTIVES  what carries collectives: auto, shm, gloo
"""

import os


def device():
    return os.environ.get("SHARDPLANE_TEST_DEVICE", "cpu")


def options():
    """Of a LocalCluster."""
    return {"device": device(),
            "collectives": os.environ.get("SHARDPLANE_TEST_COLLECTIVES",
                                          "auto")}
