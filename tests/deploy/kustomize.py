"""What `kubectl kustomize` makes of deploy/kubernetes."""

import functools
import pathlib
import shutil
import subprocess

import yaml

from tests.deploy import debian

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = KUBERNETES / "overlays"
# Each is a whole cluster; monitoring comes beside.
CLUSTERS = ["cpu-gloo", "cpu-gloo-lws", "gpu-nccl", "gpu-nccl-lws"]


@functools.cache
def kubectls():
    """Debian 12's, which is old, and that of the machine where it has one."""
    old = debian.root(["kubernetes-client"], "extract") / "usr/bin/kubectl"
    machines = shutil.which("kubectl")
    return {"debian": old, **({"machine": machines} if machines else {})}


def render(kubectl, folder):
    """The objects, in kustomize's order."""
    done = subprocess.run(
        [kubectls()[kubectl], "kustomize", folder], check=False,
        capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


@functools.cache
def build(overlay, kubectl="debian"):
    """The objects of an overlay, which callers do not change."""
    return render(kubectl, OVERLAYS / overlay)


def name_of(item):
    return f"{item['kind']}/{item['metadata']['name']}"
