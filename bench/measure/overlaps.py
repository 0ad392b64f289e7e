"""`bench step --overlaps`: each overlap on and off, the variants in turns."""

import functools
import math
import operator

import torch

import shardplane as sp
from measure.figures import Figures, machine, print_table, spread
from measure.shardplane_side import ShardplaneSide

# Name -> what parallelize_module takes: without any, each alone, all.
VARIANTS = {"none": (), "prefetch": ("prefetch",),
            "gradients": ("gradients",),
            "input_gradients": ("input_gradients",), "chunks": ("chunks",),
            "all": None}
IN_PIECES = ("chunks", "all")  # whose products are made in pieces
# Shared memory's, but as if all passed beside operators: else nothing is made
# in pieces.
COSTS = {"latency_us": 15, "us_per_mib": 500, "beside": 1}
# A row each: what is cut. Name -> what parallelize_module takes.
KINDS = {"fully_shard": {"data_parallel": "fully_shard"},
         "replicate": {"data_parallel": "replicate"}, "tensor": {}}
NEAR = functools.partial(math.isclose, rel_tol=1e-4)
WARM_UP = 3
ROUND_SECONDS = 0.5
MAX_STEPS = 100


def measure(options, name, kind, figures):
    """Cells: milliseconds without, what each saves, collectives started."""
    ranks, cells = options.ranks, [f"{name}, {kind}"]
    with sp.LocalCluster(workers=len(VARIANTS) * ranks) as cluster:
        variants = {
            variant: ShardplaneSide(ranks, cluster, overlap=overlap,
                                    link_costs=COSTS, **KINDS[kind])
            for variant, overlap in VARIANTS.items()}
        losses = {variant: side.prepare(name, WARM_UP)[1]
                  for variant, side in variants.items()}
        expected = losses["none"]
        for variant, of in losses.items():
            # An overlap changes no bit; pieces change the order of sums.
            close = NEAR if variant in IN_PIECES else operator.eq
            assert all(map(close, of, expected)), (variant, of, expected)
        steps = options.steps or max(1, min(MAX_STEPS, round(
            ROUND_SECONDS / (variants["none"].run("shardplane", 2)[0] / 2))))
        seconds = {variant: [] for variant in VARIANTS}
        order = list(VARIANTS)
        for _ in range(options.rounds):
            for variant in order:
                taken, _ = variants[variant].run("shardplane", steps)
                seconds[variant].append(taken / steps)
            order.append(order.pop(0))
        for variant, values in seconds.items():
            cell = spread(figures.add("step_seconds", "s", values, model=name,
                                      kind=kind, overlap=variant),
                          1e3)
            if variant == "none":
                cells.append(cell)
                continue
            gain = [off / on for off, on in zip(seconds["none"], values)]
            cells.append(spread(figures.add(
                "overlap_gain", "1", gain, model=name, kind=kind,
                overlap=variant), digits=2))
        cells.append(str(variants["all"].started()))
        for side in variants.values():
            side.forget()
    return cells


def compare_overlaps(options):
    """The Figures; prints them too."""
    torch.set_num_threads(1)
    figures = Figures("step")
    print(f"{machine()}; torch {torch.__version__}; {options.ranks} ranks of "
          f"1 thread; {options.rounds} rounds", flush=True)
    rows = [measure(options, name, kind, figures)
            for name in options.models for kind in KINDS]
    print("\nMilliseconds a step without overlap, and that over the time with "
          "it, paired: median (quartiles)", flush=True)
    print_table([["model", "ms", *list(VARIANTS)[1:], "started"], *rows])
    return figures
