"""Shardplane's side: a cluster of this machine."""

import itertools
import time
import warnings

import torch

import shardplane as sp
from measure.cases import CASES


class ShardplaneSide:
    """A deployment on `ranks` workers, one thread of torch each. Without a
    cluster it has one of its own. `options` are for parallelize_module; with
    data_parallel among them the batch is cut instead of the model."""

    def __init__(self, ranks, cluster=None, **options):
        self._options = options
        cut = "data_parallel" not in options
        self._mesh = {"tp" if cut else "dp": ranks}
        self._has_plan = cut
        self._owned = sp.LocalCluster(workers=ranks) if not cluster else None
        self._cluster = cluster or self._owned
        self._handle = None
        self.timings = []  # (seconds a step, its StepTimings) of each m.train

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
                module, self._mesh,
                case.plan(module) if self._has_plan else {},
                example_inputs=self._inputs, example_targets=self._targets,
                loss=case.loss, **self._options)
        losses = [self._step()]
        first = time.perf_counter() - start
        losses += [self._step() for _ in range(steps - 1)]
        return first, losses

    def run(self, side, steps):
        """(seconds, last loss). `side`: "shardplane", through m.train, or
        "one_by_one": each loss is read before the next step is sent."""
        start = time.perf_counter()
        if side == "one_by_one":
            for _ in range(steps):
                loss = self._step()
            return time.perf_counter() - start, loss
        loss, timings = self._train(steps)
        seconds = time.perf_counter() - start
        self.timings.append((seconds / steps, timings))
        return seconds, loss

    def collectives(self):
        """Of the last step: phase -> kind -> number, and -> bytes."""
        return [{phase: kinds for phase, kinds in of.items()
                 if phase != "materialize"}
                for of in (self._handle.comm_counts(),
                           self._handle.comm_bytes())]

    def started(self):
        """How many collectives run beside others' work."""
        return self._handle.report.program_text.count("  start ")

    def forget(self):
        self._handle.close()
        self._handle = None

    def worker_pids(self):
        """By rank."""
        return [process.pid for process in self._cluster.processes[1:]]

    def close(self):
        if self._owned:
            self._owned.close()

    def _train(self, steps):
        """(last loss, StepTimings), over one stream."""
        batch = self._inputs, self._targets
        losses = self._handle.train(itertools.repeat(batch, steps),
                                    optimizer=self._optimizer)
        timings = []
        for loss in losses:
            last = loss.item()
            timings.append(self._handle.last_timing())
        return last, timings

    def _step(self):
        return self._handle.step(*self._inputs, targets=self._targets,
                                 optimizer=self._optimizer).item()
