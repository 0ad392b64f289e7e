"""Runs every test and adds up the cases: ./shardplane test --help.

Bazel says in its build event file which target did what; the cases are counted
in the XML that googletest and pytest write. What was selected and did not run
(a target that did not build, a skipped case, a target without cases) counts as
failed, so that the closing line tells all.
"""

import argparse
import contextlib
import dataclasses
import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.parse
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAUNCHER = os.path.join(ROOT, "shardplane")
# Everything together takes minutes: what takes this long hangs.
PYTEST_MINUTES = 45
# Python tests by the beginning of their path, the first that fits; the rest
# start processes and Bazel more than they compute.
PARTS = (("tests/client/", "tests/cluster/",
          "tests/conformance/test_data_parallel",
          "tests/conformance/test_fully_shard",
          "tests/conformance/test_recompute",
          "tests/conformance/test_transformer", "tests/differential/",
          "tests/faults/", "tests/status_page/", "tests/zoo/"),
         ("tests/conformance/",))


@dataclasses.dataclass
class Count:
    passed: int = 0
    failed: int = 0
    problems: list = dataclasses.field(default_factory=list)

    def Fail(self, problem):
        self.failed += 1
        self.problems.append(problem)

    def Add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.problems += other.problems


def HasGpu():
    return bool(glob.glob("/dev/nvidia[0-9]*"))


def SkipReason(case):
    skipped = case.find("skipped")
    return "" if skipped is None else " ".join(
        (skipped.get("message") or skipped.text or "").split())


def IsGpuCase(case):
    """Of pytest's: those that are marked gpu lie in one folder."""
    return case.get("classname", "").startswith("tests.gpu.")


def Cases(path):
    """None where the file is not there or cut off: the disk was full, say."""
    try:
        return list(ElementTree.parse(path).getroot().iter("testcase"))
    except (FileNotFoundError, ElementTree.ParseError):
        return None


def CountXml(path, name, may_skip):
    """Cases in a googletest, pytest or Bazel test.xml. `may_skip`: whether a
    case is one of those that some machines, though they have a GPU, cannot
    run."""
    count = Count()
    cases = Cases(path)
    if cases is None:
        count.Fail(f"unreadable test.xml: {name}")
        return count
    for case in cases:
        full = f"{name} {case.get('classname', '')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            count.Fail(f"failed: {full}")
        elif (case.find("skipped") is not None
              or case.get("result") in ("skipped", "suppressed")
              or case.get("status") == "notrun"):
            if may_skip(case):
                print(f"left out: {full}: {SkipReason(case)}", flush=True)
            else:
                count.Fail(f"did not run: {full}")
        else:
            count.passed += 1
    if not cases:
        count.Fail(f"no test in: {name}")
    return count


def Bazel(*arguments, **keywords):
    return subprocess.run([LAUNCHER, "_bazel", *arguments], cwd=ROOT, text=True,
                          stdin=subprocess.DEVNULL, check=False, **keywords)


def Query(expression):
    done = Bazel("query", "--noshow_progress", "--ui_event_filters=-info",
                 "--keep_going", expression, stdout=subprocess.PIPE)
    return done.returncode == 0, set(done.stdout.split())


def ReadEvents(path):
    """label -> (status, [paths of test.xml]), the last attempt of each shard."""
    results = {}
    with open(path, encoding="utf-8") as events:
        for line in events:
            event = json.loads(line)
            key = event.get("id", {}).get("testResult")
            if key is None or "testResult" not in event:
                continue
            result = event["testResult"]
            xml = [urllib.parse.unquote(urllib.parse.urlparse(o["uri"]).path)
                   for o in result.get("testActionOutput", [])
                   if o["name"] == "test.xml" and "uri" in o]
            shard = (key.get("run", 0), key.get("shard", 0))
            results.setdefault(key["label"], {})[shard] = (
                result.get("status", "NO_STATUS"), xml)
    return results


def CountTarget(label, shards, is_gpu):
    count = Count()
    for status, paths in shards.values():
        before = count.failed
        for path in paths:
            if os.path.exists(path):
                count.Add(CountXml(path, label, lambda _: is_gpu))
        if not any(os.path.exists(path) for path in paths):
            count.Fail(f"no test.xml: {label} ({status})")
        elif status != "PASSED" and count.failed == before:
            count.Fail(f"{status.lower()}: {label}")
    return count


def BazelTest(options, targets, flags):
    """(label -> what ReadEvents says, exit code)"""
    with tempfile.TemporaryDirectory() as scratch:
        events = os.path.join(scratch, "events.json")
        if options.long:
            flags = flags + [
                f"--test_env=SHARDPLANE_LONG_MINUTES={options.long}"]
        done = Bazel(
            "test", "--keep_going", "--noshow_progress",
            f"--build_event_json_file={events}",
            *flags, *options.bazel, "--", *targets)
        results = ReadEvents(events) if os.path.exists(events) else {}
    return results, done.returncode


def SaysNothing(shards):
    """It passed, but what it wrote cannot be read: it ended on a full disk,
    and the cache took that for its result."""
    return any(status == "PASSED" and Cases(path) is None
               for status, paths in shards.values() for path in paths)


def RunBazel(options, labels, gpu, targets, flags):
    """Runs the labels, which are the tests among the targets; gpu: may skip."""
    total = Count()
    results, code = BazelTest(options, targets, flags)
    silent = [label for label in labels if SaysNothing(results.get(label, {}))]
    if silent:
        print(f"once more, as their results cannot be read: {silent}",
              flush=True)
        again, again_code = BazelTest(options, silent,
                                      flags + ["--nocache_test_results"])
        results, code = {**results, **again}, code or again_code
    for label in labels:
        if label in results:
            total.Add(CountTarget(label, results[label], label in gpu))
        else:
            total.Fail(f"did not run: {label}")
    # 4: no test was found, which the loop above has judged.
    if code not in (0, 4) and not total.failed:
        total.Fail(f"bazel test failed with exit code {code}")
    return total


def RunBazelTests(options):
    total = Count()
    loaded, labels = Query("tests(//...)")
    if not loaded:
        total.Fail("some BUILD files do not load")
    _, gpu = Query('attr(tags, "[\\[ ]gpu[,\\]]", tests(//...))')
    selected = {label for label in labels if options.only in label}
    filters = []
    if not HasGpu():
        print(f"{len(selected & gpu)} GPU test targets are left out: "
              "there is no GPU here", flush=True)
        selected -= gpu
        filters.append("--test_tag_filters=-gpu")
    if not selected:
        return total, 0
    instrumented = {}
    for config, expression in INSTRUMENTED.items():
        loaded, instrumented[config] = Query(expression)
        if not loaded:
            total.Fail(f"what --config={config} is for is not known")
    once = selected & instrumented["sanitize"] - gpu
    total.Add(RunAsBuilt(options, selected - once, once, gpu, filters))
    for config, targets in instrumented.items():
        total.Add(RunInstrumented(options, selected - gpu, targets, config))
    return total, len(selected)


# What is built once more, and run as far as it is a test. The sanitizers know
# nothing of torch's libraries.
INSTRUMENTED = {
    "sanitize": 'kind("cc_.*", //...) except rdeps(//..., @torch//:torch) '
                'except attr(tags, "[\\[ ]manual[,\\]]", //...)',
    "tsan": 'attr(tags, "[\\[ ]tsan[,\\]]", tests(//...))',
}


def RunAsBuilt(options, labels, left_out, gpu, filters):
    """All but what runs with the sanitizers, which see more than it does; the
    Python tests run all binaries as built."""
    if not labels:
        return Count()
    targets = (sorted(labels) if options.only else
               ["//...", *(f"-{label}" for label in sorted(left_out))])
    return RunBazel(options, sorted(labels), gpu, targets, filters)


def RunInstrumented(options, selected, targets, config):
    labels = sorted(targets & selected)
    if not labels:
        return Count()
    total = RunBazel(options, labels, set(),
                     labels if options.only else sorted(targets),
                     [f"--config={config}"])
    total.problems = [f"with --config={config}: {p}" for p in total.problems]
    return total


def PythonTests():
    found = []
    for folder in ("tests", "python"):
        for pattern in ("test_*.py", "*_test.py"):
            found += glob.glob(f"{ROOT}/{folder}/**/{pattern}", recursive=True)
    return sorted(set(found))


def PytestEnvironment(options):
    binaries = os.path.join(ROOT, "bazel-bin")
    paths = [os.path.join(ROOT, "python"), os.path.join(binaries, "proto"), ROOT]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(paths),
                SHARDPLANE_BIN_DIR=binaries, OMP_NUM_THREADS="1",
                SHARDPLANE_LONG_MINUTES=str(options.long),
                PYTHONDONTWRITEBYTECODE="1")


@contextlib.contextmanager
def Started(command, environment, **keywords):
    """The process. What is left of its group at the end is killed."""
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL,
                               env=environment, start_new_session=True,
                               **keywords)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def CodeWithin(process, seconds):
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"pytest has not ended after {seconds / 60:.0f} minutes")
        return -1


def RunBounded(command, environment, seconds, **keywords):
    """The exit code; -1 where it has not ended."""
    with Started(command, environment, **keywords) as process:
        return CodeWithin(process, seconds)


def PytestCommand(*arguments):
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", ROOT,
               "--import-mode=importlib", "-p", "no:cacheprovider",
               "-o", "faulthandler_timeout=300", *arguments]
    return command if HasGpu() else command + ["-m", "not gpu"]


def SelectPytests(options, files):
    """Of these files, the ids that contain the text; None if some don't load."""
    done = subprocess.run(
        PytestCommand("--collect-only", *files), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False,
        env=PytestEnvironment(options))
    if done.returncode not in (0, 5):
        print(done.stdout)
        return None
    lines = done.stdout.splitlines()
    return [line for line in lines if "::" in line and options.only in line]


def Parts(tests):
    """Three, about equally long, that run at the same time: two would leave
    cores idle, as each waits often, for processes that start or end."""
    parts = [[] for _ in (*PARTS, "the rest")]
    for test in tests:
        path = os.path.relpath(os.path.join(ROOT, test), ROOT)
        parts[next((i for i, folders in enumerate(PARTS)
                    if path.startswith(folders)), -1)].append(test)
    return parts


@contextlib.contextmanager
def Part(options, tests):
    """pytest begins; a function that waits for it: the Count, and what it
    printed."""
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        xml = os.path.join(scratch, "pytest.xml")
        listed = os.path.join(scratch, "tests")
        with open(listed, "w", encoding="utf-8") as file:
            file.write("\n".join(tests))
        printed = stack.enter_context(tempfile.TemporaryFile())
        process = stack.enter_context(Started(
            PytestCommand("--junitxml", xml, "@" + listed),
            PytestEnvironment(options), stdout=printed,
            stderr=subprocess.STDOUT))

        def Wait():
            count = Count()
            code = CodeWithin(process, 60 * (PYTEST_MINUTES + options.long))
            if os.path.exists(xml):
                count.Add(CountXml(xml, "pytest", IsGpuCase))
            # Exit code 0: all passed, 1: some failed, else not everything was
            # tried.
            if code not in (0, 1) or (code == 1 and not count.failed):
                count.Fail(f"pytest ended with exit code {code}")
            printed.seek(0)
            return count, printed.read().decode(errors="replace")

        yield Wait


def RunPytest(options):
    total = Count()
    tests = PythonTests()
    if not tests:
        return total, 0
    if options.only:
        if subprocess.run([LAUNCHER, "_runtime"], check=False).returncode:
            total.Fail("the binaries that the Python tests need did not build")
        tests = SelectPytests(options, tests)
        if tests is None:
            total.Fail("some Python tests do not load")
        if not tests:
            return total, 0
    print(f"{len(tests)} {'tests' if options.only else 'files'} in Python; "
          "what pytest says follows when they are over", flush=True)
    with contextlib.ExitStack() as stack:
        waits = [stack.enter_context(Part(options, part))
                 for part in Parts(tests) if part]
        for wait in waits:
            count, output = wait()
            print(output, flush=True)
            total.Add(count)
    return total, total.passed + total.failed


def ParseArguments():
    own, bazel = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, bazel = own[:at], own[at + 1:]
    parser = argparse.ArgumentParser(prog="./shardplane test")
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--long", default=0, type=float, metavar="MINUTES")
    parser.add_argument("--mutants", action="store_true")
    options = parser.parse_args(own)
    options.bazel = bazel
    return options


def RunMutants(options):
    """Whether each planted fault of tests/mutants turns a test red."""
    sys.path.insert(0, ROOT)
    from tests.mutants.run_mutants import run
    return run(ROOT, os.environ["SHARDPLANE_CACHE"], options.only,
               options.bazel)


def main():
    options = ParseArguments()
    if options.mutants:
        sys.exit(0 if RunMutants(options) else 1)
    total, targets = RunBazelTests(options)
    python, cases = RunPytest(options)
    total.Add(python)
    if not targets and not cases:
        total.Fail("no test was selected")
    print()
    for problem in total.problems:
        print(problem)
    print(f"{total.passed} passed, {total.failed} failed")
    sys.exit(1 if total.failed else 0)


if __name__ == "__main__":
    main()
