"""Runs what the documents show: Python, JSON, links, commands."""

import json
import pathlib
import re
import subprocess

from google.protobuf import json_format
import grpc
import pytest

import shardplane as sp
from shardplane.v1 import coordinator_pb2
from shardplane.v1 import coordinator_pb2_grpc
from tests.docs.pages import blocks, output_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GRPC = (ROOT / "docs" / "grpc.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md",
                ROOT / "deploy" / "README.md",
                *(ROOT / "docs").glob("**/*.md")])
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.json"))


def requests():
    found = {f"grpc-{n}": text
             for n, text in enumerate(blocks(GRPC, "json"))}
    found.update({p.name: p.read_text(encoding="utf-8") for p in EXAMPLES})
    return found


def parse(text):
    return json_format.Parse(text, coordinator_pb2.CreateDeploymentRequest())


@pytest.fixture(scope="module")
def stub():
    """A coordinator without workers: planning needs none."""
    with sp.LocalCluster(workers=0) as cluster:
        with grpc.insecure_channel(cluster.address) as channel:
            yield coordinator_pb2_grpc.ShardingCoordinatorStub(channel)


def test_python_snippet_runs(tmp_path):
    (snippet,) = blocks(README)
    printed = output_of(snippet, tmp_path)
    assert "ColwiseParallel" in printed
    assert "all_reduce" in printed


@pytest.mark.parametrize("text", requests().values(), ids=requests())
def test_json_is_answered_with_a_plan(stub, text):
    request = parse(text)
    assert request.validate_only
    report = stub.CreateDeployment(request, timeout=30).report
    styles = {a.fqn: a.style for a in report.assignments}
    patterns = {e.pattern for e in request.deployment.plan.entries}
    assert {a.pattern for a in report.assignments} == patterns
    assert {"ColwiseParallel", "RowwiseParallel"} <= set(styles.values())
    assert bool(report.collectives) == request.HasField("signature")


def test_there_is_json_to_read():
    assert len(blocks(GRPC, "json")) == 1 and EXAMPLES


def test_the_readme_is_one_screen():
    lines = README.splitlines()
    assert len(lines) <= 66 and max(map(len, lines)) <= 135


def test_command_line_of_grpcurl_names_a_method():
    service, method = re.search(
        r"grpcurl .* shardplane\.v1\.(\w+)/(\w+)", GRPC).groups()
    services = coordinator_pb2.DESCRIPTOR.services_by_name
    assert method in services[service].methods_by_name


@pytest.mark.parametrize("page", PAGES,
                         ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"),
                               re.MULTILINE)
            assert anchor in {anchor_of(head) for head in heads}


def anchor_of(heading):
    """As GitHub has it: without punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES,
                         ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_commands_and_paths_exist(page):
    text = page.read_text("utf-8")
    usage = subprocess.run([ROOT / "shardplane", "help"], check=True, text=True,
                           capture_output=True).stdout
    for command in re.findall(r"\./shardplane ([a-z]+)", text):
        assert re.search(rf"^\s+{command}\b", usage, re.MULTILINE), command
    folders = ("common|proto|telemetry|coordinator|worker|client|python|tests|"
               "deploy")
    for path in re.findall(rf"`((?:{folders})/[\w/.-]*)`", text):
        base = ROOT / path.rstrip("/")
        names = [base, base.with_suffix(".h")] if not base.suffix else [base]
        assert any(name.exists() for name in names), path


def test_the_index_has_every_page():
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index


def test_every_page_with_a_snippet_has_a_test_that_names_it():
    tests = "".join(path.read_text("utf-8")
                    for path in (ROOT / "tests").glob("**/*_test.py"))
    for page in (ROOT / "docs").glob("*.md"):
        if re.search(r"^```\w", page.read_text("utf-8"), re.MULTILINE):
            assert page.name in tests, page


def test_every_new_word_is_explained():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    for word in ("Assignment", "Vary", "Program", "Gang", "Epoch",
                 "Deployment"):
        assert f"\n**{word}.** " in text
    assert json.loads(blocks(GRPC, "json")[0])["validate_only"]
