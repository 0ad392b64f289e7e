"""`bench step`: the sides in turns, and what came of it."""

import math
import statistics
import sys

import torch

from measure.cases import CASES
from measure.collective_times import sum_of
from measure.figures import Figures, machine, print_table, quartiles, spread
from measure.shardplane_side import ShardplaneSide
from measure.torch_ranks import TorchRanks

WARM_UP = 3
# Relative: sums of float32 in another order.
MAX_LOSS_DIFFERENCE = 1e-3
MAX_STEPS = 2000
MIN_STEPS = 2
NAMES = {"shardplane": "Shardplane", "one_by_one": "one by one",
         "eager": "DTensor", "compile": "DTensor, compiled",
         "plain": "PyTorch, not cut", "local": "a rank's operators"}


class Sides:
    """The sides by name; each has prepare(case), run(steps), forget()."""

    def __init__(self, options):
        self._options = options
        self._processes = []
        self.names = [name for name in NAMES
                      if name != "compile" or not options.no_compile]

    def __enter__(self):
        try:
            self.shardplane = self._start(ShardplaneSide)
            self._ranks = self._start(TorchRanks)
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
        return self._of(side).prepare(case, side, WARM_UP)

    def run(self, side, steps):
        """Seconds a step."""
        seconds, _ = self._of(side).run(side, steps)
        return seconds / steps

    def forget(self):
        for process in self._processes:
            process.forget()

    def _of(self, side):
        return {"shardplane": self.shardplane, "one_by_one": self.shardplane,
                "plain": self._plain}.get(side, self._ranks)


def check_losses(case, losses):
    """They train the same model: exits where they do not."""
    expected = losses["plain"]
    for side, got in losses.items():
        for a, b in zip(expected, got):
            if not math.isclose(a, b, rel_tol=MAX_LOSS_DIFFERENCE):
                sys.exit(f"{case}: expected the losses {expected} of plain "
                         f"PyTorch, got: {got} from {side}")


def steps_of_a_round(sides, options):
    """Side -> so many that it takes about the time of a round."""
    if options.steps:
        return dict.fromkeys(sides.names, options.steps)
    steps = {}
    for side in sides.names:
        steps[side] = MIN_STEPS
        # Twice: the first steps of a stream cost more than those behind them.
        for _ in range(2):
            steps[side] = max(MIN_STEPS, min(MAX_STEPS, round(
                options.round_seconds / sides.run(side, steps[side]))))
    return steps


def measure(sides, name, options, figures):
    """Seconds a step by side, one entry a round."""
    first, losses = {}, {}
    for side in sides.names:
        if side == "one_by_one":
            continue  # the same deployment
        first[side], losses[side] = sides.prepare(side, name)
        figures.add("first_step_seconds", "s", [first[side]], model=name,
                    side=side)
    del losses["local"]  # of another model
    check_losses(name, losses)
    steps = steps_of_a_round(sides, options)
    sides.shardplane.timings.clear()
    seconds = {side: [] for side in sides.names}
    order = list(sides.names)
    for _ in range(options.rounds):
        for side in order:
            seconds[side].append(sides.run(side, steps[side]))
        order.append(order.pop(0))
    print(f"{name}: {options.rounds} rounds; steps of each: "
          + ", ".join(f"{side} {n}" for side, n in steps.items())
          + "; first step (compilation included): "
          + ", ".join(f"{side} {s:.1f} s" for side, s in first.items()),
          flush=True)
    return seconds


def add_times(figures, name, seconds):
    """(cells of times in ms, cells of ratios)."""
    times, ratios = [name], [name]
    for side, values in seconds.items():
        times.append(spread(figures.add(
            "step_seconds", "s", values, model=name, side=side), 1e3))
        if side in ("shardplane", "local"):
            continue
        paired = [other / own
                  for other, own in zip(values, seconds["shardplane"])]
        ratios.append(spread(figures.add(
            "ratio", "1", paired, model=name, side=side), digits=2))
    return times, ratios


def add_floor(figures, name, seconds, collectives):
    """Cells: what a step takes at least, operators and collectives one after
    the other, and how much more it takes. `collectives`: their seconds."""
    figures.add("collectives_alone_seconds", "s", [collectives], model=name)
    over = [own / (local + collectives) for own, local in zip(
        seconds["shardplane"], seconds["local"])]
    floor = [local + collectives for local in seconds["local"]]
    return [name,
            spread(quartiles(seconds["local"]), 1e3),
            f"{1e3 * collectives:.1f}",
            spread(figures.add("floor_seconds", "s", floor, model=name), 1e3),
            spread(figures.add("over_floor", "1", over, model=name), digits=2)]


# Where a step of Shardplane's goes: name -> seconds, of its share of a run and
# its StepTiming. Collectives include waiting for the other ranks; steps of a
# stream follow one another on the workers, so what is left is what client and
# coordinator add.
PARTS = {
    "step": lambda step, t: step,
    "operators": lambda step, t: t.run_seconds - t.collective_seconds,
    "collectives": lambda step, t: t.collective_seconds,
    "update": lambda step, t: t.commit_call_seconds,
    "beside": lambda step, t: step - t.run_seconds - t.commit_call_seconds,
}


def add_parts(figures, name, runs):
    """Cells of times in ms. `runs`: as ShardplaneSide.timings has them."""
    row = [name]
    for part, seconds_of in PARTS.items():
        means = [statistics.mean(seconds_of(step, t) for t in timings)
                 for step, timings in runs]
        row.append(spread(figures.add("part_seconds", "s", means, model=name,
                                      part=part), 1e3))
    return row


def title(text):
    print(f"\n{text}", flush=True)


def compare(options):
    """The Figures; prints them too."""
    torch.set_num_threads(1)
    figures = Figures("step")
    print(f"{machine()}; torch {torch.__version__}; {options.ranks} ranks of "
          "1 thread", flush=True)
    times, ratios, parts, floors = [], [], [], []
    with Sides(options) as sides:
        for name in options.models:
            seconds = measure(sides, name, options, figures)
            time_cells, ratio_cells = add_times(figures, name, seconds)
            times.append(time_cells)
            ratios.append(ratio_cells)
            parts.append(add_parts(figures, name, sides.shardplane.timings))
            floors.append(add_floor(
                figures, name, seconds,
                sum_of(options.ranks, *sides.shardplane.collectives())))
            sides.forget()
        heads = [NAMES[side] for side in sides.names]
    title("Milliseconds a step: median (quartiles)")
    print_table([["model", *heads], *times])
    title("Their time over Shardplane's, paired: median (quartiles)")
    print_table([["model", *heads[1:-1]], *ratios])
    title("Milliseconds at least: a rank's operators, on all ranks at once, and "
          "the collectives alone; and the step over that")
    print_table([["model", "operators", "collectives", "together", "step over"],
                 *floors])
    title("Where Shardplane's milliseconds go, on each step's slowest rank")
    print_table([["model", *PARTS], *parts])
    title("Models")
    print_table([[name, CASES[name].title] for name in options.models])
    return figures
