"""Every test of this folder runs over both transports between CPUs at once."""

import pytest

from tests.exports import exported_once
from tests.transports import both_transports


@pytest.fixture(scope="package", autouse=True)
def _exported_once():
    with exported_once():
        yield


@pytest.fixture(scope="session")
def shared_cluster():
    with both_transports() as both:
        yield both
