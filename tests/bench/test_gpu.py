"""`bench gpu` on CPUs, and the models that it trains."""

import collections
import contextlib
import dataclasses
import io
import json
import math
import pathlib
import re
import subprocess
import sys

import pytest
import torch

import shardplane as sp
from shardplane.timeline import RankTimeline, Span

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

# pylint: disable=wrong-import-position
import gpu
from measure.gpu_comparison import agree
from measure.gpu_models import (SHAPES, Llama, batch_of, load_module, loss_of,
                                save_state)
from measure.gpu_processes import SideFailed, SideProcess
from measure.gpu_shardplane import waited_of

SIDES = ["shardplane", "one_by_one", "eager"]
SMALL = dataclasses.replace(SHAPES["tiny"], length=16)


def measure(path, *arguments):
    """(its code, its figures), in this process."""
    with pytest.raises(SystemExit) as end:
        gpu.main(["--device=cpu", "--models=tiny", "--length=16", "--rounds=2",
                  "--steps=2", f"--json={path}", *arguments])
    return end.value.code, json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(what it prints, its figures)."""
    path = tmp_path_factory.mktemp("bench") / "results" / "gpu.json"
    with contextlib.redirect_stdout(io.StringIO()) as text:
        code, figures = measure(path, f"--sides={','.join(SIDES)},eager_graphs",
                                "--kernels=2")
    assert code == 0, text.getvalue()
    return text.getvalue(), figures


def select(figures, name):
    return {f["side"]: f for f in figures if f["figure"] == name}


def test_it_shows_what_steps_compute(measured):
    """On a CPU, operators: as many products forward as the model has."""
    linears = 7 * SMALL.layers + 1
    for side, figure in select(measured[1], "kernels").items():
        counts = {name: count for name, count, _ in figure["values"]}
        assert counts["aten::linear"] == linears, side
        assert all(seconds > 0 for _, _, seconds in figure["values"])
        assert f"tiny: {side}: " in measured[0]
    assert set(select(measured[1], "kernels")) == {"shardplane", "eager"}


def test_logits_are_made_wider_only_where_the_loss_reads_them():
    """In f32 they would be most of a step's memory."""
    ids, targets = batch_of(SMALL)
    with sp.LocalCluster(workers=1, coordinator_args=[
            "--fused_operators"]) as cluster:
        report = cluster.parallelize_module(
            Llama(SMALL).bfloat16(), {"tp": 1}, {}, example_inputs=(ids,),
            example_targets=(targets,), loss=loss_of, validate_only=True)
    assert len(re.findall(r"shardplane\.cross_entropy\.default\(.*, f32\)",
                          report.program_text)) == 1
    assert "aten.to.dtype" not in report.program_text


def test_it_writes_the_times_of_each_side(measured):
    seconds = select(measured[1], "step_seconds")
    assert list(seconds) == SIDES
    for side, tokens in select(measured[1], "tokens_per_second").items():
        assert 0 < seconds[side]["low"] <= seconds[side]["high"]
        assert seconds[side]["samples"] == 2
        # Interpolated between two samples, so never below.
        assert tokens["low"] >= 0.999 * 16 / seconds[side]["high"]
        assert f"{seconds[side]['median'] * 1e3:.2f} (" in measured[0]


def test_it_writes_ratios_to_both_ways_of_ours(measured):
    ratios = [f for f in measured[1] if f["figure"] == "ratio"]
    assert [(f["side"], f["over"]) for f in ratios] == [
        ("eager", "shardplane"), ("eager", "one_by_one")]
    assert all(f["median"] > 0 for f in ratios)


def test_it_says_what_it_measured_on(measured):
    assert measured[1][0]["figure"] == "setting"
    assert measured[1][0]["device"] == "cpu"
    assert measured[1][0]["coordinator_args"] == ["--fused_operators"]


def test_sides_that_need_a_gpu_are_left_out(measured):
    assert "eager_graphs is left out: it needs a GPU" in measured[0]


def test_losses_agree_and_fall(measured):
    losses = select(measured[1], "losses")
    assert list(losses) == ["shardplane", "eager"]
    expected = losses["eager"]["values"]
    assert agree(losses["shardplane"]["values"], expected)
    assert expected[-1] < 0.9 * expected[0]
    assert "says little" not in measured[0]


def test_shares_of_the_host(measured):
    """A CPU waits for no device."""
    shares = select(measured[1], "host_share")
    assert list(shares) == SIDES
    assert all(0.5 < f["median"] <= 1 for f in shares.values())
    worker = select(measured[1], "worker_share")
    assert list(worker) == SIDES[:2]


def test_memory_is_near_what_the_report_says(measured):
    (peak,) = select(measured[1], "peak_tensor_bytes").values()
    (predicted,) = select(measured[1], "predicted_peak_bytes").values()
    with torch.device("meta"):
        held = sum(p.numel() for p in Llama(SMALL).parameters()) * 2 * 4
    assert held < peak["median"] < 1.2 * predicted["median"]
    assert held < predicted["median"]


def test_what_fails_is_a_line_and_ends_nobody_else(tmp_path, capsys):
    code, figures = measure(tmp_path / "gpu.json", "--worker-arg=--nonesuch",
                            "--sides=shardplane,eager")
    assert code == 1
    assert list(select(figures, "step_seconds")) == ["eager"]
    (message,) = (f["message"] for f in figures if f["figure"] == "failure")
    assert "nonesuch" in message
    assert re.search("^tiny: shardplane failed: .*nonesuch",
                     capsys.readouterr().out, re.M)


@pytest.mark.parametrize("module, name, method, problem", [
    ("time", "sleep", "anything", "anything: no answer within 0 s"),
    ("nonesuch", "Side", "prepare", "No module named 'nonesuch'"),
    ("os", "_exit", "prepare", "the process ended with code 88")])
def test_a_side_that_does_not_answer(module, name, method, problem, capfd):
    """time.sleep(600) is made for as long; the low byte of 600 is 88."""
    seconds = 0.2 if name == "sleep" else 60
    process = SideProcess(module, name, 600)
    with pytest.raises(SideFailed, match=problem):
        process.call(method, seconds=seconds)
    process.close()
    capfd.readouterr()  # its stacks


def test_losses_agree_within_a_part_of_the_first():
    expected = [10.0, 6.0, 0.1]
    assert agree([10.05, 6.09, 0.01], expected)
    assert not agree([10.0, 6.0, 0.3], expected)
    assert not agree([10.0, 6.0, math.nan], expected)


def test_what_a_rank_waits_is_its_run_without_its_instructions():
    span = Span(instruction=0, kind="compute", name="", module="", begin=0.0,
                seconds=0.2, bytes=0, started=None)
    rank = RankTimeline(0.0, [span, span], phases=(
        ("queue", 0.0, 5.0), ("run", 5.0, 1.0), ("optimizer", 6.0, 3.0)))
    assert waited_of(rank) == pytest.approx(0.6)


def test_the_large_stack_has_about_a_billion_parameters():
    shape = SHAPES["llama1b"]
    with torch.device("meta"):
        module = Llama(shape)
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    assert 1.0e9 < sum(sizes.values()) < 1.2e9
    assert shape.weights == sum(
        size for name, size in sizes.items()
        if "norm" not in name and "embedding" not in name)


@pytest.mark.parametrize("written, norms", [
    (False, {"add_rms_norm": 4}),
    (True, {"add_rms_norm": 4, "cast_rms_norm": 1})])
def test_the_fused_operators_know_the_stack(tmp_path, written, norms):
    shape = dataclasses.replace(SMALL, written_norm=written)
    path = str(tmp_path / "state")
    save_state(shape, "cpu", path)
    module = load_module(shape, path)
    ids, targets = batch_of(shape)
    with sp.LocalCluster(
            workers=1, coordinator_args=["--fused_operators"]) as cluster:
        m = cluster.parallelize_module(
            module, {"tp": 1}, {}, example_inputs=(ids,),
            example_targets=(targets,), loss=loss_of)
        found = collections.Counter(re.findall(
            r"shardplane\.(swiglu|rotary|cast_rms_norm|add_rms_norm)\b",
            m.report.program_text))
        loss = m.step(ids, targets=(targets,), optimizer=sp.AdamW())
    assert found == {"swiglu": 2, "rotary": 4, **norms}
    torch.testing.assert_close(loss, loss_of(module(ids), targets).detach())


@pytest.mark.parametrize("arguments, problem", [
    (["--models=nonesuch"], "nonesuch"), (["--sides=eager,other"], "other"),
    (["--device=tpu"], "cuda:N")])
def test_it_refuses_bad_options(arguments, problem):
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "gpu.py", *arguments],
        capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    assert problem in done.stderr
