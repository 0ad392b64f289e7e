"""Every object that kustomize makes fits its schema."""

import copy
import json
import pathlib

import jsonschema
import kubernetes_validate
import pytest

from tests.deploy import cluster
from tests.deploy import kustomize

# The oldest that has everything the manifests use, and the newest known.
VERSIONS = ["1.30", "1.37"]
# Of kinds that Kubernetes itself has not: ours, of the fields that we use.
CUSTOM = {path.stem: json.loads(path.read_text()) for path in
          (pathlib.Path(__file__).parent / "schemas").glob("*.json")}
OVERLAYS = [*kustomize.CLUSTERS, "monitoring"]
# Of a custom kind that no overlay has; and what is wrong with some object.
RULE = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
        "metadata": {"name": "alerts"}, "spec": {"groups": [{
            "name": "workers", "rules": [{
                "alert": "WorkerLost", "expr": "up == 0", "for": "1m",
                "labels": {"severity": "page"}}]}]}}
WRONG = [
    ("LeaderWorkerSet", "spec.leaderWorkerTemplate.restartpolicy", "None"),
    ("LeaderWorkerSet", "spec.leaderWorkerTemplate.restartPolicy", "Never"),
    ("LeaderWorkerSet", "spec.leaderWorkerTemplate.size", 0),
    ("LeaderWorkerSet", "spec.size", 4),
    ("LeaderWorkerSet", "apiVersion", "leaderworkerset.x-k8s.io/v1alpha1"),
    ("PodMonitor", "spec.podMetricsEndpoints.0.port", 8080),
    ("PodMonitor", "spec.podMetricsEndpoints.0.interval", "15 s"),
    ("PodMonitor", "spec.endpoints", []),
    ("PrometheusRule", "spec.groups.0.rules.0.record", "also"),
    ("PrometheusRule", "spec.groups.0.rules.0.For", "1m"),
    ("PrometheusRule", "spec.groups.0.rules.0.for", "soon"),
]


def check_custom(item):
    jsonschema.validate(item, CUSTOM[item["kind"]],
                        cls=jsonschema.Draft202012Validator)


def example(kind):
    return next((item for overlay in OVERLAYS
                 for item in kustomize.build(overlay)
                 if item["kind"] == kind), RULE)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_fit_their_schemas(overlay, version):
    for item in kustomize.build(overlay):
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_custom_kinds_fit_ours(overlay):
    for item in kustomize.build(overlay):
        if item["kind"] in CUSTOM:
            check_custom(item)


def test_there_is_something_to_check():
    kinds = {item["kind"] for overlay in OVERLAYS
             for item in kustomize.build(overlay)}
    assert kinds >= {
        "ConfigMap", "LeaderWorkerSet", "NetworkPolicy", "PodDisruptionBudget",
        "PodMonitor", "Service", "ServiceAccount", "StatefulSet"}
    assert set(CUSTOM) == {"LeaderWorkerSet", "PodMonitor", "PrometheusRule"}
    check_custom(RULE)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", ["cpu-gloo-lws", "gpu-nccl-lws"])
def test_pods_of_a_leader_worker_set_fit_the_schema(overlay, version):
    template = {"apiVersion": "v1", "kind": "PodTemplate",
                "metadata": {"name": "worker"},
                "template": cluster.load(overlay).template("worker")}
    kubernetes_validate.validate(template, version, strict=True)
    template["template"] = copy.deepcopy(template["template"])
    template["template"]["spec"]["containers"][0]["arguments"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(template, version, strict=True)


def test_schema_check_can_fail():
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
              "spec": {"ports": [{"port": 1, "targetport": 2}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("kind, path, value", WRONG, ids=str)
def test_a_wrong_field_is_refused(kind, path, value):
    broken = copy.deepcopy(example(kind))
    check_custom(broken)
    *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    inner = broken
    for step in way:
        inner = inner[step]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError):
        check_custom(broken)
