"""What carried a worker's collectives and its steps, by its own word."""

import contextlib
import re
import urllib.request

import shardplane as sp
from tests import devices
from tests.paired import PairedCluster

# The command line of a coordinator that sends steps through gRPC.
NO_LOCAL_STEPS = ("--nolocal_steps",)


def _counted(process, family):
    """transport -> a worker's count."""
    with urllib.request.urlopen(
            f"http://{process.http_address}/metrics", timeout=30) as page:
        found = re.findall(rf'^{family}{{transport="(\w+)"}} (\d+)',
                           page.read().decode(), re.MULTILINE)
    return {name: int(count) for name, count in found}


def groups(process):
    """transport -> how many groups this worker has joined over it."""
    return _counted(process, "shardplane_process_groups_total")


def step_streams(process):
    """transport -> how many streams of steps this worker was sent over it."""
    return _counted(process, "shardplane_step_streams_total")


def _transports(cluster, counts):
    return {name for worker in cluster.processes[1:] for name in counts(worker)}


@contextlib.contextmanager
def both_transports():
    """Four workers over shared memory and local sockets, and four over Gloo and
    gRPC, asked as one. On GPUs (tests.devices) four workers."""
    if devices.device() != "cpu":
        with devices.cluster(4) as cluster:
            yield cluster
        return
    with sp.LocalCluster(workers=4, collectives="shm") as first, \
            sp.LocalCluster(workers=4, collectives="gloo",
                            coordinator_args=NO_LOCAL_STEPS) as second, \
            PairedCluster(first, second) as both:
        yield both
        assert _transports(first, groups) <= {"shm"}
        assert _transports(first, step_streams) <= {"local"}
        assert _transports(second, groups) <= {"gloo"}
        assert _transports(second, step_streams) <= {"grpc"}
