"""Cases run over both transports between CPUs at once, as tests/conformance
does."""

import pytest

from tests.transports import both_transports


@pytest.fixture(scope="package")
def shared_cluster():
    with both_transports() as both:
        yield both
