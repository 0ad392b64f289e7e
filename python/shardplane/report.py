"""What planning found out, as fields, a table and JSON."""

import json

from google.protobuf import json_format

from shardplane import placements
from shardplane.v1 import types_pb2 as pb

PHASES = ("materialize", "forward", "backward", "optimizer")


class Counts(dict):
    """Kind of collective -> number; what did not run is 0."""

    def __missing__(self, kind):
        return 0


def counts_by_phase(collectives, field="count"):
    """{"forward": {"all_reduce": 1}, ...}: every phase, kinds that ran."""
    phases = {phase: Counts() for phase in PHASES}
    for row in collectives:
        if row.count:
            counts = phases.setdefault(row.phase, Counts())
            counts[row.kind] += getattr(row, field)
    return phases


def _table(header, rows):
    widths = [max(len(str(cell)) for cell in column)
              for column in zip(header, *rows)]
    def line(cells):
        return "  ".join(str(cell).ljust(width)
                         for cell, width in zip(cells, widths)).rstrip()
    return [line(header), line(["-" * width for width in widths]),
            *map(line, rows)]


def human_bytes(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else (
                f"{count:.1f} {unit}")
        count /= 1024


class Report:
    """What a plan does, known before it runs.

    `assignments`, `warnings`, `notes` (proto messages with a text each),
    `placements` (FQN -> "[S(0)]"), `collectives` and `collective_bytes`
    (phase -> kind -> number), `memory` (by rank), `flops_per_rank`,
    `program_text`. `str()` is a table, `to_json()` JSON, `proto` the message.
    """

    def __init__(self, proto):
        self.proto = proto

    @property
    def assignments(self):
        return list(self.proto.assignments)

    def _messages(self, severity):
        return [d for d in self.proto.diagnostics if d.severity == severity]

    @property
    def warnings(self):
        return self._messages(pb.SEVERITY_WARNING)

    @property
    def notes(self):
        return self._messages(pb.SEVERITY_NOTE)

    @property
    def placements(self):
        return {p.name: p.text or placements.spec_text(p.spec)
                for p in self.proto.parameters}

    @property
    def collectives(self):
        return counts_by_phase(self.proto.collectives)

    @property
    def collective_bytes(self):
        return counts_by_phase(self.proto.collectives, "bytes")

    @property
    def memory(self):
        return list(self.proto.memory)

    @property
    def flops_per_rank(self):
        return self.proto.flops_per_rank

    @property
    def program_text(self):
        return self.proto.program_text

    def to_dict(self):
        return json_format.MessageToDict(self.proto,
                                         preserving_proto_field_name=True)

    def to_json(self, indent=2):
        return json.dumps(self.to_dict(), indent=indent)

    def _assignment_lines(self):
        rows = []
        for a in self.proto.assignments:
            cut = ", ".join(f"{p.name} {p.text}" for p in a.parameters)
            rows.append((a.fqn or '""', a.style, cut or "-",
                         a.input_layouts or "-", a.output_layouts or "-",
                         f'"{a.pattern}"'))
        if not rows:
            return ["No style is applied."]
        return _table(("module", "style", "parameters", "inputs", "outputs",
                       "pattern"), rows)

    def _collective_lines(self):
        rows = [(c.phase, c.kind, c.count, human_bytes(c.bytes))
                for c in self.proto.collectives if c.count]
        if not rows:
            return ["No collectives."]
        return _table(("phase", "collective", "count", "bytes"), rows)

    def _memory_lines(self):
        rows = [(m.rank, human_bytes(m.parameter_bytes),
                 human_bytes(m.gradient_bytes), human_bytes(m.buffer_bytes),
                 human_bytes(m.peak_activation_bytes))
                for m in self.proto.memory]
        if not rows:
            return []
        return ["", *_table(("rank", "parameters", "gradients", "buffers",
                             "activations"), rows)]

    def __str__(self):
        lines = [*self._assignment_lines(), "", *self._collective_lines(),
                 *self._memory_lines()]
        if self.flops_per_rank:
            lines += ["", f"FLOPs per rank: {self.flops_per_rank:,}"]
        for d in self.proto.diagnostics:
            kind = ("warning" if d.severity == pb.SEVERITY_WARNING
                    else "note")
            lines.append(f"{kind}: {d.message}")
        return "\n".join(lines)

    __repr__ = __str__
