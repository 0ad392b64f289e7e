"""Why one module, parameter or buffer lies as it does."""

from __future__ import annotations

import html

from shardplane.shown_proto import ShownProto
from shardplane.tables import Table, human_bytes, page
from shardplane.v1 import coordinator_pb2 as coordinator_pb
from shardplane.v1 import types_pb2 as pb


def _word(enum, value):
    """KIND_MODULE -> "module", OUTCOME_COUNTED_ONCE -> "counted once"."""
    return enum.Name(value).split("_", 1)[1].replace("_", " ").lower()


class Explanation(ShownProto):
    """`fqn`, `kind` ("module", "parameter", "buffer"), `module_type`,
    `matches` (entries of the plan, in its order), `tensors` (with their parts
    by rank), `bytes` (by rank, children included), `collectives` (children
    included, with why), `notes`. `str()` is a table, `to_json()` JSON, `proto`
    the message. Notebooks show HTML."""

    @property
    def fqn(self) -> str:
        """Of what is explained; "" is the root."""
        return self.proto.fqn

    @property
    def kind(self) -> str:
        """"module", "parameter" or "buffer"."""
        return _word(pb.Explanation.Kind, self.proto.kind)

    @property
    def module_type(self) -> str:
        """Of the module, or of the one that owns it."""
        return self.proto.module_type

    @property
    def matches(self) -> list[pb.Explanation.Match]:
        """Entries of the plan that matched, in its order."""
        return list(self.proto.matches)

    @property
    def tensors(self) -> list[pb.Explanation.Tensor]:
        """Parameters and buffers, with their parts by rank."""
        return list(self.proto.tensors)

    @property
    def bytes(self) -> list[int]:
        """By rank, children's included."""
        return [line.bytes for line in self.proto.bytes]

    @property
    def collectives(self) -> list[pb.Explanation.Collective]:
        """What it makes travel, and why."""
        return list(self.proto.collectives)

    @property
    def notes(self) -> list[pb.Diagnostic]:
        """Warnings and notes about it."""
        return list(self.proto.diagnostics)

    def _title(self):
        of = "" if self.kind == "module" else " of a"
        return (f'{self.fqn or "the root module"}: '
                f"{self.kind}{of} {self.module_type}")

    def _tables(self):
        matches = [(f'"{m.pattern}"', m.style, m.mesh_dim,
                    _word(pb.Explanation.Match.Outcome, m.outcome),
                    "; ".join(m.contributed))
                   for m in self.proto.matches]
        parts = [(t.fqn, t.text, part.rank, _extents(part),
                  human_bytes(part.bytes))
                 for t in self.proto.tensors for part in t.parts]
        totals = [(line.rank, human_bytes(line.bytes))
                  for line in self.proto.bytes]
        collectives = [(c.phase, f"{c.kind}[{c.mesh_dim}]", c.tensor,
                        human_bytes(c.bytes), c.why, c.program)
                       for c in self.proto.collectives]
        return [
            Table("Patterns that matched", (
                "pattern", "style", "mesh dim", "", "contributed"), matches,
                "No pattern of the plan matched."),
            Table("Tensors by rank", (
                "tensor", "placements", "rank", "part", "bytes"), parts),
            Table("Parameters and buffers, children's included",
                  ("rank", "bytes"), totals),
            Table("Collectives, children's included", (
                "phase", "collective", "tensor", "bytes", "why", "program"),
                collectives, "No collectives.")]

    def __str__(self):
        parts = ["\n".join(lines) for table in self._tables()
                 if (lines := table.lines())]
        parts += [f"note: {d.message}" for d in self.proto.diagnostics]
        return "\n\n".join([self._title(), *parts])

    __repr__ = __str__

    def _repr_html_(self):
        notes = Table("Notes", ("",),
                      [(d.message,) for d in self.proto.diagnostics])
        return page([_heading(self._title()),
                     *(table.html() for table in (*self._tables(), notes))])


def _heading(text):
    return f"<p><b>{html.escape(text)}</b></p>"


def _extents(part):
    """"[0:4, 0:10]": from and to, by dim; "0:4+16:20" of a packed one."""
    def text(dim, offset, size):
        stretches = [(s.offset, s.size) for s in part.stretches
                     if s.dim == dim] or [(offset, size)]
        return "+".join(f"{begin}:{begin + count}"
                        for begin, count in stretches)

    return "[" + ", ".join(
        text(dim, offset, size)
        for dim, (offset, size) in enumerate(zip(part.offsets, part.sizes))
    ) + "]"


def explainer(rpc, **target):
    """explain(fqn) of a deployment's `name`, or of a `dry_run`."""
    def explain(fqn):
        return Explanation(rpc.call(
            "ExplainDeployment", coordinator_pb.ExplainDeploymentRequest(
                fqn=fqn, **target)))
    return explain
