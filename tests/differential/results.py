"""What cases have been tried, over all runs: a line of JSON each."""

import collections
import json
import os
import pathlib

from tests.differential.shrink import mapped


def default_path():
    cache = os.environ.get("SHARDPLANE_CACHE") or os.path.expanduser(
        "~/.cache/shardplane")
    return pathlib.Path(cache) / "differential" / "results.jsonl"


def record(case, outcome, seconds):
    """`outcome`: "passed", or the kind of failure."""
    styles = []
    mapped(case.plan, styles.append)
    return {
        "seed": case.seed, "outcome": outcome, "seconds": round(seconds, 2),
        "mesh": mesh_text(case.mesh),
        "blocks": [kind for kind, _ in case.blocks.values()],
        "styles": [style.kind for style in styles],
        "loss": case.loss, "optimizer": case.optimizer,
        "frozen": bool(case.frozen), "tied": bool(case.tied)}


def mesh_text(mesh):
    return "x".join(map(str, mesh.values()))


class Results:
    """A file that runs append to."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def append(self, entry):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def read(self):
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def next_seed(self, first):
        """One that no run has tried; `first` at least."""
        return max([first, *(entry["seed"] + 1 for entry in self.read())])


COLUMNS = {
    "mesh": lambda entry: [entry["mesh"]],
    "block": lambda entry: sorted(set(entry["blocks"])),
    "style": lambda entry: sorted(set(entry["styles"])) or ["none"],
    "loss": lambda entry: [entry["loss"]],
    "optimizer": lambda entry: [entry["optimizer"]],
    "parameters": lambda entry: [
        name for name in ("frozen", "tied") if entry[name]],
}


def summary(entries):
    """A table: of each kind, in how many cases it was, and how many failed."""
    failed = [entry for entry in entries if entry["outcome"] != "passed"]
    lines = [f"{len(entries)} cases, {len(failed)} failed, "
             f"{sum(e['seconds'] for e in entries) / 60:.1f} minutes"]
    for column, kinds in COLUMNS.items():
        cases, failures = collections.Counter(), collections.Counter()
        for entry in entries:
            cases.update(kinds(entry))
        for entry in failed:
            failures.update(kinds(entry))
        lines += ["", f"{column:26} {'cases':>7} {'failed':>7}"]
        lines += [f"{kind:26} {count:7} {failures[kind]:7}"
                  for kind, count in sorted(cases.items())]
    if failed:
        lines += ["", "failed:"]
        lines += [f"seed {e['seed']}: {e['outcome']}" for e in failed]
    return "\n".join(lines)
