"""Shardplane's side: a cluster of this machine."""

import time
import warnings

import torch

import shardplane as sp
from measure.cases import CASES


class ShardplaneSide:
    """A coordinator and `ranks` workers, one thread of torch each."""

    def __init__(self, ranks):
        self._ranks = ranks
        self._cluster = sp.LocalCluster(workers=ranks)
        self._handle = None
        self.timings = []  # (seconds of the call, StepTiming) of each step

    def prepare(self, name, steps):
        """(seconds of the first step, losses of `steps` steps)."""
        case = CASES[name]
        self._inputs, self._targets = case.batch()
        self._optimizer = getattr(sp, case.optimizer)(**case.options)
        module = case.module()
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they stand in the report
            self._handle = self._cluster.parallelize_module(
                module, {"tp": self._ranks}, case.plan(module),
                example_inputs=self._inputs, example_targets=self._targets,
                loss=case.loss)
        losses = [self._step()]
        first = time.perf_counter() - start
        losses += [self._step() for _ in range(steps - 1)]
        self.timings.clear()
        return first, losses

    def run(self, steps):
        """(seconds, last loss); each loss is read before the next step."""
        start = time.perf_counter()
        for _ in range(steps):
            loss = self._step()
        return time.perf_counter() - start, loss

    def forget(self):
        self._handle.close()
        self._handle = None

    def worker_pids(self):
        """By rank."""
        return [process.pid for process in self._cluster.processes[1:]]

    def close(self):
        self._cluster.close()

    def _step(self):
        start = time.perf_counter()
        loss = self._handle.step(*self._inputs, targets=self._targets,
                                 optimizer=self._optimizer).item()
        self.timings.append((time.perf_counter() - start,
                             self._handle.last_timing()))
        return loss
