"""`bench step`: the sides in turns, and what came of it."""

import math
import sys

import torch

from measure.cases import CASES
from measure.figures import Figures, machine, print_table, spread
from measure.shardplane_side import ShardplaneSide
from measure.torch_ranks import TorchRanks

WARM_UP = 3
# Relative: sums of float32 in another order.
MAX_LOSS_DIFFERENCE = 1e-3
MAX_STEPS = 50
NAMES = {"shardplane": "Shardplane", "eager": "DTensor",
         "compile": "DTensor, compiled", "plain": "PyTorch, not cut"}


class Sides:
    """The sides by name; each has prepare(case), run(steps), forget()."""

    def __init__(self, options):
        self._options = options
        self._processes = []
        self.names = ["shardplane", "eager"]
        if not options.no_compile:
            self.names.append("compile")
        self.names.append("plain")

    def __enter__(self):
        try:
            self.shardplane = self._start(ShardplaneSide)
            self._dtensor = self._start(TorchRanks)
            self._plain = self._start(lambda _: TorchRanks(None))
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, make):
        self._processes.append(make(self._options.ranks))
        return self._processes[-1]

    def __exit__(self, *_):
        for process in self._processes:
            process.close()

    def prepare(self, side, case):
        """(seconds of the first step, losses of the warm-up)."""
        if side == "shardplane":
            return self.shardplane.prepare(case, WARM_UP)
        return self._ranks_of(side).prepare(case, side, WARM_UP)

    def run(self, side, steps):
        """Seconds a step."""
        if side == "shardplane":
            seconds, _ = self.shardplane.run(steps)
        else:
            seconds, _ = self._ranks_of(side).run(side, steps)
        return seconds / steps

    def forget(self):
        for process in self._processes:
            process.forget()

    def _ranks_of(self, side):
        return self._plain if side == "plain" else self._dtensor


def check_losses(case, losses):
    """They train the same model: exits where they do not."""
    expected = losses["plain"]
    for side, got in losses.items():
        for a, b in zip(expected, got):
            if not math.isclose(a, b, rel_tol=MAX_LOSS_DIFFERENCE):
                sys.exit(f"{case}: expected the losses {expected} of plain "
                         f"PyTorch, got: {got} from {side}")


def steps_of_a_round(sides, options):
    """So many that the slowest side takes about that long."""
    if options.steps:
        return options.steps
    slowest = max(sides.run(side, 1) for side in sides.names)
    return max(1, min(MAX_STEPS, round(options.round_seconds / slowest)))


def measure(sides, name, options, figures):
    """Seconds a step by side, one entry a round."""
    first, losses = {}, {}
    for side in sides.names:
        first[side], losses[side] = sides.prepare(side, name)
        figures.add("first_step_seconds", "s", [first[side]], model=name,
                    side=side)
    check_losses(name, losses)
    steps = steps_of_a_round(sides, options)
    sides.shardplane.timings.clear()
    seconds = {side: [] for side in sides.names}
    order = list(sides.names)
    for _ in range(options.rounds):
        for side in order:
            seconds[side].append(sides.run(side, steps))
        order.append(order.pop(0))
    print(f"{name}: {options.rounds} rounds of {steps} steps; first step "
          f"(compilation included): " + ", ".join(
              f"{side} {first[side]:.1f} s" for side in sides.names),
          flush=True)
    return seconds


def add_times(figures, name, seconds):
    """(cells of times in ms, cells of ratios)."""
    times, ratios = [name], [name]
    for side, values in seconds.items():
        times.append(spread(figures.add(
            "step_seconds", "s", values, model=name, side=side), 1e3))
        if side == "shardplane":
            continue
        paired = [other / own
                  for other, own in zip(values, seconds["shardplane"])]
        ratios.append(spread(figures.add(
            "ratio", "1", paired, model=name, side=side), digits=2))
    return times, ratios


# Where a step of Shardplane's goes: name -> seconds, of the whole call and its
# StepTiming. Collectives include waiting for the other ranks, the update its
# own RPC.
PARTS = {
    "step": lambda call, t: call,
    "client": lambda call, t: call - t.seconds,
    "RPC, coordinator": lambda call, t: (
        t.seconds - t.run_seconds - t.commit_call_seconds),
    "operators": lambda call, t: t.run_seconds - t.collective_seconds,
    "collectives": lambda call, t: t.collective_seconds,
    "update": lambda call, t: t.commit_call_seconds,
}


def add_parts(figures, name, timings):
    """Cells of times in ms."""
    row = [name]
    for part, seconds_of in PARTS.items():
        row.append(spread(figures.add(
            "part_seconds", "s", [seconds_of(*t) for t in timings],
            model=name, part=part), 1e3))
    return row


def title(text):
    print(f"\n{text}", flush=True)


def compare(options):
    """The Figures; prints them too."""
    torch.set_num_threads(1)
    figures = Figures("step")
    print(f"{machine()}; torch {torch.__version__}; {options.ranks} ranks of "
          "1 thread", flush=True)
    times, ratios, parts = [], [], []
    with Sides(options) as sides:
        for name in options.models:
            seconds = measure(sides, name, options, figures)
            time_cells, ratio_cells = add_times(figures, name, seconds)
            times.append(time_cells)
            ratios.append(ratio_cells)
            parts.append(add_parts(figures, name, sides.shardplane.timings))
            sides.forget()
        heads = [NAMES[side] for side in sides.names]
    title("Milliseconds a step: median (quartiles)")
    print_table([["model", *heads], *times])
    title("Their time over Shardplane's, paired: median (quartiles)")
    print_table([["model", *heads[1:]], *ratios])
    title("Where Shardplane's milliseconds go, on the slowest rank")
    print_table([["model", *PARTS], *parts])
    title("Models")
    print_table([[name, CASES[name].title] for name in options.models])
    return figures
