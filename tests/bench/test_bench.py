"""The benchmarks run with tiny settings, and write the figures that they
print. What the figures are is for people to judge."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIDES = ["shardplane", "one_by_one", "eager", "plain", "local"]


def run_step(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "bench" / "step.py", *arguments],
        capture_output=True, text=True, timeout=600, check=False)


def measure_step(path, *arguments):
    """(what `bench step` prints, its figures)."""
    done = run_step("--ranks=2", "--rounds=1", "--steps=2", f"--json={path}",
                    *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    return measure_step(tmp_path_factory.mktemp("bench") / "step.json",
                        "--models=small", "--no-compile")


def select(figures, name):
    return [f for f in figures if f["figure"] == name]


def test_step_writes_the_times_of_each_side(step):
    times = select(step[1], "step_seconds")
    assert [f["side"] for f in times] == SIDES
    for figure in times:
        assert figure["bench"] == "step" and figure["model"] == "small"
        assert figure["unit"] == "s" and figure["samples"] == 1
        assert 0 < figure["low"] <= figure["median"] <= figure["high"]


def test_step_writes_paired_ratios(step):
    ratios = select(step[1], "ratio")
    assert [f["side"] for f in ratios] == SIDES[1:-1]
    assert all(f["low"] <= f["median"] <= f["high"] for f in ratios)


def test_step_tells_where_the_time_goes(step):
    parts = {f["part"]: f["median"] for f in select(step[1], "part_seconds")}
    whole = parts.pop("step")
    assert set(parts) == {"operators", "collectives", "update", "beside"}
    assert sum(parts.values()) == pytest.approx(whole)
    del parts["beside"]  # the slowest rank is another one in each step
    assert all(0 <= seconds <= whole for seconds in parts.values())


def test_step_is_compared_with_what_it_takes_at_least(step):
    figures = {f["figure"]: f["median"] for f in step[1]}
    assert figures["over_floor"] > 0
    assert 0 < figures["collectives_alone_seconds"] < figures["floor_seconds"]


def test_step_prints_what_it_writes(step):
    text, figures = step
    for figure in select(figures, "step_seconds"):
        assert f"{figure['median'] * 1e3:.1f} (" in text


def test_step_with_each_overlap_on_and_off(tmp_path):
    text, figures = measure_step(tmp_path / "overlaps.json", "--overlaps",
                                 "--models=digits")
    variants = ["none", "prefetch", "gradients", "input_gradients", "chunks",
                "all"]
    for kind in ("fully_shard", "replicate", "tensor"):
        of = [f for f in figures if f["kind"] == kind]
        assert [f["overlap"] for f in select(of, "step_seconds")] == variants
        gains = select(of, "overlap_gain")
        assert [f["overlap"] for f in gains] == variants[1:]
        assert all(f["median"] > 0 for f in gains)
        assert f"digits, {kind} " in text


@pytest.mark.parametrize("arguments, problem", [
    (["--models=nonesuch"], "nonesuch"), (["--rounds=0"], "at least 1")])
def test_step_refuses_bad_options(arguments, problem):
    done = run_step(*arguments)
    assert done.returncode == 2
    assert problem in done.stderr


def test_ops_through_the_launcher(tmp_path):
    path = tmp_path / "ops.json"
    done = subprocess.run(
        [ROOT / "shardplane", "bench", "ops", "--rounds=1", "--json", path],
        capture_output=True, text=True, timeout=600, check=False,
        stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert {f["figure"] for f in figures} == {
        "executor_per_op", "direct_per_op", "difference_per_op"}
    assert {f["mode"] for f in figures} == {"forward", "recorded", "train"}
    assert {f["unit"] for f in figures} == {"ns"}
    for op in {f["op"] for f in figures}:
        assert re.search(rf"^{op} ", done.stdout, re.MULTILINE)
