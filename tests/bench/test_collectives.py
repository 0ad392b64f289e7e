"""`bench collectives` with tiny settings."""

import json
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPS = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"]


def bench(*arguments):
    return subprocess.run(
        [ROOT / "shardplane", "bench", "collectives", *arguments],
        capture_output=True, text=True, timeout=600, check=False,
        stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def collectives(tmp_path_factory):
    """(what it prints, its figures)."""
    path = tmp_path_factory.mktemp("bench") / "collectives.json"
    done = bench("--ranks=3", "--sizes=4K,600K", "--rounds=2",
                 "--round-seconds=0.001", f"--json={path}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text(encoding="utf-8"))


def test_writes_the_seconds_of_each_side(collectives):
    text, figures = collectives
    seconds = [f for f in figures if f["figure"] == "seconds"]
    assert {(f["op"], f["side"], f["bytes"]) for f in seconds} == {
        (op, side, size) for op in OPS for side in ("shm", "gloo", "limit")
        for size in (4 << 10, 600 << 10)}
    for figure in seconds:
        assert 0 < figure["low"] <= figure["median"] <= figure["high"]
        assert figure["samples"] == 2 and figure["ranks"] == 3
        assert f"{figure['median'] * 1e6:.1f} (" in text


def test_writes_paired_ratios(collectives):
    ratios = [f for f in collectives[1] if f["unit"] == "1"]
    assert {f["figure"] for f in ratios} == {"gloo_over_shm", "shm_over_limit"}
    assert len(ratios) == 2 * 2 * len(OPS)


@pytest.mark.parametrize("arguments, problem", [
    (["--ops=nonesuch"], "nonesuch"), (["--sizes=4Q"], "4Q")])
def test_refuses_bad_options(arguments, problem):
    done = bench(*arguments)
    assert done.returncode == 2
    assert problem in done.stderr
