"""The language model demo in short: end to end, and when it is broken off."""

import os
import re
import signal
import subprocess
import sys

import pytest

COMMAND = [
    sys.executable, "-m", "shardplane.demo", "--workers", "2", "--layers",
    "1", "--dim", "32", "--heads", "4", "--kv-heads", "2", "--vocabulary",
    "301", "--batch", "16", "--sequence", "16", "--lr", "0.01",
    "--threads", "1"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def demo(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True,
                          text=True, timeout=300, env=ENVIRONMENT,
                          check=False)


def figures(text, name):
    """The numbers of a line of the result."""
    line = re.search(rf"^{name}\s+(.*)$", text, re.MULTILINE)
    return [float(n) for n in line[1].split()]


def test_demo_learns_what_pytorch_learns(tmp_path):
    picture = tmp_path / "curves.png"
    done = demo("--steps", "60", "--dtype", "float64", "--picture",
                str(picture))
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout
    for part in (
            "tok_embeddings", "SequenceParallel", "weight [S(0)]",
            "reduce_scatter", "all_gather", "60/60", "tokens/s", "A step of ",
            "held out: ", "Apache-2.0", "It goes on after 'You may'",
            "* Shardplane   o PyTorch   # both", str(picture)):
        assert part in text, part
    perplexities = figures(text, "held-out perplexity")
    assert len(perplexities) == 2
    assert perplexities[0] == perplexities[1]  # as printed
    assert max(perplexities) < 60  # who only counts gets 72
    losses = figures(text, "last loss")
    assert losses[0] == losses[1] < 4.5
    difference = re.search(r"largest loss difference .*: (\S+)", text)[1]
    assert float(difference) < 1e-9
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_demo_says_that_it_has_learnt_too_little(tmp_path):
    """Too short a run fails; and without PyTorch there is one curve."""
    done = demo("--steps", "2", "--no-torch", "--picture",
                str(tmp_path / "curves.png"))
    assert done.returncode == 1, done.stderr
    assert "FAILED: held-out perplexity of Shardplane: expected below" in (
        done.stdout)
    for part in ("The same run", "o PyTorch", "largest loss difference"):
        assert part not in done.stdout


def children(pid):
    """Of a process, as the kernel lists them by thread."""
    found = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children",
                  encoding="ascii") as listed:
            found.update(map(int, listed.read().split()))
    return found


def test_demo_that_is_interrupted_ends_its_cluster(tmp_path):
    with subprocess.Popen(
            [*COMMAND, "--steps", "100000", "--picture",
             str(tmp_path / "curves.png")], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        for line in process.stdout:
            if line.startswith("Training on the workers"):
                break
        daemons = [os.pidfd_open(pid) for pid in children(process.pid)]
        assert len(daemons) == 3
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "interrupted: the cluster has ended" in output
        assert "Traceback" not in errors
        for daemon in daemons:
            signal_gone(daemon)


def signal_gone(daemon):
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(daemon, 0)
    os.close(daemon)
