"""New seeds for as long as `./shardplane test --long=MINUTES` says; a few
without it. What has been tried adds up in a table."""

import os

import pytest

from tests.differential.__main__ import FIRST_SEED, main
from tests.differential.results import Results, default_path, summary
from tests.differential.run import run_seeds, seeds_for

MINUTES = float(os.environ.get("SHARDPLANE_LONG_MINUTES") or 0)
BRIEF = 2  # cases of a normal run, whose table is dropped


def test_new_seeds(tmp_path):
    results = Results(default_path() if MINUTES else tmp_path / "results")
    before = len(results.read())
    first = results.next_seed(FIRST_SEED)
    failures = run_seeds(seeds_for(MINUTES, first, BRIEF), results)
    entries = results.read()
    assert len(entries) >= before + BRIEF
    assert {e["seed"] for e in entries[before:]} == set(
        range(first, results.next_seed(FIRST_SEED)))
    print(summary(entries))
    if failures:
        pytest.fail("\n\n".join(failures), pytrace=False)


def test_the_table_adds_up(tmp_path, capsys):
    results = Results(tmp_path / "folder" / "results.jsonl")
    assert results.next_seed(7) == 7
    entry = {"seed": 7, "outcome": "passed", "seconds": 60.0, "mesh": "2x2",
             "blocks": ["Norm", "Norm", "Tied"], "styles": [],
             "loss": "sum", "optimizer": "sgd", "frozen": False, "tied": True}
    results.append(entry)
    results.append(entry | {"seed": 8, "outcome": "bytes: AssertionError",
                            "blocks": ["Norm"], "mesh": "4"})
    assert results.next_seed(7) == 9
    assert main(["--results", str(results.path), "summary"]) is False
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "2 cases, 1 failed, 2.0 minutes".split()
    for line in ("2x2 1 0", "4 1 1", "Norm 2 1", "Tied 1 0", "none 2 1",
                 "tied 2 1", "seed 8: bytes: AssertionError"):
        assert line.split() in lines


def test_seeds_until_the_time_is_over():
    times = iter([0, 30, 59, 61])
    assert list(seeds_for(1, 5, clock=lambda: next(times))) == [5, 6]
    assert list(seeds_for(0, 5, at_least=2)) == [5, 6]
