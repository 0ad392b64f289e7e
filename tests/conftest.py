"""One cluster of four workers for all tests; each frees what it took."""

import logging
import signal
import warnings

import pytest
import torch

import shardplane as sp
from tests import devices


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a GPU, else left out")


_left_out = []


def pytest_deselected(items):
    _left_out.extend(item for item in items if item.get_closest_marker("gpu"))


def pytest_terminal_summary(terminalreporter):
    """`./shardplane test` deselects them where there is no GPU."""
    if _left_out:
        terminalreporter.write_line(f"{len(_left_out)} GPU tests are left out")


@pytest.fixture(scope="session", autouse=True)
def _no_trace():
    """pytest listens to each logger that does not propagate: torch.export
    would write down every graph and every stack for it."""
    trace = logging.getLogger("torch.__trace")
    trace.handlers.clear()
    trace.propagate = True


@pytest.fixture(scope="session", autouse=True)
def _interruptible():
    """Also where a shell that started this in the background has it, and all
    that it starts, ignore interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # The workers use the cores; results do not depend on it.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_cluster():
    with devices.cluster(4) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster):
    """The shared cluster; all its workers are free before and after."""
    yield shared_cluster
    for deployment in shared_cluster.deployments():
        shared_cluster.delete(deployment.name)


@pytest.fixture
def own_cluster():
    """A cluster of two workers that the test may break."""
    with sp.LocalCluster(
            workers=2, coordinator_args=("--lease_ms=1000",)) as cluster:
        yield cluster


@pytest.fixture
def no_warnings():
    """Any warning of the plan is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield
