"""Runs the snippet of docs/heads.md, which prints what the page shows."""

import re

from tests.docs.pages import blocks, output_of, page

PAGE = page("heads.md")


def test_the_snippet_prints_what_is_shown(tmp_path):
    printed = output_of(blocks(PAGE)[0], tmp_path)
    shown = re.findall(r"^    (\d \[.*)$", PAGE, re.MULTILINE)
    assert printed.splitlines() == shown and len(shown) == 2
