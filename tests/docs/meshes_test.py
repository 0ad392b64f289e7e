"""Runs the snippet that docs/meshes.md begins with."""

import pathlib
import re
import subprocess
import sys

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" /
        "meshes.md").read_text(encoding="utf-8")


def test_the_first_snippet_cuts_batch_and_parameters(tmp_path):
    source = re.search(r"^```python\n(.*?)^```", PAGE,
                       re.MULTILINE | re.DOTALL)[1]
    path = tmp_path / "snippet.py"
    path.write_text(source, encoding="utf-8")
    done = subprocess.run([sys.executable, path], check=False, text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    replicated, counts, sharded, more = done.stdout.splitlines()
    assert replicated.startswith("replicate [R, S(0)] [(128, 64), ")
    assert "{'all_reduce': 1} {'all_reduce': 1}" in counts
    assert sharded.startswith("fully_shard [S(0)#2, S(0)#1] [(64, 64), ")
    assert more == ("{'all_gather': 2, 'all_reduce': 1} "
                    "{'all_gather': 1, 'reduce_scatter': 2}")
