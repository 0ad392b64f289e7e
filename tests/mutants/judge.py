"""Runs tests in a tree with or without a fault, and says what came of it."""

import argparse
import dataclasses
import enum
import os
import pathlib
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree

from tests.mutants import workspace
from tests.mutants.table import NoMatch, is_label

# A test target, a pytest id: each takes seconds where it does not hang.
_TEST_SECONDS = 120
_PYTEST_SECONDS = 300
_SHOWN_CHARACTERS = 4000


class Outcome(enum.Enum):
    """Of one test."""

    GREEN = "passes"
    RED = "fails"
    HANGS = "runs into its time limit"
    NOT_BUILT = "was not built"
    NOT_RUN = "did not run"


@dataclasses.dataclass
class Result:
    outcome: Outcome
    cases: list = dataclasses.field(default_factory=list)  # that failed
    output: str = ""


@dataclasses.dataclass
class Verdict:
    killed: bool
    text: str
    output: str = ""


def _failed_cases(path, kinds):
    """Names of the cases in a googletest, pytest or Bazel test.xml."""
    cases = []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if any(case.find(kind) is not None for kind in kinds):
            group = (case.get("classname") or "").rsplit(".", 1)[-1]
            cases.append(f"{group}.{case.get('name')}".strip("."))
    return cases


def _tail(text):
    return text[-_SHOWN_CHARACTERS:]


class Tests:
    """Those of the tree at `root`, which has the launcher and run_tests.py."""

    def __init__(self, root, bazel_options=()):
        self._tools = workspace.load_tools(pathlib.Path(root))
        self._bazel_options = list(bazel_options)

    def run(self, tests):
        """test -> Result."""
        labels = [test for test in tests if is_label(test)]
        ids = [test for test in tests if not is_label(test)]
        results = self._run_labels(labels) if labels else {}
        results |= self._run_ids(ids) if ids else {}
        return results

    def _run_labels(self, labels):
        with tempfile.TemporaryDirectory() as scratch:
            events = os.path.join(scratch, "events.json")
            done = self._tools.Bazel(
                "test", "--keep_going", "--noshow_progress",
                "--ui_event_filters=-info", f"--test_timeout={_TEST_SECONDS}",
                f"--build_event_json_file={events}", *self._bazel_options,
                "--", *labels, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT)
            ran = (self._tools.ReadEvents(events)
                   if os.path.exists(events) else {})
            return {label: self._label_result(ran.get(label), done.stdout)
                    for label in labels}

    @staticmethod
    def _label_result(shards, output):
        if not shards:  # no result: it was not built
            return Result(Outcome.NOT_BUILT, output=_tail(output))
        statuses = {status for status, _ in shards.values()}
        if statuses <= {"PASSED"}:
            return Result(Outcome.GREEN)
        if statuses <= {"PASSED", "FAILED"}:
            cases = [case for _, paths in shards.values() for path in paths
                     if os.path.exists(path)
                     for case in _failed_cases(path, ("failure", "error"))]
            return Result(Outcome.RED, cases, _tail(output))
        if "TIMEOUT" in statuses:
            return Result(Outcome.HANGS, output=_tail(output))
        outcome = (Outcome.NOT_BUILT if "FAILED_TO_BUILD" in statuses
                   else Outcome.NOT_RUN)
        return Result(outcome, output=_tail(output))

    def _run_ids(self, ids):
        built = subprocess.run(
            [self._tools.LAUNCHER, "_runtime"], check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        if built.returncode:
            return {test: Result(Outcome.NOT_BUILT, output=_tail(built.stdout))
                    for test in ids}
        return {test: self._run_id(test) for test in ids}

    def _run_id(self, test):
        with tempfile.TemporaryDirectory() as scratch:
            xml = os.path.join(scratch, "pytest.xml")
            log = os.path.join(scratch, "log")
            with open(log, "w", encoding="utf-8") as file:
                code = self._tools.RunBounded(
                    self._tools.PytestCommand("--junitxml", xml, test),
                    self._tools.PytestEnvironment(argparse.Namespace(long=0)),
                    _PYTEST_SECONDS, stdout=file, stderr=subprocess.STDOUT)
            output = _tail(pathlib.Path(log).read_text(
                encoding="utf-8", errors="replace"))
            # Code 1: all was tried and some failed. An error of a fixture is
            # not the test's own failure.
            cases = _failed_cases(xml, ("failure",)) if code == 1 else []
        if code == 0:
            return Result(Outcome.GREEN)
        if cases:
            return Result(Outcome.RED, cases, output)
        return Result(Outcome.HANGS if code < 0 else Outcome.NOT_RUN,
                      output=output)


def _red_text(test, result):
    cases = result.cases or ["(it crashed)"]
    more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
    return f"{test}: {cases[0]}{more}"


def judge(mutant, root, tests):
    """Plants the fault in the tree at `root` and runs the mutant's tests."""
    try:
        with workspace.planted(mutant, root):
            results = tests.run(mutant.tests)
    except (NoMatch, OSError) as problem:
        return Verdict(False, f"cannot be planted: {problem}")
    red = {Outcome.RED, Outcome.HANGS} if mutant.may_hang else {Outcome.RED}
    missed = {test: result for test, result in results.items()
              if result.outcome not in red}
    if not missed:
        return Verdict(True, "; ".join(
            _red_text(test, result) for test, result in results.items()))
    return Verdict(
        False, "; ".join(f"{test} {result.outcome.value}"
                         for test, result in missed.items()),
        "\n".join(result.output for result in missed.values()))


def _without_faults(tests, wanted, say):
    """Those that fail in the tree as it is: they can kill nothing."""
    say(f"{len(wanted)} tests without any fault", flush=True)
    unsound = set()
    for test, result in tests.run(wanted).items():
        if result.outcome is not Outcome.GREEN:
            unsound.add(test)
            say(f"{test} {result.outcome.value} without any fault\n"
                f"{result.output}", flush=True)
    return unsound


def judge_all(mutants, root, tests, say=print):
    """One line a mutant; the names of those that no test has killed."""
    wanted = sorted({test for mutant in mutants for test in mutant.tests})
    unsound = _without_faults(tests, wanted, say)
    survivors = []
    for mutant in mutants:
        start = time.monotonic()
        if unsound.intersection(mutant.tests):
            verdict = Verdict(False, "its tests fail without the fault too")
        else:
            verdict = judge(mutant, root, tests)
        took = f"{mutant.name} ({time.monotonic() - start:.0f} s)"
        if verdict.killed:
            say(f"killed    {took} by {verdict.text}", flush=True)
            continue
        survivors.append(mutant.name)
        say(f"SURVIVED  {took}: {verdict.text}\n          {mutant.breaks}",
            flush=True)
        if verdict.output:
            say(verdict.output, flush=True)
    return survivors
