"""Cases by their seeds, each on workers that are all there; what fails is
shrunk."""

import time

import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb
from tests import devices
from tests.differential.check import Failure, check
from tests.differential.generate import random_case
from tests.differential.results import record
from tests.differential.shrink import as_test, shrink

WORKERS = 4
SHRINK_SECONDS = 90


class Workers:
    """A cluster; another one where a case has cost it a worker."""

    def __init__(self):
        self._cluster = None

    def cluster(self):
        if self._cluster is not None and not self._whole():
            self.close()
        if self._cluster is None:
            self._cluster = sp.LocalCluster(workers=WORKERS,
                                            **devices.options())
        return self._cluster

    def _whole(self):
        for deployment in self._cluster.deployments():
            self._cluster.delete(deployment.name)
        return sum(worker.state == pb.WorkerNode.STATE_READY
                   for worker in self._cluster.workers()) == WORKERS

    def close(self):
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def failure_of(cluster, case):
    """The Failure, or None."""
    try:
        check(cluster, case)
    except Failure as failure:
        return failure
    return None


def is_one(case):
    """Whether PyTorch itself can run it: not all smaller ones fit together."""
    try:
        case.loss_of(case.module()(case.input()), case.targets())
    except Exception:
        return False
    return True


def shrunk(case, workers, seconds=SHRINK_SECONDS):
    def fails(candidate):
        if not is_one(candidate):
            return None
        failure = failure_of(workers.cluster(), candidate)
        return failure and failure.kind

    return shrink(case, fails, seconds)


def explained(failure, workers):
    """What a failing test says: the case, its program, and a small one."""
    said = [failure.text(),
            "Again: ./shardplane python -m tests.differential seed "
            f"{failure.case.seed}"]
    if not failure_of(workers.cluster(), failure.case):
        return "\n\n".join([*said, "On workers of its own it passes."])
    small = shrunk(failure.case, workers)
    again = failure_of(workers.cluster(), small)
    return "\n\n".join([
        *said, f"Shrunk, as a test of its own ({again and again.error}):",
        as_test(small)])


def try_seed(seed, workers):
    """(what to record, the Failure or None)"""
    began = time.monotonic()
    case = random_case(seed)
    failure = failure_of(workers.cluster(), case)
    outcome = failure.kind if failure else "passed"
    return record(case, outcome, time.monotonic() - began), failure


def run_seeds(seeds, results, say=print):
    """Tries each, adds it to the results; the texts of what failed."""
    failures = []
    with Workers() as workers:
        for seed in seeds:
            entry, failure = try_seed(seed, workers)
            if failure:
                failures.append(explained(failure, workers))
                say(failures[-1])
            results.append(entry)
    return failures


def seeds_for(minutes, first, at_least=0, clock=time.monotonic):
    """Seeds from `first` on, until the time is over."""
    end = clock() + 60 * minutes
    seed = first
    while clock() < end or seed < first + at_least:
        yield seed
        seed += 1
