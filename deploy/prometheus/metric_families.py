"""Reads the table of metric families; writes it into docs/metrics.md.

./shardplane python -m deploy.prometheus.metric_families
"""

import pathlib
import re
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADER = ROOT / "telemetry" / "metric_families.h"
PROCESS = ROOT / "telemetry" / "process_metrics.cc"
PAGE = ROOT / "docs" / "metrics.md"
BEGIN = "<!-- from telemetry/metric_families.h -->\n"
END = "<!-- end -->\n"

KINDS = {"kCounterRows": "counter", "kGaugeRows": "gauge",
         "kHistogramRows": "histogram"}
OWNERS = {"kBoth": "both", "kCoordinator": "coordinator", "kWorker": "worker"}
# Name of a table, a row's beginning, a string, an enumerator, or a brace.
TOKEN = re.compile(r'(k\w+Rows)|(MetricFamilyRow)\{|"([^"]*)"'
                   r'|(MetricOwner|MetricBuckets)::(\w+)|([{},])')


class Family(typing.NamedTuple):
    name: str
    kind: str
    help: str
    labels: tuple
    owner: str
    buckets: str = "kNone"

    @property
    def metrics(self):
        """The names that Prometheus stores, with the labels of each."""
        if self.kind != "histogram":
            return {self.name: set(self.labels)}
        return {f"{self.name}_bucket": {*self.labels, "le"},
                f"{self.name}_sum": set(self.labels),
                f"{self.name}_count": set(self.labels)}


def parse(header):
    """The families of a header like telemetry/metric_families.h."""
    text = re.sub(r"//.*", "", header)
    # Strings beside each other are one.
    text = re.sub(r'"\s*\n\s*"', "", text)
    kind, row, found = None, None, []
    for table, begins, string, enum, value, mark in TOKEN.findall(text):
        if table:
            kind = KINDS[table]
        elif begins:
            row = {"strings": [], "labels": [], "depth": 1}
        elif row is None:
            continue
        elif mark == "{":
            row["depth"] += 1
        elif enum:
            row[enum] = value
        elif mark == "}":
            row["depth"] -= 1
            if row["depth"] == 0:
                found.append(_family(kind, row))
                row = None
        elif mark != ",":
            row["strings" if row["depth"] == 1 else "labels"].append(string)
    return found


def _family(kind, row):
    name, text = row["strings"]
    return Family(name, kind, text, tuple(row["labels"]),
                  OWNERS[row.get("MetricOwner", "kBoth")],
                  row.get("MetricBuckets", "kNone"))


def process_families(source):
    """Those of telemetry/process_metrics.cc."""
    text = re.sub(r'"\s*\n\s*"', "", source)
    return [Family(name, kind.lower(), text, (), "both") for kind, name, text in
            re.findall(r'MetricType::(\w+),\s*"(process_\w+)",\s*"([^"]+)"',
                       text)]


def families():
    return (parse(HEADER.read_text(encoding="utf-8"))
            + process_families(PROCESS.read_text(encoding="utf-8")))


def table():
    lines = ["| family | kind | labels | shown by | meaning |",
             "|---|---|---|---|---|"]
    for family in sorted(families(), key=lambda f: f.name):
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | "
                     f"{family.owner} | {family.help} |")
    return "\n".join(lines) + "\n"


def with_table(page):
    """The page, with what stands between its marks made anew."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")),
                    encoding="utf-8")
