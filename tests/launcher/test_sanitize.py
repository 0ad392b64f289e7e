"""What --config=sanitize finds, in programs made for it."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAULTS = "tests/launcher/faults"


def build(*names):
    return subprocess.run(
        [ROOT / "shardplane", "build", "--config=sanitize", "--noshow_progress",
         *(f"//{FAULTS}:{name}" for name in names)],
        capture_output=True, text=True, timeout=300, check=False,
        stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def programs():
    """The folder of those that can be built."""
    built = build("leak", "out_of_bounds", "overflow")
    assert built.returncode == 0, built.stderr
    return ROOT / "bazel-sanitize-bin" / FAULTS


@pytest.mark.parametrize("name, report", [
    ("leak", "LeakSanitizer: detected memory leaks"),
    ("out_of_bounds", "AddressSanitizer: heap-buffer-overflow"),
    ("overflow", "runtime error: signed integer overflow")])
def test_a_fault_ends_the_program(programs, name, report):
    ended = subprocess.run(
        [programs / name], capture_output=True, text=True, timeout=60,
        check=False, stdin=subprocess.DEVNULL,
        env=dict(os.environ, ASAN_OPTIONS="detect_leaks=1"))
    assert ended.returncode != 0
    assert report in ended.stderr


def test_what_a_mutex_guards_is_not_touched_without_it():
    built = build("unguarded")
    assert built.returncode == 1
    assert "requires holding mutex 'mu_'" in built.stderr
