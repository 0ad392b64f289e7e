"""`bench gpu`: the sides in turns, within a time that is given."""

import contextlib
import dataclasses
import os
import sys
import tempfile
import time

import torch

from measure.figures import machine
from measure.gpu_kernels import print_kernels
from measure.gpu_models import SHAPES, save_state
from measure.gpu_processes import Job, SideFailed, SideProcess
from measure.gpu_results import NAMES, Results, print_model

OPTIMIZER = {"lr": 3e-4}
# Of these the CUDA graph's side takes three before it captures the fourth.
WARM_UP = 6
# Of the first loss. bf16 has 8 bits, so each side rounds every number by up to
# 2^-9, and at other places than the others do. A mean over many tokens averages
# that out: from the same parameters, six steps in bf16 and six in f32 differ by
# 0.03% of the first loss (on a CPU, 6 layers of 512, 1024 tokens). A model that
# is another one, or another learning rate, differs by a part of how far the
# loss falls.
MAX_LOSS_DIFFERENCE = 0.01
MIN_FALL = 5 * MAX_LOSS_DIFFERENCE  # else agreeing says little
MIN_STEPS = 2
MAX_STEPS = 2000
# Side -> where it is made. torch.compile comes last: it takes longest, and so
# gets what time is left.
PROCESSES = {
    "shardplane": ("measure.gpu_shardplane", "ShardplaneSide"),
    "eager": ("measure.gpu_torch", "TorchSide"),
    "eager_graphs": ("measure.gpu_torch", "GraphSide"),
    "compile": ("measure.gpu_torch", "CompiledSide"),
}
NEEDS_GPU = {"eager_graphs"}
# A model's part of the time that is left, beside those behind it.
WEIGHTS = {"tiny": 1, "llama1b": 3}
# Of a model's time: what rounds have to themselves.
ROUNDS_SHARE = 0.25
# A call in a round that takes as long, or as many rounds, hangs, and shall
# leave others time.
MAX_CALL_SECONDS = 60
MAX_CALL_ROUNDS = 10


class Watch:
    """Free memory of the device, which all processes share. Exits where it is
    not there."""

    def __init__(self, device):
        self._device = None if device == "cpu" else torch.device(device)
        count = torch.cuda.device_count()
        if self._device is not None and self._device.index >= count:
            sys.exit(f"expected {device}, got: {count} GPUs; --device cpu runs "
                     "what needs none")

    def free(self):
        """Bytes; None of a CPU."""
        if self._device is None:
            return None
        return torch.cuda.mem_get_info(self._device)[0]

    def describe(self):
        if self._device is None:
            return "cpu"
        return (f"{torch.cuda.get_device_name(self._device)}, "
                f"{self.free() / (1 << 30):.1f} GiB free")


def last_line(text):
    return text.strip().splitlines()[-1]


def process_of(side):
    """The process that runs it."""
    return "shardplane" if side == "one_by_one" else side


class Comparison:
    """One model: prepares the sides, checks them, runs the rounds. What fails
    is left out from then on and stands in the results."""

    def __init__(self, options, model, watch, results):
        self._options = options
        self._model = model
        self._watch = watch
        self._results = results
        self._processes = {}

    def run(self, seconds):
        """Within so many seconds."""
        end = time.monotonic() + seconds
        with tempfile.TemporaryDirectory(prefix="shardplane-gpu-") as folder:
            try:
                self._start(os.path.join(folder, "state"))
                self._prepare(end - ROUNDS_SHARE * seconds)
                self._check_losses()
                self._measure_memory(end)
                self._rounds(end)
                self._trace_kernels(end)
            finally:
                for process in self._processes.values():
                    process.end()
                for process in self._processes.values():
                    process.close()

    def _start(self, state):
        """All at once, since importing takes a while."""
        options = self._options
        job = Job(self._model.shape, state, options.device, OPTIMIZER,
                  options.compile_mode, options.coordinator_args,
                  options.worker_args)
        for side, (module, name) in PROCESSES.items():
            if side in map(process_of, options.sides):
                self._processes[side] = SideProcess(module, name, job)
        save_state(self._model.shape, options.device, state)
        if options.device != "cpu":
            torch.cuda.empty_cache()

    def _prepare(self, end):
        """One after the other: what one compiles, another's work would
        disturb. None but the last takes more than half of what is left."""
        sides = list(self._processes)
        for side in sides:
            left = end - time.monotonic()
            free = self._watch.free()
            with self._failing(side):
                prepared = self._processes[side].call(
                    "prepare", WARM_UP,
                    seconds=left if side == sides[-1] else left / 2)
                self._model.first[side] = prepared.first
                self._model.losses[side] = prepared.losses
                if free is not None:
                    self._model.taken[side] = free - self._watch.free()
                print(f"{self._model.name}: {side}: first step, compilation "
                      f"included, after {prepared.first:.1f} s; losses "
                      + " ".join(f"{loss:.4f}" for loss in prepared.losses),
                      flush=True)
            self._results.save()

    def _check_losses(self):
        """Against eager's, else those of the first that is there."""
        losses = self._model.losses
        if not losses:
            return
        against = "eager" if "eager" in losses else next(iter(losses))
        expected = losses[against]
        for side, got in losses.items():
            with self._failing(side):
                if not agree(got, expected):
                    raise SideFailed(
                        f"expected the losses of {against}, {expected}, to "
                        f"{MAX_LOSS_DIFFERENCE:.0%} of the first; got: {got}")
        if expected[-1] > (1 - MIN_FALL) * expected[0]:
            print(f"{self._model.name}: the losses fall by less than "
                  f"{MIN_FALL:.0%}: that they agree says little", flush=True)

    def _measure_memory(self, end):
        for side in list(self._processes):
            with self._failing(side):
                peak = self._call(side, "peak_bytes", end=end)
                if peak is not None:
                    self._model.peak[side] = peak
                if side == "shardplane":
                    self._model.predicted[side] = self._call(
                        side, "predicted_bytes", end=end)
        self._results.save()

    def _rounds(self, end):
        """As many as there is time for, one at least; the order changes."""
        order = [side for side in NAMES if side in self._options.sides]
        steps = {side: self._steps_of(side, end) for side in order}
        longest = 0.0
        for number in range(self._options.rounds):
            start = time.monotonic()
            if number and start + longest > end:
                print(f"{self._model.name}: time for {number} rounds of "
                      f"{self._options.rounds}", flush=True)
                break
            for side in order:
                ran = self._run(side, steps[side], end)
                if ran is not None:
                    self._model.rounds.setdefault(side, {})[number] = (
                        steps[side], ran)
            order.append(order.pop(0))
            longest = max(longest, time.monotonic() - start)
            self._results.save()

    def _trace_kernels(self, end):
        steps = self._options.kernels
        for side in list(self._processes) if steps else ():
            with self._failing(side):
                self._model.kernels[side] = self._call(
                    side, "kernels", steps, end=end)
                print_kernels(self._model.name, side,
                              self._model.kernels[side])
        self._results.save()

    def _steps_of(self, side, end):
        """So many that they take about the time of a round."""
        steps = self._options.steps or MIN_STEPS
        for _ in range(0 if self._options.steps else 2):
            ran = self._run(side, steps, end)
            if ran is not None:
                steps = round(self._options.round_seconds * steps
                              / ran.seconds)
                steps = max(MIN_STEPS, min(MAX_STEPS, steps))
        return steps

    def _run(self, side, steps, end):
        """Ran, or None of what has failed."""
        if process_of(side) in self._processes:
            with self._failing(process_of(side)):
                return self._call(process_of(side), "run", side, steps,
                                  end=end)
        return None

    def _call(self, side, method, *arguments, end):
        """What has begun may end a little late."""
        round_seconds = self._options.round_seconds
        left = end - time.monotonic() + 10 + round_seconds
        if not self._options.steps:  # else nobody knows how long they take
            left = min(left, max(MAX_CALL_SECONDS,
                                 MAX_CALL_ROUNDS * round_seconds))
        return self._processes[side].call(method, *arguments, seconds=left)

    @contextlib.contextmanager
    def _failing(self, side):
        """A side that fails within ends, and is a line."""
        try:
            yield
        except SideFailed as error:
            self._model.failures[side] = str(error)
            print(f"{self._model.name}: {side} failed:\n{error}",
                  file=sys.stderr, flush=True)
            self._processes.pop(side).close()
            self._results.save()


def agree(losses, expected):
    """Whether they are near; never where one is no number."""
    return all(abs(a - b) <= MAX_LOSS_DIFFERENCE * expected[0]
               for a, b in zip(losses, expected, strict=True))


def shape_of(name, options):
    """The model's, with what the options say."""
    changes = {field: value for field in ("batch", "length", "written_norm")
               if (value := getattr(options, field))}
    return dataclasses.replace(SHAPES[name], **changes)


def leave_out(options):
    """Sides that the device cannot have go, with a line each."""
    if options.device != "cpu":
        return
    for side in NEEDS_GPU.intersection(options.sides):
        print(f"{side} is left out: it needs a GPU", flush=True)
    options.sides = [s for s in options.sides if s not in NEEDS_GPU]


def setting_of(options, watch):
    """What the figures were measured on, and how."""
    return {"device": watch.describe(), "torch": torch.__version__,
            "machine": machine(), **{name: getattr(options, name) for name in (
                "written_norm", "coordinator_args", "worker_args",
                "compile_mode")}}


def compare(options):
    """Whether all went well; prints and writes what it finds."""
    end = time.monotonic() + 60 * options.minutes
    watch = Watch(options.device)
    setting = setting_of(options, watch)
    print("; ".join(f"{name} {value}" for name, value in setting.items()),
          flush=True)
    leave_out(options)
    results = Results(options.json, setting)
    for i, name in enumerate(options.models):
        model = results.add(name, shape_of(name, options))
        weights = [WEIGHTS[other] for other in options.models[i:]]
        left = end - time.monotonic()
        Comparison(options, model, watch, results).run(
            left * weights[0] / sum(weights))
        print_model(model)
    results.save()
    for model in results.models:
        for side, message in model.failures.items():
            print(f"{model.name}: {side} failed: {last_line(message)}",
                  flush=True)
    return not results.failed()
