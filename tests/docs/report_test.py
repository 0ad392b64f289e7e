"""Runs what docs/report.md shows, and holds its words to the client."""

import re

import pytest

from shardplane.explanation import Explanation
from shardplane.report import Report
from tests.docs.pages import blocks, output_of, page

PAGE = page("report.md")


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    return output_of("\n".join(blocks(PAGE)), tmp_path_factory.mktemp("docs"))


def test_the_snippet_folds_its_layers(printed):
    assert "0-11.up ×12" in printed and "0-11.down ×12" in printed
    assert '"*.down"' in printed
    assert len(printed.splitlines()) < 90


def test_the_snippet_explains(printed):
    assert "3.down: module torch.nn.modules.linear.Linear" in printed
    assert "sum of a rowwise linear" in printed


def test_fields_exist():
    names = re.findall(r"`([a-z_]+)(?:\(.*?\))?`", PAGE)
    known = {name for cls in (Report, Explanation) for name in dir(cls)}
    for name in ("assignments", "placements", "module_collectives", "layers",
                 "layer_table", "optimizer_bytes", "flops_per_rank",
                 "warnings", "matches", "tensors"):
        assert name in names and name in known, name
