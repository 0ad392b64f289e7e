"""Runs what docs/limits.md shows: each refusal comes as it is told. The sizes
are held to the code."""

import pathlib
import re

import pytest

from tests.docs.pages import blocks, output_of, page

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = page("limits.md")


def test_each_refusal_is_as_told(tmp_path):
    (source,) = blocks(PAGE)
    output = output_of(source, tmp_path, timeout=180)
    shown = re.findall(r"^    (\S.*)$", PAGE.split("\nprints\n")[1],
                       re.MULTILINE)
    # torch.export prints the graph of a branch that it cannot capture.
    printed = [line for line in output.splitlines()
               if re.fullmatch(r"[\w ]+\w: (accepted|[A-Z_]+ [A-Z0-9_]+)",
                               line)]
    assert printed == shown and len(shown) == source.count("\ntold(")


SIZES = {
    "modules, or parameters, of one tree": (
        "200000", "proto/convert/module.h", r"kMaxModules = 200'000"),
    "entries of a plan; its depth": (
        "100000; 24", "proto/convert/plan.h",
        r"kMaxPlanDepth = 24;\n.*kMaxPlanEntries = 100'000"),
    "dims of a tensor": (
        "16", "proto/convert/types.h", r"kMaxTensorRank = 16"),
    "ranks whose memory a report lists": (
        "1024", "common/report.h", r"kMaxReportedRanks = 1024"),
    "steps under way of a deployment": (
        "64", "coordinator/deployment_state.h", r"kMaxStepsUnderWay = 64"),
    "calls that wait for a deployment": (
        "256", "coordinator/action_queue.h", r"kMaxWaiting = 256"),
}


@pytest.mark.parametrize("what", SIZES)
def test_sizes_are_those_of_the_code(what):
    limit, path, pattern = SIZES[what]
    assert f"| {what} | {limit} |" in PAGE
    assert re.search(pattern, (ROOT / path).read_text("utf-8"))
