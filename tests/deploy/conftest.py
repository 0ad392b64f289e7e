"""Images, made once; a cluster that takes steps, and a Prometheus that looks
on."""

import types

import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel
from torch.distributed.tensor.parallel import RowwiseParallel

import shardplane as sp

from tests.deploy import image
from tests.deploy import pods
from tests.deploy.prometheus_server import Prometheus

RANKS = 2


def parallelized(cluster):
    """A deployment of a small model, and its input."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(),
                                torch.nn.Linear(16, 4))
    x = torch.randn(6, 8)
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    return cluster.parallelize_module(model, {"tp": RANKS}, plan,
                                      example_inputs=(x,)), x


@pytest.fixture(scope="package")  # it has much to do at each scrape
def watched(tmp_path_factory):
    """`cluster` of two workers, `m` over both of them, its input `x`, and
    `prometheus`."""
    with sp.LocalCluster(workers=RANKS) as cluster:
        folder = tmp_path_factory.mktemp("prometheus")
        with Prometheus(folder, cluster) as prometheus:
            prometheus.scraped()  # before the first count
            m, x = parallelized(cluster)
            yield types.SimpleNamespace(cluster=cluster, m=m, x=x,
                                        prometheus=prometheus)
            m.close()


@pytest.fixture(scope="session")
def collected(tmp_path_factory):
    """What the build stage of the images leaves."""
    return image.collect(tmp_path_factory.mktemp("build") / "out")


@pytest.fixture(scope="session")
def images(collected, tmp_path_factory):
    return pods.images(collected, tmp_path_factory.mktemp("images"))
