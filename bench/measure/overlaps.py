"""`bench step --overlaps`: each overlap on and off, the variants in turns."""

import itertools
import time
import warnings

import torch

import shardplane as sp
from measure.cases import CASES
from measure.figures import Figures, machine, print_table, spread

# Name -> what parallelize_module takes: without any, each alone, all.
VARIANTS = {"none": (), "prefetch": ("prefetch",),
            "gradients": ("gradients",), "all": None}
# A row each: the mesh dim of the batch, and what its parameters are there.
KINDS = ("fully_shard", "replicate")
WARM_UP = 3
ROUND_SECONDS = 0.5
MAX_STEPS = 100


class Variant:
    """A deployment of its own; the workers are shared."""

    def __init__(self, cluster, name, kind, ranks, overlap):
        case = CASES[name]
        self._inputs, self._targets = case.batch()
        self._optimizer = getattr(sp, case.optimizer)(**case.options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they stand in the report
            self._handle = cluster.parallelize_module(
                case.module(), {"dp": ranks}, {}, loss=case.loss,
                example_inputs=self._inputs, example_targets=self._targets,
                data_parallel=kind, overlap=overlap)
        self.started = self._handle.report.program_text.count("  start ")
        self.losses = self.run(WARM_UP)[1]

    def run(self, steps):
        """(seconds a step, losses)."""
        start = time.perf_counter()
        losses = [loss.item() for loss in self._handle.train(
            itertools.repeat((self._inputs, self._targets), steps),
            optimizer=self._optimizer)]
        return (time.perf_counter() - start) / steps, losses

    def close(self):
        self._handle.close()


def measure(options, name, kind, figures):
    """Cells: milliseconds without, what each saves, collectives started."""
    ranks, cells = options.ranks, [f"{name}, {kind}"]
    with sp.LocalCluster(workers=len(VARIANTS) * ranks) as cluster:
        variants = {variant: Variant(cluster, name, kind, ranks, overlap)
                    for variant, overlap in VARIANTS.items()}
        expected = variants["none"].losses
        for variant, run in variants.items():  # an overlap changes no bit
            assert run.losses == expected, (variant, run.losses, expected)
        steps = options.steps or max(1, min(MAX_STEPS, round(
            ROUND_SECONDS / variants["none"].run(2)[0])))
        seconds = {variant: [] for variant in VARIANTS}
        order = list(VARIANTS)
        for _ in range(options.rounds):
            for variant in order:
                seconds[variant].append(variants[variant].run(steps)[0])
            order.append(order.pop(0))
        for variant, values in seconds.items():
            cell = spread(figures.add("step_seconds", "s", values, model=name,
                                      data_parallel=kind, overlap=variant),
                          1e3)
            if variant == "none":
                cells.append(cell)
                continue
            gain = [off / on for off, on in zip(seconds["none"], values)]
            cells.append(spread(figures.add(
                "overlap_gain", "1", gain, model=name, data_parallel=kind,
                overlap=variant), digits=2))
        cells.append(str(variants["all"].started))
        for run in variants.values():
            run.close()
    return cells


def compare_overlaps(options):
    """The Figures; prints them too."""
    torch.set_num_threads(1)
    figures = Figures("step")
    print(f"{machine()}; torch {torch.__version__}; {options.ranks} ranks of "
          f"1 thread, data parallel; {options.rounds} rounds", flush=True)
    rows = [measure(options, name, kind, figures)
            for name in options.models for kind in KINDS]
    print("\nMilliseconds a step without overlap, and that over the time with "
          "it, paired: median (quartiles)", flush=True)
    print_table([["model", "ms", *list(VARIANTS)[1:], "started"], *rows])
    return figures
