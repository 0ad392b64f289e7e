"""Kustomizations: that they build, and what they have in common."""

import pytest
import yaml

from tests.deploy import cluster
from tests.deploy import kustomize
from tests.deploy.kustomize import name_of

ALL = [*kustomize.CLUSTERS, "monitoring"]


@pytest.mark.parametrize("overlay", ALL)
def test_old_and_new_kubectl_make_the_same(overlay):
    by = {name: sorted(kustomize.build(overlay, name), key=name_of)
          for name in kustomize.kubectls()}
    for objects in by.values():
        assert objects == by["debian"]


def test_every_overlay_is_known():
    assert sorted(ALL) == sorted(p.name for p in kustomize.OVERLAYS.iterdir())


def files_of(folder):
    """Of a kustomization and all that it includes."""
    path = folder / "kustomization.yaml"
    text = yaml.safe_load(path.read_text())
    found = {path}
    for base in text.get("bases", []):
        found |= files_of((folder / base).resolve())
    for name in (*text.get("resources", []),
                 *text.get("patchesStrategicMerge", []),
                 *[p["path"] for p in text.get("patchesJson6902", [])],
                 *[f for g in text.get("configMapGenerator", [])
                   for f in g["files"]]):
        found.add(folder / name)
    return found


def test_no_file_is_left_out():
    listed = set().union(*(files_of(kustomize.OVERLAYS / o) for o in ALL))
    assert {p for p in kustomize.KUBERNETES.rglob("*") if p.is_file()} <= listed


@pytest.mark.parametrize("overlay", ALL)
def test_namespace_is_the_users(overlay):
    assert [name_of(item) for item in kustomize.build(overlay)
            if "namespace" in item["metadata"]] == []


@pytest.mark.parametrize("overlay", ALL)
def test_recommended_labels(overlay):
    for item in kustomize.build(overlay):
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "shardplane", name_of(item)
        assert labels["app.kubernetes.io/part-of"] == "shardplane"


def test_monitoring_comes_beside():
    """No object of it is in a cluster, so that either can be applied alone."""
    beside = {name_of(item) for item in kustomize.build("monitoring")}
    for overlay in kustomize.CLUSTERS:
        assert not beside & {name_of(i) for i in kustomize.build(overlay)}


@pytest.mark.parametrize("device", ["cpu-gloo", "gpu-nccl"])
def test_variants_differ_in_the_workers_controller_alone(device):
    one, other = cluster.load(device), cluster.load(f"{device}-lws")
    assert one.template("worker") == other.template("worker")
    named = {name_of(item): item for item in other.objects}
    for item in one.objects:
        if item["metadata"]["name"] not in ("shardplane-worker",
                                            "shardplane-workers"):
            assert named[name_of(item)] == item
    assert one.of_kind("PodDisruptionBudget") == other.of_kind(
        "PodDisruptionBudget")
    assert len(one.pod_names("worker")) == len(other.pod_names("worker"))


def test_a_gpu_is_what_gpu_nccl_adds():
    cpu, gpu = cluster.load("cpu-gloo"), cluster.load("gpu-nccl")
    flags = cpu.flags("worker")
    assert flags.pop("collectives") == "gloo"
    assert gpu.flags("worker") == {**flags, "device": "cuda"}
    assert gpu.flags("coordinator") == {**cpu.flags("coordinator"),
                                        "link_costs": "nccl"}
    (plain, special) = (c.container("worker") for c in (cpu, gpu))
    changed = {key for key in special if special[key] != plain.get(key)}
    assert changed == {"args", "env", "image", "resources"}
    assert special["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert [e for e in special["env"] if e not in plain["env"]] == [
        {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"},
        {"name": "NCCL_DEBUG", "value": "WARN"}]
    assert set(gpu.pod("worker")) - set(cpu.pod("worker")) == {"tolerations"}
