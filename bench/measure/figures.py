"""Figures: medians with quartiles, or percentiles, for people and as JSON."""

import json
import os
import statistics


def quartiles(values):
    """(lower quartile, median, upper quartile)."""
    if len(values) == 1:
        return tuple(values) * 3
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


def percentiles(values):
    """(p50, p90, p99)."""
    ordered = sorted(values)
    return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * share))]
                 for share in (0.5, 0.9, 0.99))


class Figures:
    """One object a figure: `figure`, what it is of, and the summary."""

    def __init__(self, bench):
        self._bench = bench
        self.all = []

    def add(self, figure, unit, values, **of):
        """`values`: the samples. Returns (lower quartile, median, upper)."""
        summary = quartiles(values)
        self.add_summary(figure, unit, summary, len(values), **of)
        return summary

    def add_summary(self, figure, unit, summary, samples, **of):
        low, median, high = summary
        self.all.append({"bench": self._bench, "figure": figure, **of,
                         "unit": unit, "median": median, "low": low,
                         "high": high, "samples": samples})

    def add_percentiles(self, figure, unit, values, **of):
        """`values`: the samples. Returns (p50, p90, p99)."""
        p50, p90, p99 = percentiles(values)
        self.all.append({"bench": self._bench, "figure": figure, **of,
                         "unit": unit, "p50": p50, "p90": p90, "p99": p99,
                         "samples": len(values)})
        return p50, p90, p99

    def write(self, path):
        with open(path, "w", encoding="utf-8") as file:
            file.write("[\n" + ",\n".join(map(json.dumps, self.all)) +
                       "\n]\n")


def spread(triple, scale=1.0, digits=1):
    """"12.3 (11.9 .. 12.8)"."""
    low, median, high = (f"{scale * value:.{digits}f}" for value in triple)
    return f"{median} ({low} .. {high})"


def print_table(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(
            row, widths)).rstrip(), flush=True)


def machine():
    """What to know about the machine, in a line."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    busy = ("" if load < cores / 2 else
            ": others are at work, which shows in the spread")
    return f"{cores} cores, load {load:.1f} at the start{busy}"
