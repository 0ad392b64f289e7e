"""`bench rpc` runs with tiny settings, and writes the figures that it prints.
What the figures are is for people to judge."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROUNDS, STEPS = 2, 5
PARTS = {"time", "workers", "overhead", "client_processor",
         "coordinator_processor", "workers_processor"}


@pytest.fixture(scope="module")
def rpc(tmp_path_factory):
    """(what `bench rpc` prints, its figures by side and part)."""
    path = tmp_path_factory.mktemp("bench") / "rpc.json"
    done = subprocess.run(
        [ROOT / "shardplane", "bench", "rpc", "--workers=2",
         f"--rounds={ROUNDS}", f"--steps={STEPS}", "--train-steps=20",
         "--ahead=4", f"--json={path}"],
        capture_output=True, text=True, timeout=600, check=False,
        stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(path.read_text(encoding="utf-8"))
    return done.stdout, {(f["side"], f["part"]): f for f in figures}


def test_rpc_writes_percentiles(rpc):
    figures = rpc[1]
    assert {part for side, part in figures if side == "step"} == (
        PARTS | {"client"})
    assert {part for side, part in figures if side == "train"} == PARTS
    assert {side for side, _ in figures} == {
        "step", "train", "echo_call", "echo_message", "echo_stream",
        "relay_by_calls", "relay_by_streams", "relay_of_streams",
        "relay_stream"}
    for (side, part), figure in figures.items():
        assert figure["bench"] == "rpc" and figure["unit"] == "us"
        assert figure["p50"] <= figure["p90"] <= figure["p99"]
        once = (side in ("train", "echo_stream", "relay_stream")
                or part.endswith("processor"))
        assert figure["samples"] == (ROUNDS if once else ROUNDS * STEPS)


def test_rpc_times_are_parts_of_each_other(rpc):
    p50 = {key: figure["p50"] for key, figure in rpc[1].items()}
    assert 0 < p50["step", "workers"] < p50["step", "time"]
    assert 0 < p50["step", "client"] < p50["step", "time"]
    assert 0 < p50["step", "overhead"] < p50["step", "time"]
    assert 0 < p50["train", "workers"] < p50["train", "time"]
    for (_, part), value in p50.items():
        if part == "time" or part.endswith("processor"):
            assert value > 0


def test_rpc_prints_what_it_writes(rpc):
    text, figures = rpc
    for figure in figures.values():
        row = [f"{figure[p]:.0f}" for p in ("p50", "p90", "p99")]
        assert any(line.split()[-3:] == row for line in text.splitlines())


@pytest.mark.parametrize("argument", ["--rounds=0", "--workers=none"])
def test_rpc_refuses_bad_options(argument):
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "rpc.py", argument],
        capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert argument.split("=")[0] in done.stderr
