"""Every test of this folder runs over both transports between CPUs at once."""

import re
import urllib.request

import pytest

import shardplane as sp
from tests.paired import PairedCluster

_GROUPS = re.compile(
    r'^shardplane_process_groups_total{transport="(\w+)"}', re.MULTILINE)


def _transports(cluster):
    found = set()
    for process in cluster.processes[1:]:
        with urllib.request.urlopen(
                f"http://{process.http_address}/metrics", timeout=30) as page:
            found.update(_GROUPS.findall(page.read().decode()))
    return found


@pytest.fixture(scope="session")
def shared_cluster():
    with sp.LocalCluster(workers=4, collectives="shm") as first, \
            sp.LocalCluster(workers=4, collectives="gloo") as second, \
            PairedCluster(first, second) as both:
        yield both
        assert _transports(first) <= {"shm"}
        assert _transports(second) <= {"gloo"}
