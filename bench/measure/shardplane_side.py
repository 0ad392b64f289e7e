"""Shardplane's side: a cluster of this machine."""

import itertools
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
        self._timings = []  # of the steps of this run
        self.timings = []  # (seconds a step, its StepTimings) of each run

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
        return first, losses

    def run(self, side, steps):
        """(seconds, last loss)."""
        self._timings.clear()
        start = time.perf_counter()
        loss = SIDES[side](self, steps)
        seconds = time.perf_counter() - start
        if side == "shardplane":
            self.timings.append((seconds / steps, list(self._timings)))
        return seconds, loss

    def collectives(self):
        """Of the last step: phase -> kind -> number, and -> bytes."""
        return [{phase: kinds for phase, kinds in of.items()
                 if phase != "materialize"}
                for of in (self._handle.comm_counts(),
                           self._handle.comm_bytes())]

    def forget(self):
        self._handle.close()
        self._handle = None

    def worker_pids(self):
        """By rank."""
        return [process.pid for process in self._cluster.processes[1:]]

    def close(self):
        self._cluster.close()

    def _train(self, steps):
        """Steps over one stream."""
        batch = self._inputs, self._targets
        losses = self._handle.train(itertools.repeat(batch, steps),
                                    optimizer=self._optimizer)
        for loss in losses:
            last = loss.item()
            self._timings.append(self._handle.last_timing())
        return last

    def _one_by_one(self, steps):
        """Each loss is read before the next step is sent."""
        for _ in range(steps):
            last = self._step()
        return last

    def _step(self):
        return self._handle.step(*self._inputs, targets=self._targets,
                                 optimizer=self._optimizer).item()


# pylint: disable=protected-access
SIDES = {"shardplane": ShardplaneSide._train,
         "one_by_one": ShardplaneSide._one_by_one}
