"""Runs docs/tutorial.md as one script: it prints what the page shows."""

import re

from tests.docs.pages import blocks, output_of, page

PAGE = page("tutorial.md")


def test_it_has_ten_steps_each_with_a_snippet():
    steps = re.split(r"^## (\d+)\. ", PAGE, flags=re.MULTILINE)[1:]
    assert [int(number) for number in steps[::2]] == list(range(1, 11))
    assert all(len(blocks(step)) == 1 for step in steps[1::2])


def test_it_prints_what_it_shows(tmp_path):
    printed = output_of("\n".join(blocks(PAGE)), tmp_path, timeout=180)
    prose = re.sub(r"^```python\n.*?^```", "", PAGE,
                   flags=re.MULTILINE | re.DOTALL)
    shown = re.findall(r"^    (\S.*)$", prose, re.MULTILINE)
    assert printed.splitlines() == shown
    assert "traceEvents" in (tmp_path / "step.json").read_text("utf-8")
