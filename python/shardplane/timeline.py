"""What each rank did when, in one step."""

import dataclasses
import json

from shardplane.v1 import coordinator_pb2 as pb

# Lanes of a rank in a trace.
_OPERATORS, _COLLECTIVES, _BESIDE = "operators", "collectives", "beside"
_LANES = (_OPERATORS, _COLLECTIVES, _BESIDE)
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

    @property
    def end(self):
        return self.begin + self.seconds


@dataclasses.dataclass(frozen=True)
class RankTimeline:
    """By the clock of the rank's host."""

    begin: float  # seconds since 1970
    spans: list   # of Span, in the order in which they ran

    def beside(self):
        """(start, wait) of each collective that ran beside other work."""
        starts = {span.instruction: span for span in self.spans
                  if span.kind == "start"}
        return [(starts[span.started], span) for span in self.spans
                if span.kind == "wait" and span.started in starts]

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
    """Of one step: `ranks` are RankTimelines. `print` shows where the time
    went, `save` writes what https://ui.perfetto.dev and chrome://tracing
    open."""

    def __init__(self, ranks):
        self.ranks = ranks

    @classmethod
    def from_proto(cls, timelines):
        """None where there are none."""
        if not timelines:
            return None
        return cls([RankTimeline(
            begin=timeline.begin_unix_nanos * 1e-9,
            spans=[Span(instruction=span.instruction, kind=_KIND[span.kind],
                        name=span.name, module=span.module,
                        begin=span.begin_nanos * 1e-9,
                        seconds=span.duration_nanos * 1e-9, bytes=span.bytes,
                        started=(span.started if span.HasField("started")
                                 else None))
                   for span in timeline.spans]) for timeline in timelines])

    def chrome_trace(self):
        """As a dict of the Trace Event Format: a process a rank, in it a lane
        for operators, one for collectives, and one for those that run beside
        others' work."""
        first = min((rank.begin for rank in self.ranks), default=0)
        events = []
        for number, rank in enumerate(self.ranks):
            offset = rank.begin - first
            events.append(_meta("process_name", number, 0, f"rank {number}"))
            events += [_meta("thread_name", number, lane, name)
                       for lane, name in enumerate(_LANES)]
            events += [_event(number, _LANE_OF[span.kind], span.name,
                              offset + span.begin, span.seconds,
                              module=span.module, bytes=span.bytes,
                              instruction=span.instruction)
                       for span in rank.spans]
            events += [_event(number, _BESIDE, start.name, offset + start.begin,
                              wait.end - start.begin, bytes=start.bytes,
                              instruction=start.instruction)
                       for start, wait in rank.beside()]
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def save(self, path):
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
                f"{_ms(busy):>12} {_ms(of['wait']):>16} "
                f"{_ms(of['beside']):>20}")
        return "\n".join(lines)


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
