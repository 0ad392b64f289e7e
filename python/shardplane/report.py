"""What planning found out, as fields, a table, JSON and HTML."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shardplane import placements
from shardplane.shown_proto import ShownProto
from shardplane.tables import Row, Table, fold, human_bytes, page, ranges
from shardplane.v1 import types_pb2 as pb

if TYPE_CHECKING:
    from shardplane.explanation import Explanation
    from shardplane.hints import Optimizer

PHASES = ("materialize", "forward", "backward", "optimizer")
# More rows than this are closed where HTML is shown.
_OPEN_ROWS = 40


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


class Report(ShownProto):
    """What a plan does, known before it runs.

    `assignments`, `warnings`, `notes`, `module_collectives`, `memory` and
    `flops` (proto messages, the last two by rank), `placements` (FQN ->
    "[S(0)]"), `collectives` and `collective_bytes` (phase -> kind -> number),
    `layers()` (what each module communicates, children included),
    `optimizer_bytes()`, `flops_per_rank`, `program_text`, `explain(fqn)`.

    `str()` is a table in which repeated layers are folded, `table()` one with
    everything; `to_json()` JSON, `proto` the message. Notebooks show HTML.
    """

    def __init__(self, proto: pb.Report,
                 explain: Callable[[str], Explanation] | None = None) -> None:
        super().__init__(proto)
        self._explain = explain

    @property
    def assignments(self) -> list[pb.Assignment]:
        """One style on one module each."""
        return list(self.proto.assignments)

    def _messages(self, severity):
        return [d for d in self.proto.diagnostics if d.severity == severity]

    @property
    def warnings(self) -> list[pb.Diagnostic]:
        """What PyTorch would have let pass."""
        return self._messages(pb.SEVERITY_WARNING)

    @property
    def notes(self) -> list[pb.Diagnostic]:
        """What is good to know and no fault."""
        return self._messages(pb.SEVERITY_NOTE)

    @property
    def placements(self) -> dict[str, str]:
        """FQN -> "[S(0)]" of each parameter and buffer."""
        return {p.name: p.text or placements.spec_text(p.spec)
                for p in self.proto.parameters}

    @property
    def collectives(self) -> dict[str, dict[str, int]]:
        """Phase -> kind -> how often it runs."""
        return counts_by_phase(self.proto.collectives)

    @property
    def collective_bytes(self) -> dict[str, dict[str, int]]:
        """Phase -> kind -> bytes."""
        return counts_by_phase(self.proto.collectives, "bytes")

    @property
    def module_collectives(self) -> list[pb.ModuleCollective]:
        """What each module causes itself: fqn, phase, kind, mesh_dim, count,
        bytes and why."""
        return list(self.proto.module_collectives)

    def layers(self) -> dict[str, dict[str, tuple[int, int]]]:
        """FQN -> phase -> (count, bytes) of each module that communicates or
        whose children do, these included."""
        totals = {}
        for row in self.proto.module_collectives:
            tokens = row.fqn.split(".") if row.fqn else []
            for depth in range(len(tokens) + 1):
                phases = totals.setdefault(".".join(tokens[:depth]), {})
                count, size = phases.get(row.phase, (0, 0))
                phases[row.phase] = (count + row.count, size + row.bytes)
        return totals

    @property
    def memory(self) -> list[pb.RankMemory]:
        """By rank, what is held and the peak of a run."""
        return list(self.proto.memory)

    def optimizer_bytes(
            self, optimizer: Optimizer | str | None = None) -> dict | list:
        """Optimizer -> bytes of state by rank; of one by its name ("Adam",
        "Adam, amsgrad", "SGD, momentum"), or of one of ours, the list."""
        by_name = {}
        for line in self.proto.memory:
            for state in line.optimizer_state:
                by_name.setdefault(state.optimizer, []).append(state.bytes)
        if optimizer is None:
            return by_name
        return by_name[optimizer if isinstance(optimizer, str) else
                       _optimizer_name(optimizer)]

    @property
    def flops(self) -> list[pb.RankFlops]:
        """By rank: forward and backward; multiply-adds count two."""
        return list(self.proto.flops)

    @property
    def flops_per_rank(self) -> int:
        """Of the rank that has most."""
        return self.proto.flops_per_rank

    @property
    def program_text(self) -> str:
        """The compiled program as text."""
        return self.proto.program_text

    def explain(self, fqn: str) -> Explanation:
        """Why a module, parameter or buffer lies as it does: an Explanation.
        Of a report that came from a deployment or a dry run."""
        if self._explain is None:
            raise ValueError("explain: expected a report of parallelize_module"
                             ", got: one that was made by hand")
        return self._explain(fqn)

    # -------------------------------------------------------------- tables

    def _assignment_table(self, folded):
        rows = []
        for a in self.proto.assignments:
            cut = ", ".join(f"{p.name} {p.text}" for p in a.parameters)
            rows.append(Row(a.fqn, (
                a.style, cut or "-", a.input_layouts or "-",
                a.output_layouts or "-", f'"{a.pattern}"')))
        rows = fold(rows) if folded else rows
        return Table("Assignments", (
            "module", "style", "parameters", "inputs", "outputs", "pattern"),
            [(row.name(), *row.cells) for row in rows],
            "No style is applied.")

    def _collective_table(self):
        rows = [(c.phase, c.kind, c.count, human_bytes(c.bytes))
                for c in self.proto.collectives if c.count]
        return Table("Collectives", ("phase", "collective", "count", "bytes"),
                     rows, "No collectives.")

    def _module_table(self, folded):
        rows = [Row(c.fqn, (c.phase, f"{c.kind}[{c.mesh_dim}]", c.why),
                    (c.count, c.bytes))
                for c in self.proto.module_collectives]
        rows = fold(rows) if folded else rows
        return Table("Collectives by module", (
            "module", "phase", "collective", "count", "bytes", "why"),
            [(row.name(), *row.cells[:2], row.sums[0],
              human_bytes(row.sums[1]), row.cells[2]) for row in rows])

    def layer_table(self, folded: bool = True) -> Table:
        """A Table of what each module communicates with all its children."""
        rows = []
        for fqn, phases in sorted(self.layers().items(), key=_by_name):
            forward = phases.get("forward", (0, 0))
            backward = phases.get("backward", (0, 0))
            rows.append(Row(fqn, (), (*forward, *backward)))
        rows = fold(rows) if folded else rows
        return Table("Collectives of modules with their children", (
            "module", "forward", "bytes", "backward", "bytes"),
            [(row.name(), row.sums[0], human_bytes(row.sums[1]),
              row.sums[2], human_bytes(row.sums[3])) for row in rows])

    def _memory_table(self, folded):
        rows = [(m.rank, (
            human_bytes(m.parameter_bytes), human_bytes(m.gradient_bytes),
            human_bytes(m.buffer_bytes),
            human_bytes(m.peak_activation_bytes),
            human_bytes(m.peak_run_bytes))) for m in self.proto.memory]
        return Table("Memory by rank", (
            "rank", "parameters", "gradients", "buffers", "activations",
            "peak of a run"), _fold_ranks(rows, folded))

    def _optimizer_table(self):
        rows = [(name, human_bytes(max(sizes)))
                for name, sizes in self.optimizer_bytes().items()
                if max(sizes)]
        return Table("Optimizer state, of the rank that has most",
                     ("optimizer", "state"), rows)

    def _flops_table(self, folded):
        rows = [(f.rank, (f"{f.forward:,}", f"{f.backward:,}"))
                for f in self.proto.flops]
        return Table("FLOPs by rank", ("rank", "forward", "backward"),
                     _fold_ranks(rows, folded))

    def _diagnostic_table(self, folded):
        rows = [Row(d.fqn, ("warning" if d.severity == pb.SEVERITY_WARNING
                            else "note", d.message))
                for d in self.proto.diagnostics]
        rows = fold(rows) if folded else rows
        return Table("Warnings and notes", ("", ""),
                     [(row.cells[0], row.cells[1] + (
                         f" (×{row.count})" if row.count > 1 else ""))
                      for row in rows])

    def _tables(self, folded):
        return [self._assignment_table(folded), self._collective_table(),
                self._module_table(folded), self._memory_table(folded),
                self._optimizer_table(), self._flops_table(folded)]

    def table(self, everything: bool = True) -> str:
        """As text; with `everything` each layer and rank has its own row."""
        parts = ["\n".join(lines) for table in self._tables(not everything)
                 if (lines := table.lines())]
        if self.flops_per_rank:
            parts.append(f"FLOPs per rank: {self.flops_per_rank:,}")
        messages = "\n".join(f"{kind}: {message}" for kind, message in
                             self._diagnostic_table(not everything).rows)
        if messages:
            parts.append(messages)
        return "\n\n".join(parts)

    def __str__(self):
        return self.table(everything=False)

    __repr__ = __str__

    def _repr_html_(self):
        tables = [*self._tables(True), self.layer_table(),
                  self._diagnostic_table(True)]
        return page(table.html(opened=len(table.rows) <= _OPEN_ROWS)
                    for table in tables)


def _by_name(item):
    """Numbers in names by their value: layers.2 before layers.10."""
    return [(0, int(token), "") if token.isdigit() else (1, 0, token)
            for token in item[0].split(".") if item[0]]


def _fold_ranks(rows, folded):
    if not folded:
        return [(str(rank), *cells) for rank, cells in rows]
    ranks = {}
    for rank, cells in rows:
        ranks.setdefault(cells, []).append(rank)
    return [(ranges(of), *cells) for cells, of in ranks.items()]


def _optimizer_name(optimizer):
    name = type(optimizer).__name__
    if name == "SGD":
        return "SGD, momentum" if optimizer.momentum else "SGD"
    return f"{name}, amsgrad" if optimizer.amsgrad else name
