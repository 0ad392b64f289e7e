"""Runs the snippet of docs/heads.md, which prints what the page shows."""

import pathlib
import re
import subprocess
import sys

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" /
        "heads.md").read_text(encoding="utf-8")


def test_the_snippet_prints_what_is_shown(tmp_path):
    path = tmp_path / "snippet.py"
    path.write_text(re.search(r"^```python\n(.*?)^```", PAGE,
                              re.MULTILINE | re.DOTALL)[1], encoding="utf-8")
    done = subprocess.run([sys.executable, path], check=False, text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"^    (\d \[.*)$", PAGE, re.MULTILINE)
    assert done.stdout.splitlines() == shown and len(shown) == 2
