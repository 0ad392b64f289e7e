"""PyTorch's sides of `bench gpu`: eager, eager in a CUDA graph, compiled."""

import pathlib
import tempfile
import time

import torch

from measure.gpu_kernels import kernel_times
from measure.gpu_models import batch_of, load_module, loss_of
from measure.gpu_processes import Prepared, Ran


class TorchSide:
    """PyTorch eager: forward, backward and a fused AdamW. Each loss is read
    before the next step begins."""

    capturable = False  # the optimizer, in a CUDA graph

    def __init__(self, job):
        torch.set_num_threads(1)
        self._job = job
        self._on_gpu = job.device != "cpu"

    def prepare(self, steps):
        """Prepared, after so many steps."""
        job = self._job
        if self._on_gpu:
            torch.cuda.set_device(job.device)
        self._batch = tuple(t.to(job.device) for t in batch_of(job.shape))
        self._module = load_module(job.shape, job.state).to(job.device)
        self._optimizer = torch.optim.AdamW(
            self._module.parameters(), fused=True, **job.optimizer,
            capturable=self.capturable)
        self._loss = self._make_loss()
        start = time.perf_counter()
        losses = [self._step()[1]]
        first = time.perf_counter() - start
        if self._on_gpu:  # from here on a step as any other
            torch.cuda.reset_peak_memory_stats()
        losses += [self._step()[1] for _ in range(steps - 1)]
        return Prepared(first, losses)

    def run(self, side, steps):
        """Ran."""
        del side
        issuing = 0.0
        start = time.perf_counter()
        for _ in range(steps):
            issuing += self._step()[0]
        seconds = time.perf_counter() - start
        return Ran(seconds, issuing / seconds)

    def peak_bytes(self):
        """Of tensors, at most; None where nobody counts."""
        return torch.cuda.max_memory_allocated() if self._on_gpu else None

    def kernels(self, steps):
        """kernel_times of so many steps."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._on_gpu:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(steps):
                self._step()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "trace.json")
            profile.export_chrome_trace(str(path))
            return kernel_times(path.read_bytes(), steps, self._on_gpu)

    def close(self):
        pass

    def _step(self):
        """(seconds until all of it is issued, loss)."""
        start = time.perf_counter()
        loss = self._issue()
        issued = time.perf_counter()
        return issued - start, loss.item()

    def _issue(self):
        """A step; its loss, on the device."""
        self._optimizer.zero_grad()
        loss = self._loss(*self._batch)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def _make_loss(self):
        module = self._module
        return lambda ids, targets: loss_of(module(ids), targets)


class GraphSide(TorchSide):
    """The whole step in one CUDA graph, captured as PyTorch's notes on CUDA
    say: some steps on another stream, then gradients that the graph owns."""

    capturable = True
    eager_steps = 3

    def __init__(self, job):
        super().__init__(job)
        self._taken = 0
        self._stream = None  # one: each keeps memory of its own
        self._graph = None

    def _issue(self):
        self._taken += 1
        if self._taken <= self.eager_steps:
            return self._issue_aside()
        if self._graph is None:
            self._capture()
        self._graph.replay()
        return self._captured

    def _issue_aside(self):
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            loss = super()._issue()
        torch.cuda.current_stream().wait_stream(self._stream)
        return loss

    def _capture(self):
        self._optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._captured = super()._issue()
        self._graph = graph


class CompiledSide(TorchSide):
    """torch.compile of forward and loss."""

    def _make_loss(self):
        return torch.compile(super()._make_loss(), fullgraph=True,
                             mode=self._job.compile_mode, dynamic=False)

    def _issue(self):
        torch.compiler.cudagraph_mark_step_begin()
        return super()._issue()
