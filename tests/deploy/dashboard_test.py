"""Checks that the dashboard asks for metrics that the binaries have."""

import json
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARD = json.loads(
    (ROOT / "deploy/grafana/cluster-overview.json").read_text())
HISTOGRAM_SUFFIX = re.compile(r"_(bucket|sum|count)$")
# Words of PromQL and label names are told from metrics by the selector or
# range that follows a metric.
SELECTED = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
# From the scrape's own labels (see the PodMonitor).
TARGET_LABELS = {"namespace", "component", "instance", "pod", "job"}


def families():
    """name -> labels, from the table and the process metrics."""
    text = (ROOT / "telemetry/metric_families.h").read_text()
    text = text[text.index("kCounterRows"):]
    found = {}
    for row in re.split(r"MetricFamilyRow\{", text)[1:]:
        name = re.match(r'\s*"(\w+)"', row).group(1)
        # Help texts are strings beside each other or hold more than a word;
        # the labels are a braced list of words.
        labels = re.search(r'\{((?:\s*"\w+",?)+)\}', row)
        found[name] = set(re.findall(r"\w+", labels.group(1) if labels else ""))
    process = (ROOT / "telemetry/process_metrics.cc").read_text()
    for name in re.findall(r'"(process_\w+)"', process):
        found[name] = set()
    return found


FAMILIES = families()
PANELS = [p for p in DASHBOARD["panels"] if p["type"] != "row"]
QUERIES = [(p["title"], t["expr"]) for p in PANELS for t in p["targets"]]
IDS = [f"{title}-{n}".replace(" ", "_") for n, (title, _) in enumerate(QUERIES)]


def family_of(metric):
    return metric if metric in FAMILIES else HISTOGRAM_SUFFIX.sub("", metric)


def test_the_table_was_read():
    assert FAMILIES["shardplane_steps_total"] == {"phase", "result"}
    assert FAMILIES["shardplane_plan_resolve_seconds"] == set()
    assert len(FAMILIES) >= 20


@pytest.mark.parametrize("query", [q for _, q in QUERIES], ids=IDS)
def test_query_uses_metrics_and_labels_that_exist(query):
    selected = SELECTED.findall(query)
    assert selected, "a query names a metric with a selector"
    own_labels = set()
    for metric, selector in selected:
        assert family_of(metric) in FAMILIES, metric
        labels = FAMILIES[family_of(metric)]
        own_labels |= labels
        assert set(LABEL.findall(selector)) <= labels | TARGET_LABELS
    for grouped in re.findall(r"\bby \(([^)]*)\)", query):
        assert set(re.split(r",\s*", grouped)) <= (own_labels | TARGET_LABELS
                                                   | {"le"})
    # Every metric-like word must be one of those with a selector.
    words = set(re.findall(r"\b(?:shardplane|grpc_server|process)_\w+", query))
    assert words == {metric for metric, _ in selected}


@pytest.mark.parametrize("query", [q for _, q in QUERIES], ids=IDS)
def test_counters_are_read_as_rates(query):
    for metric, _ in SELECTED.findall(query):
        if metric.endswith(("_total", "_bucket", "_count", "_sum")):
            assert re.search(rf"(?:rate|increase)\({metric}\{{", query)


def test_every_family_of_ours_is_on_the_dashboard():
    shown = {family_of(m) for _, q in QUERIES for m, _ in SELECTED.findall(q)}
    ours = {name for name in FAMILIES if not name.startswith("process_")}
    assert ours <= shown


def test_panels_do_not_overlap_and_ids_are_unique():
    ids = [p["id"] for p in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                 for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_take_the_chosen_data_source():
    variables = {v["name"] for v in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "namespace"}
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"


def test_promtool_parses_every_query(tmp_path):
    rules = [{"record": f"query:{n}",
              "expr": query.replace("$__rate_interval", "1m")}
             for n, (_, query) in enumerate(QUERIES)]
    path = tmp_path / "rules.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(path)],
                          check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
