"""What carried a worker's collectives, by its own word."""

import contextlib
import re
import urllib.request

import shardplane as sp
from tests.paired import PairedCluster

_GROUPS = re.compile(
    r'^shardplane_process_groups_total{transport="(\w+)"} (\d+)', re.MULTILINE)


def groups(process):
    """transport -> how many groups this worker has joined over it."""
    with urllib.request.urlopen(
            f"http://{process.http_address}/metrics", timeout=30) as page:
        return {name: int(count)
                for name, count in _GROUPS.findall(page.read().decode())}


def _transports(cluster):
    return {name for worker in cluster.processes[1:] for name in groups(worker)}


@contextlib.contextmanager
def both_transports():
    """Four workers over shared memory and four over Gloo, asked as one."""
    with sp.LocalCluster(workers=4, collectives="shm") as first, \
            sp.LocalCluster(workers=4, collectives="gloo") as second, \
            PairedCluster(first, second) as both:
        yield both
        assert _transports(first) <= {"shm"}
        assert _transports(second) <= {"gloo"}
