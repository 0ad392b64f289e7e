"""shardctl against real processes."""

import json
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "client" / "examples" / "train.cc"


@pytest.fixture(scope="module")
def binary():
    done = subprocess.run([ROOT / "shardplane", "build",
                           "//client/shardctl:shardctl"], check=False,
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return (pathlib.Path(os.environ["SHARDPLANE_BIN_DIR"]) /
            "client/shardctl/shardctl")


@pytest.fixture
def shardctl(binary, cluster, tmp_path):
    def run(*words, code=0, stdin=""):
        done = subprocess.run(
            [binary, *map(str, words)], text=True, capture_output=True,
            input=stdin, timeout=120, check=False,
            env={"SHARDPLANE_ADDRESS": cluster.address, "HOME": str(tmp_path)})
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stdout + done.stderr
    return run


@pytest.fixture
def deployment(tmp_path):
    """The file of a small model over two ranks, f64[8, 10] and a target."""
    text = re.search(r'R"json\((.*)\)json"', EXAMPLE.read_text("utf-8"),
                     re.DOTALL).group(1)
    path = tmp_path / "mlp.json"
    path.write_text(json.dumps({**json.loads(text), "deployment_id": "mlp"}),
                    encoding="utf-8")
    return path


def test_applied_compared_and_deleted(shardctl, deployment):
    assert "+mesh:" in shardctl("apply", "-f", deployment, "--dry-run", code=1)
    assert shardctl("get", "deploy", "-o", "name") == ""
    assert "materialized" in shardctl("apply", "-f", deployment,
                                      "--materialize")
    assert "unchanged" in shardctl("apply", "-f", deployment)
    shown = shardctl("get", "deploy", "mlp", "-o", "yaml")
    assert "unchanged" in shardctl("apply", "-f", "-", "--dry-run",
                                   stdin=shown)
    other = shown.replace('seed: "0"', "").replace("name: deployments/mlp",
                                                   "name: deployments/mlp\n"
                                                   "seed: 5")
    assert '+seed: "5"' in shardctl("apply", "-f", "-", stdin=other, code=1)
    assert "deleted" in shardctl("delete", "deploy/mlp", "--wait")
    assert "NOT_FOUND" in shardctl("get", "deploy/mlp", code=1)


def test_another_signature_adds_a_program(shardctl, deployment):
    shardctl("apply", "-f", deployment)
    other = deployment.read_text("utf-8").replace("[8, 10]", "[6, 10]")
    assert "would be added" in shardctl("apply", "-f", "-", "--dry-run",
                                        stdin=other, code=1)
    assert "added" in shardctl("apply", "-f", "-", stdin=other)
    assert len(shardctl("get", "prog", "-d", "mlp", "-o",
                        "name").splitlines()) == 2


def test_steps_are_numbered_and_repeatable(shardctl, deployment):
    shardctl("apply", "-f", deployment, "--materialize")
    step = ("step", "mlp", "--random", 1, "--targets", 1, "--optimizer", "sgd",
            "-o", "json", "--number")
    first = json.loads(shardctl(*step, 1))
    assert json.loads(shardctl(*step, 1)) == first
    assert "STEP_OUT_OF_TURN" in shardctl(*step, 3, code=1)
    lines = shardctl("train", "mlp", "--steps", 5, "--random", 1, "--targets",
                     1, "--optimizer", "sgd").splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"step {n}" for n in range(2, 7)]
    assert re.search(r"mlp +READY +\[tp=2\] +6 ", shardctl("top"))


def test_explains_plans_and_diagnoses(shardctl, deployment):
    assert "ColwiseParallel" in shardctl("plan", "-f", deployment)
    assert "[0:8, 0:10]" in shardctl("explain", "-f", deployment, "up.weight")
    assert "FQN_NOT_FOUND" in shardctl("explain", "-f", deployment, "upp",
                                       code=1)
    shardctl("diagnose")


def test_diagnose_finds_a_lost_worker(binary, own_cluster):
    own_cluster.processes[1].kill()

    def run(*words):
        return subprocess.run([binary, *words, "--address",
                               own_cluster.address], text=True, check=False,
                              capture_output=True, timeout=60)
    assert run("wait", "wk/worker-0", "--for=lost",
               "--timeout=30s").returncode == 0
    done = run("diagnose")
    assert done.returncode == 1 and "workers/worker-0" in done.stdout
    own_cluster.coordinator.terminate()
    own_cluster.coordinator.join(10)
    assert run("diagnose", "--timeout=500ms").returncode == 3


def test_new_methods(shardctl, deployment, tmp_path):
    """Operations, events, steps, timelines, watches, draining."""
    shardctl("apply", "-f", deployment, "--materialize")
    assert "SUCCEEDED" in shardctl("get", "op")
    assert "deployments/mlp" in shardctl("events", "--for", "deploy/mlp")
    shardctl("step", "mlp", "--random", 1, "--targets", 1)
    assert "deployments/mlp/steps/1\n" == shardctl("get", "st", "-o", "name")
    trace = tmp_path / "trace.json"
    assert "RANK" in shardctl("timeline", "mlp", "--trace", trace)
    names = {event["args"]["name"] for event in
             json.loads(trace.read_text("utf-8"))["traceEvents"]
             if event["name"] == "process_name"}
    assert len(names) == 3 and "coordinator" in names
    assert "deployments/mlp" in shardctl("get", "deploy", "-w", "-o", "name",
                                         "--timeout=2s")
    assert "DRAINING" in shardctl("drain", "worker-3")
    assert "READY" in shardctl("uncordon", "worker-3")


@pytest.mark.parametrize("shell", ["bash"])
def test_completion(binary, shell, cluster, tmp_path):
    script = subprocess.run([binary, "completion", shell], text=True,
                            check=True, capture_output=True).stdout
    (tmp_path / "s.sh").write_text(script, encoding="utf-8")

    def complete(*words):
        return subprocess.run(
            [shell, "-c", '. ./s.sh; COMP_WORDS=("$@"); '
             'COMP_CWORD=$(($#-1)); _shardctl; echo "${COMPREPLY[@]}"',
             "_", "shardctl", *words], text=True, check=True, cwd=tmp_path,
            capture_output=True, timeout=60, env={
                "PATH": f"{binary.parent}:{os.environ['PATH']}",
                "SHARDPLANE_ADDRESS": cluster.address}).stdout.split()
    assert complete("ge") == ["get"]
    assert complete("config", "use") == ["use-context"]
    assert "workers" in complete("get", "w")
    assert complete("get", "-o", "j") == ["json"]
    assert "worker-1" in complete("get", "workers", "worker")
    assert "--dry-run" in complete("apply", "--d")
