"""Shardplane's side of `bench gpu`: a cluster of one worker."""

import contextlib
import itertools
import os
import re
import statistics
import threading
import time
import urllib.request
import warnings

import shardplane as sp
from measure.gpu_kernels import kernel_times
from measure.gpu_models import batch_of, load_module, loss_of
from measure.gpu_processes import Prepared, Ran

_TIMELINES = 8  # of a run's last steps
_MEMORY_SECONDS = 0.5
_USED = re.compile(r"^shardplane_device_memory_used_bytes (\S+)$", re.M)


class ShardplaneSide:
    """Its runs are "shardplane", through m.train, and "one_by_one", through
    m.step: each loss is read before the next step is sent."""

    def __init__(self, job):
        self._job = job
        self._cluster = None

    def prepare(self, steps):
        """Prepared, after so many steps."""
        with self._logs():
            return self._prepare(steps)

    def run(self, side, steps):
        """Ran."""
        with self._logs():
            before = processor_seconds(self._worker.pid)
            start = time.perf_counter()
            if side == "one_by_one":
                for _ in range(steps):
                    self._step()
            else:
                self._train(steps)
            self._handle.shards(self._smallest)  # the last update has ended
            seconds = time.perf_counter() - start
            busy = processor_seconds(self._worker.pid) - before
            waited = self._waited(min(steps, _TIMELINES))
            return Ran(seconds, max(0.0, 1 - waited * steps / seconds),
                       busy / seconds)

    def peak_bytes(self):
        """Of tensors on the worker's device: the most that its metrics show
        while it trains for a moment. Of what a graph computes in these have
        only what it returns: at least what the last run took beside what lies
        there between steps, but for gradients, which a graph keeps."""
        with self._logs():
            most, over = [self._used()], threading.Event()
            def watch():
                while not over.is_set():
                    most.append(self._used())
            watching = threading.Thread(target=watch)
            watching.start()
            try:
                self._train(self._memory_steps)
            finally:
                over.set()
                watching.join()
            (run,) = self._handle.peak_run_bytes
            return max(*most, self._held_bytes() + run)

    def predicted_bytes(self):
        """What the report says of the same: what lies there between steps,
        and what a run takes beside it."""
        (memory,) = self._handle.report.memory
        return (self._held_bytes() + memory.gradient_bytes
                + memory.peak_run_bytes)

    def kernels(self, steps):
        """kernel_times of so many steps."""
        trace = []
        asks = threading.Thread(target=lambda: trace.append(
            self._get(f"/profile?steps={steps}", seconds=90)))
        with self._logs():
            asks.start()
            while asks.is_alive():
                self._step()
            asks.join()
            return kernel_times(trace[0], steps, self._job.device != "cpu")

    def close(self):
        if self._cluster is not None:
            self._cluster.close()

    def _prepare(self, steps):
        job = self._job
        self._cluster = sp.LocalCluster(
            workers=1, device=job.device,
            coordinator_args=job.coordinator_args,
            worker_args=job.worker_args)
        self._worker = self._cluster.processes[1]
        self._optimizer = sp.AdamW(**job.optimizer)
        ids, targets = batch_of(job.shape)
        self._inputs, self._targets = (ids,), (targets,)
        module = load_module(job.shape, job.state)
        self._smallest, _ = min(module.named_parameters(),
                                key=lambda named: named[1].numel())
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they stand in the report
            self._handle = self._cluster.parallelize_module(
                module, {"tp": 1}, {},
                example_inputs=self._inputs, example_targets=self._targets,
                loss=loss_of)
        losses = [self._step()]
        first = time.perf_counter() - start
        losses += [self._step() for _ in range(steps - 2)]
        start = time.perf_counter()
        losses.append(self._step())
        self._memory_steps = max(2, min(500, round(
            _MEMORY_SECONDS / (time.perf_counter() - start))))
        return Prepared(first, losses)

    def _step(self):
        return self._handle.step(*self._inputs, targets=self._targets,
                                 optimizer=self._optimizer).item()

    def _held_bytes(self):
        """Parameters, buffers and the optimizer's state."""
        (memory,) = self._handle.report.memory
        (state,) = self._handle.report.optimizer_bytes(self._optimizer)
        return memory.parameter_bytes + memory.buffer_bytes + state

    def _train(self, steps):
        batch = self._inputs, self._targets
        for loss in self._handle.train(itertools.repeat(batch, steps),
                                       optimizer=self._optimizer):
            loss.item()

    def _waited(self, steps):
        """Seconds of a step in which the worker waited for its device: those
        of its run in which it was in no instruction. Copying the batch
        there and the loss back wait for what was issued before."""
        last = self._handle.last_step
        return statistics.mean(
            waited_of(self._handle.timeline(step).ranks[0])
            for step in range(last - steps + 1, last + 1))

    def _used(self):
        return float(_USED.search(self._get("/metrics"))[1])

    def _get(self, path, seconds=10):
        url = f"http://{self._worker.http_address}{path}"
        with urllib.request.urlopen(url, timeout=seconds) as page:
            return page.read().decode()

    @contextlib.contextmanager
    def _logs(self):
        """With the ends of the processes' logs, in what goes wrong within."""
        try:
            yield
        except Exception as error:
            for process in self._cluster.processes if self._cluster else ():
                error.add_note(f"--- {process.name}\n{process.log_tail()}")
            raise


def waited_of(rank):
    """Seconds of a RankTimeline's run that are no instruction's."""
    run = next(seconds for name, _, seconds in rank.phases if name == "run")
    return max(0.0, run - sum(span.seconds for span in rank.spans))


def processor_seconds(pid):
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
