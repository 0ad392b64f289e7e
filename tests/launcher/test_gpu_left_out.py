"""Tests marked gpu: how many were left out is said."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_number_of_gpu_tests_is_printed():
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only",
               "--rootdir", ROOT, "--import-mode=importlib",
               "-p", "no:cacheprovider", ROOT / "tests" / "gpu", "-m"]
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    left_out = subprocess.run([*command, "not gpu"], capture_output=True,
                              text=True, check=True, env=environment).stdout
    kept = subprocess.run([*command, "gpu"], capture_output=True, text=True,
                          check=True, env=environment).stdout
    count = kept.count(".py::")
    assert count > 0
    assert f"\n{count} GPU tests are left out\n" in left_out
    assert "left out" not in kept
