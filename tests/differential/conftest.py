"""Cases run over both transports between CPUs at once, as tests/conformance
does."""

import logging

import pytest

from tests.transports import both_transports


@pytest.fixture(scope="session", autouse=True)
def _short_reports():
    # torch.export writes megabytes to it, which pytest shows when a case fails.
    logging.getLogger("torch.__trace").addFilter(lambda record: False)


@pytest.fixture(scope="package")
def shared_cluster():
    with both_transports() as both:
        yield both
