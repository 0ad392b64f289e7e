"""Every test of this folder runs over both transports between CPUs at once."""

import pytest

import shardplane as sp
from tests.paired import PairedCluster
from tests.transports import groups


def _transports(cluster):
    return {name for worker in cluster.processes[1:] for name in groups(worker)}


@pytest.fixture(scope="session")
def shared_cluster():
    with sp.LocalCluster(workers=4, collectives="shm") as first, \
            sp.LocalCluster(workers=4, collectives="gloo") as second, \
            PairedCluster(first, second) as both:
        yield both
        assert _transports(first) <= {"shm"}
        assert _transports(second) <= {"gloo"}
