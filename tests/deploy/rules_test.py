"""Recording rules and alerts, without a cluster."""

import functools
import pathlib
import re
import subprocess

from google.protobuf import json_format
from google.protobuf import message_factory
import pytest
import yaml

from shardplane.v1 import coordinator_pb2

from deploy.prometheus import metric_families
from deploy.prometheus import prometheus_rule
from tests.deploy import promql

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = [rule for group in prometheus_rule.groups() for rule in group["rules"]]
RECORDED = {r["record"]: r for r in RULES if "record" in r}
ALERTS = {r["alert"]: r for r in RULES if "alert" in r}
TESTS = sorted((FOLDER / "tests").glob("*.yaml"))
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text("utf-8")
# From the scrape's own labels: prometheus.yml's targets and the PodMonitor.
TARGET_LABELS = {"namespace", "component", "instance", "pod", "job"}
# Made by Prometheus for each target.
UP = {"up": set()}


def known_metrics():
    """name -> labels, of what is scraped and of what is recorded."""
    known = dict(UP)
    for family in metric_families.families():
        known.update(family.metrics)
    for name, rule in RECORDED.items():
        names = promql.read(rule["expr"])
        known[name] = names.grouped - {"le"} or set().union(
            *(known[metric] for metric in names.metrics))
    return known


KNOWN = known_metrics()


def promtool(*arguments, **options):
    done = subprocess.run(["promtool", *arguments], check=False, text=True,
                          capture_output=True, **options)
    return done.returncode, done.stdout + done.stderr


def test_promtool_accepts_the_configuration(tmp_path):
    config = (FOLDER / "prometheus.yml").read_text("utf-8")
    (tmp_path / "prometheus.yml").write_text(config)
    (tmp_path / "targets.json").write_text("[]")
    (tmp_path / "rules").symlink_to(FOLDER / "rules")
    code, output = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert code == 0, output
    assert "WARNING" not in output and "FAILED" not in output
    assert sum(int(n) for n in re.findall(r"(\d+) rules found", output)) \
        % len(RULES) == 0


@pytest.mark.parametrize("path", sorted((FOLDER / "rules").glob("*.yaml")),
                         ids=lambda path: path.name)
def test_promtool_accepts_the_rules(path):
    code, output = promtool("check", "rules", "--lint=all", "--lint-fatal",
                            str(path))
    assert code == 0, output


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_promtool_runs_the_tests(path):
    code, output = promtool("test", "rules", str(path))
    assert code == 0, output


def test_promtool_sees_a_wrong_rule(tmp_path):
    """The tests fail when a threshold is another one."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "rules").mkdir()
    for path in [*TESTS, *(FOLDER / "rules").glob("*.yaml")]:
        text = path.read_text("utf-8").replace("0.05", "0.5")
        (tmp_path / path.parent.name / path.name).write_text(text)
    code, output = promtool("test", "rules",
                            str(tmp_path / "tests" / "alerts_steps.yaml"))
    assert code != 0 and "ShardplaneStepsFailing" in output


@functools.cache
def cases():
    """(what is expected, "some" or "none") of all tests."""
    found = set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text("utf-8"))["tests"]:
            for alert in test.get("alert_rule_test", []):
                found.add((alert["alertname"],
                           "some" if alert["exp_alerts"] else "none"))
            for expression in test.get("promql_expr_test", []):
                (name,) = promql.read(expression["expr"]).metrics
                values = [s["value"] for s in expression["exp_samples"]]
                found.add((name, "some" if any(values) else "none"))
    return found


@pytest.mark.parametrize("outcome", ["some", "none"])
@pytest.mark.parametrize("name", [*RECORDED, *ALERTS])
def test_each_has_a_test_with_and_without_a_result(name, outcome):
    assert (name, outcome) in cases()


@pytest.mark.parametrize("rule", RULES,
                         ids=lambda r: r.get("record") or r["alert"])
def test_names_metrics_and_labels_that_exist(rule):
    names = promql.read(rule["expr"])
    assert names.metrics
    labels = set(TARGET_LABELS)
    for metric, selected in names.metrics.items():
        assert metric in KNOWN, metric
        assert selected <= KNOWN[metric] | TARGET_LABELS, metric
        labels |= KNOWN[metric]
    assert names.grouped <= labels
    for label in re.findall(r"\$labels\.(\w+)", str(rule)):
        assert label in labels


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_name_says_which_labels_are_left(name):
    level, metric, operations = name.split(":")
    grouped = re.search(r"\bby \(([\w, ]+)\)", RECORDED[name]["expr"])
    if grouped is None:  # over the time of a recorded one: its labels
        (source,) = promql.read(RECORDED[name]["expr"]).metrics
        assert source.split(":")[0] == level
        return
    labels = [x for x in grouped.group(1).split(", ") if x != "le"]
    assert "_".join(labels) == level
    assert metric and operations


def section(anchor):
    """The text below a heading of the runbooks."""
    found = re.search(rf"^## {anchor}\n(.*?)(?=^## |\Z)", RUNBOOKS,
                      re.MULTILINE | re.DOTALL | re.IGNORECASE)
    assert found, anchor
    return found.group(1)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert re.fullmatch(r"\d+[smh]", alert["for"])
    assert set(alert["annotations"]) == {"summary", "description",
                                         "runbook_url"}
    page, anchor = alert["annotations"]["runbook_url"].split("#")
    assert (page, anchor) == ("docs/runbooks.md", name.lower())
    text = section(anchor)
    for part in ("**Means.**", "**Users see.**", "**Find the cause.**",
                 "**Do.**"):
        assert part in text, part


def test_commands_of_the_runbooks_name_methods():
    service = coordinator_pb2.DESCRIPTOR.services_by_name[
        "ShardingCoordinator"]
    calls = re.findall(r"\bapi ([A-Z]\w+)(?: '(\{.*?\})')?", RUNBOOKS)
    assert len(calls) >= 15
    for method, request in calls:
        message = service.methods_by_name[method].input_type
        json_format.Parse(request or "{}",
                          message_factory.GetMessageClass(message)())


def test_runbooks_are_of_alerts_that_exist():
    headings = re.findall(r"^## (Shardplane\w+)$", RUNBOOKS, re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


def page_queries(page):
    """The blocks of PromQL in a page."""
    blocks = re.findall(r"^ *```promql\n(.*?)^ *```", page,
                        re.MULTILINE | re.DOTALL)
    return [block.strip() for block in blocks]


@pytest.mark.parametrize("name", ["metrics.md", "runbooks.md"])
def test_queries_of_a_page_name_metrics_that_exist(name):
    queries = page_queries((ROOT / "docs" / name).read_text("utf-8"))
    assert len(queries) >= 5
    for query in queries:
        for metric, selected in promql.read(query).metrics.items():
            assert selected <= KNOWN[metric] | TARGET_LABELS, query


def test_the_custom_resource_is_that_of_the_rules():
    text = prometheus_rule.RESOURCE.read_text("utf-8")
    assert text == prometheus_rule.text()
    assert yaml.safe_load(text)["spec"]["groups"] == prometheus_rule.groups()
    kustomization = yaml.safe_load(
        (FOLDER / "kustomization.yaml").read_text("utf-8"))
    assert kustomization["resources"] == [prometheus_rule.RESOURCE.name]


def test_the_table_of_metrics_is_that_of_the_header():
    page = metric_families.PAGE.read_text("utf-8")
    assert page == metric_families.with_table(page)


def test_the_header_is_read_as_it_is_meant():
    by_name = {f.name: f for f in metric_families.families()}
    steps = by_name["shardplane_steps_total"]
    assert (steps.kind, steps.labels, steps.owner) == (
        "counter", ("phase", "result"), "both")
    wait = by_name["shardplane_collective_wait_seconds"]
    assert (wait.kind, wait.labels, wait.owner, wait.buckets) == (
        "histogram", ("collective",), "worker", "kFast")
    assert by_name["process_open_fds"].kind == "gauge"
    rows = metric_families.HEADER.read_text("utf-8").count("MetricFamilyRow{")
    processes = [n for n in by_name if n.startswith("process_")]
    assert len(by_name) == rows + len(processes) and len(processes) == 7
