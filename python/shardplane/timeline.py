"""What each rank did when, in one step."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence

from shardplane.v1 import coordinator_pb2 as pb

# Lanes of a rank in a trace.
_OPERATORS, _COLLECTIVES, _BESIDE = "operators", "collectives", "beside"
_STEP = "step"  # queue, run, agreement, optimizer
_LANES = (_OPERATORS, _COLLECTIVES, _BESIDE, _STEP)
_LANE_OF = {"compute": _OPERATORS, "local": _OPERATORS,
            "collective": _COLLECTIVES, "start": _COLLECTIVES,
            "wait": _COLLECTIVES}
_KIND = {value: name.removeprefix("KIND_").lower()
         for name, value in pb.Timeline.Kind.items()}


@dataclasses.dataclass(frozen=True)
class Span:
    """One instruction of the program. Seconds since the rank's run began."""

    instruction: int
    kind: str       # "compute", "collective", "start", "wait", "local"
    name: str       # "segment 3", "all_reduce[tp]"
    module: str     # the nearest that holds its operators
    begin: float
    seconds: float
    bytes: int      # of a collective
    started: int | None  # of a wait: the instruction whose end it waits for
    waited: float = 0.0  # of a collective in `m.timeline`: until the last rank
    #                      of its group had begun it; the rest is transfer

    @property
    def end(self):
        return self.begin + self.seconds


@dataclasses.dataclass(frozen=True)
class RankTimeline:
    """By the clock of the rank's host."""

    begin: float  # seconds since 1970
    spans: list   # of Span, in the order in which they ran
    worker: str = ""              # workers/{w}
    # (name, begin, seconds) of what a rank does for a step, in order: "queue",
    # "run", "agree", "optimizer"; seconds since 1970.
    phases: tuple = ()

    def beside(self):
        """(start, wait) of each collective that ran beside other work."""
        starts = {span.instruction: span for span in self.spans
                  if span.kind == "start"}
        return [(starts[span.started], span) for span in self.spans
                if span.kind == "wait" and span.started in starts]

    def waited(self):
        """Seconds in collectives that others were waited for."""
        return sum(span.waited if span.kind == "collective" else span.seconds
                   for span in self.spans if span.kind in ("collective",
                                                           "wait"))

    def seconds(self):
        """Kind -> seconds; "beside": what collectives had for themselves
        between their start and somebody's waiting for them."""
        sums = dict.fromkeys(("compute", "collective", "start", "wait",
                              "local"), 0.0)
        for span in self.spans:
            sums[span.kind] += span.seconds
        sums["beside"] = sum(wait.begin - start.end
                             for start, wait in self.beside())
        return sums


class Timeline:
    """Of one step: `ranks` are RankTimelines; `coordinator` has what the
    coordinator did for it: (name, begin, seconds) of "queue", "dispatch" and
    "ranks", seconds since 1970. `print` shows where the time went, `save`
    writes what https://ui.perfetto.dev and chrome://tracing open."""

    def __init__(self, ranks: list[RankTimeline],
                 coordinator: Iterable[tuple[str, float, float]] = (),
                 traceparent: str = "") -> None:
        self.ranks = ranks
        self.coordinator = tuple(coordinator)
        self.traceparent = traceparent  # of the call that the step came with

    @classmethod
    def from_step(cls, step: pb.StepTimeline) -> Timeline:
        """Of a StepTimeline message."""
        queued = _parts(step.received_unix_nanos, (
            ("queue", step.queue_nanos), ("dispatch", step.dispatch_nanos),
            ("ranks", step.total_nanos - step.queue_nanos
             - step.dispatch_nanos)))
        return cls([_rank_of(rank) for rank in step.ranks], queued,
                   step.traceparent)

    @classmethod
    def from_proto(cls, timelines: Sequence) -> Timeline | None:
        """None where there are none."""
        if not timelines:
            return None
        return cls([RankTimeline(begin=timeline.begin_unix_nanos * 1e-9,
                                 spans=_spans_of(timeline))
                    for timeline in timelines])

    def chrome_trace(self) -> dict:
        """As a dict of the Trace Event Format: a process a rank, in it a lane
        for operators, one for collectives, and one for those that run beside
        others' work."""
        first = min((rank.begin for rank in self.ranks), default=0)
        events = self._coordinator_events(len(self.ranks), first)
        for number, rank in enumerate(self.ranks):
            offset = rank.begin - first
            name = f"rank {number}" + (rank.worker and f", {rank.worker}")
            events.append(_meta("process_name", number, 0, name))
            events += [_event(number, _STEP, part, begin - first, seconds)
                       for part, begin, seconds in rank.phases]
            events += [_meta("thread_name", number, lane, name)
                       for lane, name in enumerate(_LANES)
                       if name != _STEP or rank.phases]
            events += [_event(number, _LANE_OF[span.kind], span.name,
                              offset + span.begin, span.seconds,
                              module=span.module, bytes=span.bytes,
                              instruction=span.instruction,
                              waited_us=span.waited * 1e6 or None)
                       for span in rank.spans]
            events += [_event(number, _BESIDE, start.name, offset + start.begin,
                              wait.end - start.begin, bytes=start.bytes,
                              instruction=start.instruction)
                       for start, wait in rank.beside()]
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def _coordinator_events(self, process, first):
        if not self.coordinator:
            return []
        return [_meta("process_name", process, 0, "coordinator"),
                _meta("thread_name", process, _LANES.index(_STEP), _STEP)] + [
                    _event(process, _STEP, part, begin - first, seconds)
                    for part, begin, seconds in self.coordinator]

    def save(self, path: str | os.PathLike) -> None:
        """Writes chrome_trace() as JSON."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.chrome_trace(), file)

    def __str__(self):
        lines = ["rank   operators  collectives  of them waiting  "
                 "beside others' work  (ms)"]
        for number, rank in enumerate(self.ranks):
            of = rank.seconds()
            busy = of["collective"] + of["start"] + of["wait"]
            lines.append(
                f"{number:4} {_ms(of['compute'] + of['local']):>11} "
                f"{_ms(busy):>12} {_ms(rank.waited()):>16} "
                f"{_ms(of['beside']):>20}")
        return "\n".join(lines)


def _spans_of(timeline):
    return [Span(instruction=span.instruction, kind=_KIND[span.kind],
                 name=span.name, module=span.module,
                 begin=span.begin_nanos * 1e-9,
                 seconds=span.duration_nanos * 1e-9, bytes=span.bytes,
                 started=span.started if span.HasField("started") else None,
                 waited=span.wait_nanos * 1e-9)
            for span in timeline.spans]


def _parts(begin_nanos, parts):
    """(name, begin, seconds) of parts that follow one another."""
    placed = []
    for name, nanos in parts:
        placed.append((name, begin_nanos * 1e-9, nanos * 1e-9))
        begin_nanos += nanos
    return placed


def _rank_of(rank):
    begin = rank.run.begin_unix_nanos
    phases = _parts(rank.received_unix_nanos,
                    (("queue", begin - rank.received_unix_nanos),
                     ("run", rank.run_nanos), ("agree", rank.agree_nanos),
                     ("optimizer", rank.update_nanos)))
    return RankTimeline(begin=begin * 1e-9, spans=_spans_of(rank.run),
                        worker=rank.worker, phases=tuple(phases))


def _ms(seconds):
    return f"{seconds * 1e3:.3f}"


def _meta(what, rank, lane, name):
    return {"ph": "M", "name": what, "pid": rank, "tid": lane,
            "args": {"name": name}}


def _event(rank, lane, name, begin, seconds, **about):
    return {"ph": "X", "pid": rank, "tid": _LANES.index(lane), "name": name,
            "ts": begin * 1e6, "dur": seconds * 1e6,
            "args": {key: value for key, value in about.items()
                     if value not in ("", None)}}
