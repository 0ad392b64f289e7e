"""Runs what docs/styles.md and docs/old_api.md show, and holds their sections
to the names that there are."""

import pathlib
import re

import pytest

import shardplane as sp
from tests.docs.pages import blocks, output_of

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
STYLES, OLD = "styles.md", "old_api.md"

# All names of PyTorch's page about tensor parallelism, in its order, and what
# has come since.
PAGE_OF = {
    "parallelize_module": STYLES,
    "RowwiseParallel": STYLES,
    "ColwiseParallel": STYLES,
    "PairwiseParallel": STYLES,
    "PairwiseSequenceParallel": STYLES,
    "make_input_replicate_1d": OLD,
    "make_input_reshard_replicate": OLD,
    "make_input_shard_1d": OLD,
    "make_input_shard_1d_last_dim": OLD,
    "make_output_replicate_1d": OLD,
    "make_output_reshard_tensor": OLD,
    "make_output_shard_1d": OLD,
    "make_output_tensor": OLD,
    "TensorParallelMultiheadAttention": OLD,
    "enable_2d_with_fsdp": OLD,
    "make_sharded_output_tensor": OLD,
    "pre_dp_module_transform": OLD,
    "SequenceParallel": STYLES,
    "PrepareModuleInput": STYLES,
    "PrepareModuleOutput": STYLES,
    "PrepareModuleInputOutput": STYLES,
    "InputReshard": STYLES,
    "LossParallel": STYLES,
}


def text(page):
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [STYLES, OLD])
def test_what_is_shown_runs_and_prints_what_is_shown(page, tmp_path):
    output = output_of("\n".join(blocks(text(page))), tmp_path, "-W", "ignore",
                       timeout=180)
    shown = re.findall(r"^    (\S.*)$", re.sub(
        r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL),
        re.MULTILINE)
    assert shown
    printed = output.splitlines()
    for line in shown:
        assert line in printed, output


@pytest.mark.parametrize("name", PAGE_OF)
def test_each_name_is_there_and_has_its_section(name):
    home = sp.LocalCluster if name == "parallelize_module" else sp
    assert callable(getattr(home, name))
    headings = re.findall(r"^##+ (.*)$", text(PAGE_OF[name]), re.MULTILINE)
    assert name in headings


def test_each_style_has_its_section():
    styles = {name for name in dir(sp)
              if isinstance(getattr(sp, name), type) and issubclass(
                  getattr(sp, name), sp.ParallelStyle)} - {"ParallelStyle"}
    assert styles <= set(PAGE_OF)
    assert {name for name in dir(sp) if name.startswith("make_")} <= set(
        PAGE_OF)
