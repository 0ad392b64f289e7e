"""What the tests of docs/ share: a page, what it shows, and running that."""

import pathlib
import re
import subprocess
import sys

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text, language="python"):
    """Sources of a page's fenced blocks, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text,
                      re.MULTILINE | re.DOTALL)


def output_of(source, folder, *options, timeout=120):
    """What a script prints that runs in `folder`; `options` stand before it in
    Python's command line."""
    path = folder / "script.py"
    path.write_text(source, encoding="utf-8")
    done = subprocess.run([sys.executable, *options, path], check=False,
                          text=True, capture_output=True, timeout=timeout,
                          cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout
