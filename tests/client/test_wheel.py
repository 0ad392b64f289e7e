"""The wheel is built from the checkout without a network, and works away from
it."""

import ast
import email
import json
import os
import pathlib
import subprocess
import sys
import zipfile

from google.rpc import status_pb2
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = ROOT / "python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    before = sorted(PYTHON.iterdir())
    done = subprocess.run(
        [sys.executable, PYTHON / "build_wheel.py", folder], check=False,
        text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(PYTHON.iterdir()) == before  # nothing beside the sources
    path = pathlib.Path(done.stdout.strip())
    assert path.parent == folder and path.name.endswith("-py3-none-any.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Has the wheel in a folder of its own, and nothing of the checkout but
    google.rpc, which comes from another package elsewhere."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
         "--no-index", "--disable-pip-version-check", "--target",
         folder / "site", wheel], check=True, timeout=120)
    (folder / "rpc" / "google").mkdir(parents=True)
    (folder / "rpc" / "google" / "rpc").symlink_to(
        pathlib.Path(status_pb2.__file__).parent)
    return {**os.environ,
            "PYTHONPATH": f"{folder / 'site'}:{folder / 'rpc'}"}


def run(environment, tmp_path, source):
    done = subprocess.run([sys.executable, "-c", source], check=False,
                          text=True, capture_output=True, timeout=120,
                          cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_the_package_its_demos_stubs_and_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(PYTHON)) for path in
               (PYTHON / "shardplane").glob("**/*.py")}
    assert sources <= names and "shardplane/demos/lm.py" in sources
    assert "shardplane/py.typed" in names
    for name in ("coordinator", "types"):
        for ending in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py"):
            assert f"shardplane/v1/{name}{ending}" in names
    assert not [name for name in names if name.startswith("google/")]


def test_its_types_can_be_read(wheel):
    with zipfile.ZipFile(wheel) as archive:
        stubs = {name: ast.parse(archive.read(name))
                 for name in archive.namelist() if name.endswith(".pyi")}
    assert len(stubs) == 2
    classes = {node.name for stub in stubs.values()
               for node in ast.walk(stub) if isinstance(node, ast.ClassDef)}
    assert {"Deployment", "Explanation", "None_"} <= classes


def test_its_metadata_say_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist()
                   if name.endswith("/METADATA")]
        metadata = email.message_from_bytes(archive.read(path))
    assert metadata["Name"] == "shardplane"
    assert metadata["License-Expression"] == "Apache-2.0"
    needs = [need for need in metadata.get_all("Requires-Dist")
             if "extra ==" not in need]
    assert sorted(need.split(">")[0] for need in needs) == [
        "googleapis-common-protos", "grpcio", "numpy", "protobuf"]
    assert "torch" in metadata.get_all("Provides-Extra")


def test_the_build_asks_for_what_is_locked():
    import tomllib
    project = tomllib.loads((PYTHON / "pyproject.toml").read_text("utf-8"))
    (setuptools,) = project["build-system"]["requires"]
    assert f"\n{setuptools} \\" in (PYTHON / "requirements.lock").read_text()


def test_the_installed_package_plans_without_torch(environment, tmp_path):
    site = environment["PYTHONPATH"].split(":")[0]
    told = json.loads(run(environment, tmp_path, """
import json, sys
sys.modules["torch"] = None
import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb
with sp.LocalCluster(workers=0) as cluster:
    report = cluster.parallelize_module(
        {"type": "Linear", "in_features": 4, "out_features": 2}, {"tp": 2},
        sp.ColwiseParallel(), validate_only=True)
print(json.dumps([sp.__file__, pb.__file__, list(report.placements)]))
"""))
    assert all(path.startswith(site) for path in told[:2])
    assert told[2] == ["weight", "bias"]


def test_the_installed_demos_tell_what_they_take(environment, tmp_path):
    assert "lm" in run(environment, tmp_path, """
import runpy, sys
sys.argv = ["demo", "--help"]
try:
    runpy.run_module("shardplane.demo", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
""")
