"""Writes the rule files as the Prometheus operator's custom resource.

./shardplane python -m deploy.prometheus.prometheus_rule
"""

import pathlib

import yaml

FOLDER = pathlib.Path(__file__).resolve().parent
RESOURCE = FOLDER / "prometheus-rule.yaml"
HEAD = ("# From rules/*.yaml, by "
        "./shardplane python -m deploy.prometheus.prometheus_rule.\n")
LABELS = {"app.kubernetes.io/name": "shardplane",
          "app.kubernetes.io/part-of": "shardplane"}


def groups():
    return [group for path in sorted((FOLDER / "rules").glob("*.yaml"))
            for group in yaml.safe_load(path.read_text("utf-8"))["groups"]]


def text():
    resource = {
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
        "metadata": {"name": "shardplane", "labels": LABELS},
        "spec": {"groups": groups()}}
    return HEAD + yaml.safe_dump(resource, sort_keys=False, width=100)


if __name__ == "__main__":
    RESOURCE.write_text(text(), encoding="utf-8")
