"""Checks that dashboards ask for what is scraped or recorded."""

import json
import pathlib
import re

import pytest

from deploy.grafana import dashboards
from deploy.prometheus import metric_families

from tests.deploy import promql
from tests.deploy.rules_test import ALERTS, KNOWN, RECORDED, TARGET_LABELS

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "grafana"
PAGES = {path.stem: json.loads(path.read_text("utf-8"))
         for path in sorted(FOLDER.glob("*.json"))}
PANELS = [(name, panel) for name, page in PAGES.items()
          for panel in page["panels"] if panel["type"] != "row"]
QUERIES = {f"{name}-{panel['title']}-{target['refId']}".replace(" ", "_"):
           target["expr"]
           for name, panel in PANELS for target in panel["targets"]}
COUNTERS = {name for family in metric_families.families()
            for name in family.metrics if family.kind != "gauge"}
# Units of Grafana that the panels may have.
UNITS = {"none", "ops", "reqps", "s", "bytes", "Bps", "percentunit"}

each_query = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
each_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
each_panel = pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS],
    ids=[f"{name}-{panel['title']}".replace(" ", "_")
         for name, panel in PANELS])


def filled(query):
    """With Grafana's variables, as where everything is chosen."""
    query = query.replace("$__rate_interval", "1m")
    return re.sub(r"\$\w+", ".*", query)


def test_the_files_are_those_of_the_tables():
    assert set(PAGES) == {d.name for d in dashboards.DASHBOARDS} == {
        "cluster", "deployment", "worker"}
    for dashboard in dashboards.DASHBOARDS:
        text = dashboards.path(dashboard).read_text("utf-8")
        assert text == dashboards.text(dashboard)


def test_the_config_map_has_all_files():
    listed = re.findall(r"- (\S+\.json)$", (
        FOLDER / "kustomization.yaml").read_text("utf-8"), re.MULTILINE)
    assert listed == [f"{name}.json" for name in PAGES]


@each_query
def test_query_uses_metrics_and_labels_that_exist(query):
    names = promql.read(filled(query))
    assert names.metrics
    labels = set(TARGET_LABELS)
    for metric, selected in names.metrics.items():
        assert metric in KNOWN, metric
        assert selected <= KNOWN[metric] | TARGET_LABELS
        labels |= KNOWN[metric]
    assert names.grouped <= labels


@each_query
def test_query_asks_for_the_namespace_chosen(query):
    for metric, labels in promql.read(filled(query)).metrics.items():
        assert "namespace" in labels, metric


@each_query
def test_counters_are_read_as_rates(query):
    names = promql.read(filled(query))
    assert set(names.metrics) & COUNTERS <= names.rated


@each_panel
def test_legend_names_labels_that_are_left(panel):
    for target in panel["targets"]:
        names = promql.read(filled(target["expr"]))
        left = names.grouped or set(TARGET_LABELS).union(
            *(KNOWN[metric] for metric in names.metrics))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left


@each_panel
def test_panel_says_what_it_shows(panel):
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"]["uid"] == "${datasource}"


@each_panel
def test_unit_is_that_of_the_query(panel):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for target in panel["targets"]:
        for metric in promql.read(filled(target["expr"])).metrics:
            times = "_seconds" in metric and not metric.endswith("_count")
            if unit == "s":
                assert times
            elif unit in ("bytes", "Bps"):
                assert "_bytes" in metric
            elif unit == "percentunit":
                assert "ratio" in metric
            else:
                assert metric == "process_cpu_seconds_total" or not times


def test_every_family_is_on_a_dashboard_or_recorded():
    asked = [promql.read(filled(q)).metrics for q in QUERIES.values()]
    asked += [promql.read(rule["expr"]).metrics for rule in RECORDED.values()]
    shown = {metric for metrics in asked for metric in metrics}
    for family in metric_families.families():
        assert shown & set(family.metrics), family.name


def test_every_recorded_one_is_on_a_dashboard_or_in_an_alert():
    asked = [filled(query) for query in QUERIES.values()]
    asked += [rule["expr"] for rule in ALERTS.values()]
    used = {metric for query in asked for metric in promql.read(query).metrics}
    assert set(RECORDED) <= used


@each_page
def test_panels_have_titles_of_their_own(page):
    titles = [panel["title"] for panel in page["panels"]]
    assert len(set(titles)) == len(titles)


def test_panels_that_the_runbooks_name_exist():
    text = (ROOT / "docs" / "runbooks.md").read_text("utf-8")
    named = re.findall(r"\*([^*\n]+)\*(?: and \*([^*]+)\*)? of \*(\w+)\*", text)
    assert len(named) >= 5
    for *titles, page in named:
        assert set(titles) - {""} <= {p["title"] for p in PAGES[page]["panels"]}


@each_page
def test_panels_do_not_overlap_and_ids_are_unique(page):
    ids = [panel["id"] for panel in page["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in page["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                 for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@each_page
def test_variables_are_those_that_queries_use(page):
    variables = {v["name"]: v for v in page["templating"]["list"]}
    text = json.dumps(page["panels"])
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval"}
    assert set(variables) == used
    for variable in variables.values():
        if variable["type"] != "query":
            continue
        metric, label = re.fullmatch(
            r"label_values\((\w+)(?:\{.*\})?, (\w+)\)",
            variable["query"]["query"]).groups()
        assert label in KNOWN[metric] | TARGET_LABELS


@each_page
def test_links_lead_to_the_other_dashboards(page):
    others = {f"/d/{p['uid']}" for p in PAGES.values() if p is not page}
    assert {link["url"] for link in page["links"]} == others
    assert all(link["includeVars"] and link["keepTime"]
               for link in page["links"])


@each_query
def test_prometheus_answers(watched, query):
    """With a vector, which may be empty; the data are another test's."""
    watched.prometheus.query(filled(query))


def test_prometheus_refuses_what_is_no_query(watched):
    with pytest.raises(OSError, match="400"):
        watched.prometheus.query("sum by (shardplane_workers")


@pytest.mark.parametrize("page", ["metrics.md", "runbooks.md"])
def test_prometheus_answers_the_queries_of_a_page(watched, page):
    text = (ROOT / "docs" / page).read_text("utf-8")
    for query in re.findall(r"```promql\n(.*?)```", text, re.DOTALL):
        watched.prometheus.query(query)


@each_page
def test_what_can_be_chosen_is_there(watched, page):
    """Each variable's metric has its label, where it is scraped at all."""
    watched.prometheus.scraped()
    for variable in page["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(
                r"label_values\((.*), (\w+)\)",
                variable["query"]["query"]).groups()
            for labels, _ in watched.prometheus.query(filled(metric)):
                assert labels[label]
