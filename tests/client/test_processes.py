"""Processes of a local cluster: ready, early ends, death of the parent."""

import os
import select
import signal
import subprocess
import sys

import pytest

from shardplane.processes import Launcher, ReadyWatch

DAEMON = """
import json, os, signal, sys
path = sys.argv[-1].partition("=")[2]
with open(path + ".tmp", "w") as f:
    json.dump({"address": "a:1", "http_address": "h:2"}, f)
os.rename(path + ".tmp", path)
signal.pause()
"""


@pytest.fixture
def launcher(tmp_path):
    made = Launcher(str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def watch(tmp_path):
    made = ReadyWatch(str(tmp_path))
    yield made
    made.close()


def test_ready(launcher, watch):
    daemons = [launcher.start(f"d{i}", [sys.executable, "-c", DAEMON])
               for i in range(2)]
    watch.wait(daemons, 30)
    assert [(d.address, d.http_address) for d in daemons] == [
        ("a:1", "h:2")] * 2
    for daemon in daemons:
        daemon.terminate()
        daemon.join(30)
        assert daemon.popen.returncode == -signal.SIGTERM


def test_ends_before_it_is_ready(launcher, watch):
    daemon = launcher.start("d", [
        sys.executable, "-c", "import sys; sys.exit('no such port')"])
    with pytest.raises(RuntimeError, match="d ended with code 1(.|\n)*port"):
        watch.wait([daemon], 30)


def test_never_ready(launcher, watch):
    daemon = launcher.start("d", [sys.executable, "-c",
                                  "import signal; signal.pause()"])
    with pytest.raises(TimeoutError, match="d was not ready"):
        watch.wait([daemon], 0.2)
    daemon.kill()


PARENT = """
import os, signal, sys
from shardplane.processes import Launcher, ReadyWatch
watch = ReadyWatch(sys.argv[1])
launcher = Launcher(sys.argv[1])
daemon = launcher.start("d", [sys.executable, "-c", sys.argv[2]])
watch.wait([daemon], 30)
print(daemon.pid, flush=True)
signal.pause()
"""


def test_ends_with_its_parent(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), DAEMON],
        stdout=subprocess.PIPE, text=True)
    child = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    ready, _, _ = select.select([child], [], [], 30)
    assert ready
    os.close(child)
