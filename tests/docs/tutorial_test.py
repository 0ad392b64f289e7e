"""Runs docs/tutorial.md as one script: it prints what the page shows."""

import pathlib
import re
import subprocess
import sys

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" /
        "tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_it_has_ten_steps_each_with_a_snippet():
    steps = re.split(r"^## (\d+)\. ", PAGE, flags=re.MULTILINE)[1:]
    assert [int(number) for number in steps[::2]] == list(range(1, 11))
    assert all(len(BLOCK.findall(step)) == 1 for step in steps[1::2])


def test_it_prints_what_it_shows(tmp_path):
    path = tmp_path / "tutorial.py"
    path.write_text("\n".join(BLOCK.findall(PAGE)), encoding="utf-8")
    done = subprocess.run([sys.executable, path], check=False, text=True,
                          capture_output=True, timeout=180, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"^    (\S.*)$", BLOCK.sub("", PAGE), re.MULTILINE)
    assert done.stdout.splitlines() == shown
    assert "traceEvents" in (tmp_path / "step.json").read_text("utf-8")
