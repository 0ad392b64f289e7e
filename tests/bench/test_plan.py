"""`bench plan` with tiny settings."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ["read", "match", "resolve", "compile", "report", "all"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """(what `bench plan` prints, its figures)."""
    path = tmp_path_factory.mktemp("bench") / "plan.json"
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "plan.py", "--layers=2",
         "--linears=400", "--rounds=1", f"--json={path}"],
        capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text(encoding="utf-8"))


def test_each_part_of_planning_has_a_time(plan):
    for case in ("llama", "linears"):
        times = {f["figure"]: f for f in plan[1] if f["case"] == case}
        assert all(f["bench"] == "plan" for f in times.values())
        parts = [times[f"plan_{part}"] for part in PARTS]
        assert all(f["unit"] == "ms" and f["median"] > 0 for f in parts)
        assert parts[-1]["median"] == pytest.approx(
            sum(f["median"] for f in parts[:-1]))
        assert times["torch_parallelize_module"]["median"] > 0
        assert 0 < times["peak_memory"]["median"] < 1000


def test_both_sides_have_cut_the_same(plan):
    """Or the benchmark ends with an error; q, k, v, o, gate, up, down of two
    layers, embedding and head; of a pair of linears two weights and a bias."""
    assert "16 parameters cut" in plan[0]
    assert "600 parameters cut" in plan[0]
