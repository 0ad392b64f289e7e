"""What the ranks of a deployment tell about a step."""

import json

import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from shardplane.timeline import Timeline
from shardplane.v1 import coordinator_pb2 as pb
from tests.conformance.test_fully_shard import stack
from tests.models import rand


PLAN = {"*.up": ColwiseParallel(), "*.down": RowwiseParallel()}


@pytest.fixture(scope="module")
def traced(shared_cluster):
    """(the report, the timeline): two layers on two ranks."""
    x = rand(256, 64, dtype=torch.float32)
    with shared_cluster.parallelize_module(
            stack(64, 128, layers=2, dtype=torch.float32), {"tp": 2}, PLAN,
            example_inputs=(x,), loss="sum") as m:
        m.step(x, optimizer=sp.SGD(lr=0.1))
        assert m.last_timeline() is None
        m.step(x, optimizer=sp.SGD(lr=0.1), timeline=True)
        timeline = m.last_timeline()
        m.forward_backward(x)
        assert m.last_timeline() is timeline
        m.forward_backward(x, timeline=True)
        assert m.last_timeline() is not timeline
        return m.report, timeline


def test_each_rank_tells_all_in_order(traced):
    report, timeline = traced
    assert len(timeline.ranks) == 2
    instructions = [line for line in report.program_text.split(
        "forward\n")[1].split("values\n")[0].splitlines()
        if line.startswith("  ") and not line.startswith("    ")]
    for rank in timeline.ranks:
        assert [span.instruction for span in rank.spans] == list(
            range(len(instructions)))
        assert all(a.end <= b.begin + 1e-9
                   for a, b in zip(rank.spans, rank.spans[1:]))


def test_spans_say_what_they_are(traced):
    report, timeline = traced
    spans = timeline.ranks[0].spans
    collectives = [s for s in spans if s.kind in ("collective", "start")]
    assert sum(s.bytes for s in collectives) == sum(
        count for phase, kinds in report.collective_bytes.items()
        if phase != "materialize" for count in kinds.values())
    assert {s.name for s in collectives} == {"all_reduce[tp]"}
    assert {s.module for s in spans if s.kind == "compute"} >= {"0", "1"}


def test_what_runs_beside_other_work_is_a_pair(traced):
    """The sum of the inputs' gradient, beside the products of the weights'."""
    report, timeline = traced
    assert "weight gradients of" in report.program_text
    for rank in timeline.ranks:
        pairs = rank.beside()
        assert len(pairs) == report.program_text.count("  start ") == 1
        start, wait = pairs[0]
        between = rank.spans[start.instruction + 1:wait.instruction]
        assert any(s.name.startswith("weight gradients") for s in between)
        of = rank.seconds()
        assert of["beside"] == pytest.approx(wait.begin - start.end)
        assert of["compute"] > 0


def test_traces_have_a_lane_for_it(traced, tmp_path):
    _, timeline = traced
    path = tmp_path / "step.json"
    timeline.save(path)
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events
             if e["name"] == "thread_name"}
    assert names == {(rank, lane): name for rank in range(2) for lane, name in
                     enumerate(("operators", "collectives", "beside"))}
    spans = [e for e in events if e["ph"] == "X"]
    assert len(spans) == sum(len(rank.spans) + len(rank.beside())
                             for rank in timeline.ranks)
    assert all(e["dur"] >= 0 and e["ts"] >= 0 for e in spans)
    beside = [e for e in spans if e["tid"] == 2]
    assert {e["name"] for e in beside} == {"all_reduce[tp]"}
    assert "beside" in str(timeline) and len(str(timeline).splitlines()) == 3


def test_ranks_begin_by_their_own_clocks():
    timeline = Timeline.from_proto([
        pb.Timeline(begin_unix_nanos=2_000_000_000, spans=[pb.Timeline.Span(
            kind=pb.Timeline.KIND_COMPUTE, name="a", begin_nanos=1000,
            duration_nanos=2000)]),
        pb.Timeline(begin_unix_nanos=2_000_005_000, spans=[pb.Timeline.Span(
            kind=pb.Timeline.KIND_COMPUTE, name="b", begin_nanos=1000,
            duration_nanos=2000)])])
    begins = {e["name"]: e["ts"] for e in timeline.chrome_trace()[
        "traceEvents"] if e["ph"] == "X"}
    assert begins["b"] - begins["a"] == pytest.approx(5, abs=0.5)
    assert Timeline.from_proto([]) is None
