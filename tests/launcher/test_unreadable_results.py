"""Results that a full disk cut off: ./shardplane test runs those again."""

import importlib.util
import pathlib
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOOD = '<testsuite><testcase name="a" classname="b"/></testsuite>'
# In Bazel's place: the report of //:one is {cached} where a cached result will
# do, and {fresh} where it must run.
BAZEL = """#!/usr/bin/env python3
import json, pathlib, sys
folder = pathlib.Path(sys.argv[0]).parent
with open(folder / "calls", "a") as calls:
    calls.write(" ".join(sys.argv[sys.argv.index("--") + 1:]) + "\\n")
fresh = "--nocache_test_results" in sys.argv
report = folder / "test.xml"
report.write_text({fresh!r} if fresh else {cached!r})
event = {{"id": {{"testResult": {{"label": "//:one"}}}},
         "testResult": {{"status": "PASSED", "testActionOutput": [
             {{"name": "test.xml", "uri": report.as_uri()}}]}}}}
flag = "--build_event_json_file="
events = next(a for a in sys.argv if a.startswith(flag))
pathlib.Path(events[len(flag):]).write_text(json.dumps(event) + "\\n")
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """What one run of //:one adds up to, and the targets of Bazel's calls."""
    spec = importlib.util.spec_from_file_location(
        "run_tests", ROOT / "third_party/run_tests.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    launcher = tmp_path / "bazel.py"
    monkeypatch.setattr(module, "LAUNCHER", str(launcher))

    def run_with(cached, fresh):
        launcher.write_text(BAZEL.format(cached=cached, fresh=fresh))
        launcher.chmod(0o755)
        options = types.SimpleNamespace(long=0, bazel=[])
        count = module.RunBazel(options, ["//:one"], set(), ["//..."], [])
        return count, (tmp_path / "calls").read_text().split()

    return run_with


def test_what_can_be_read_counts_at_once(run):
    count, calls = run(cached=GOOD, fresh="")
    assert (count.passed, count.failed) == (1, 0)
    assert calls == ["//..."]


@pytest.mark.parametrize("cut_off", ["", GOOD[:30]])
def test_what_cannot_be_read_runs_again(run, cut_off):
    count, calls = run(cached=cut_off, fresh=GOOD)
    assert (count.passed, count.failed) == (1, 0)
    assert calls == ["//...", "//:one"]


def test_what_still_cannot_be_read_is_a_failure(run):
    count, calls = run(cached="", fresh="")
    assert (count.passed, count.failed) == (0, 1)
    assert count.problems == ["unreadable test.xml: //:one"]
    assert calls == ["//...", "//:one"]
