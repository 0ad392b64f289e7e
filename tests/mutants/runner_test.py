"""./shardplane test --mutants on a small tree with faults of every kind."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.mutants import workspace
from tests.mutants.judge import Outcome, Result, judge, judge_all
from tests.mutants.table import Mutant

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The launcher's: it holds the project's Python, which runs this. The toy's
# folder is kept, as Bazel needs long for the first build of a folder.
CACHE = pathlib.Path(sys.prefix).parent
TOY = CACHE / "mutants" / "toy"

# ------------------------------------------------------------ without Bazel


class Canned:
    """Tests whose results are known beforehand, by the text of the file."""

    def __init__(self, root, **results):
        self._path, self._results = root / "f", results

    def run(self, tests):
        faulty = self._path.read_text(encoding="utf-8") != "good"
        return {test: Result(self._results[test] if faulty else Outcome.GREEN,
                             ["Case.Name", "Case.Other"], "some output")
                for test in tests}


def mutant(*tests, **changes):
    return Mutant(**{"name": "m", "breaks": "it", "file": "f", "old": "good",
                     "new": "bad", "tests": tests, **changes})


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "f").write_text("good")
    return tmp_path


@pytest.mark.parametrize("outcome, may_hang, killed", [
    (Outcome.RED, False, True), (Outcome.GREEN, False, False),
    (Outcome.NOT_BUILT, False, False), (Outcome.NOT_RUN, False, False),
    (Outcome.HANGS, False, False), (Outcome.HANGS, True, True),
    (Outcome.RED, True, True), (Outcome.GREEN, True, False)])
def test_red_alone_kills(tree, outcome, may_hang, killed):
    verdict = judge(mutant("t", may_hang=may_hang), tree,
                    Canned(tree, t=outcome))
    assert verdict.killed == killed
    assert ("t: Case.Name and 1 more" if killed else
            f"t {outcome.value}") in verdict.text
    assert (tree / "f").read_text() == "good"


def test_every_test_that_is_named_must_be_red(tree):
    verdict = judge(mutant("a", "b"), tree,
                    Canned(tree, a=Outcome.RED, b=Outcome.GREEN))
    assert not verdict.killed and verdict.text == "b passes"


@pytest.mark.parametrize("changes, text", [
    ({"old": "gone"}, "f: expected the old text once, got: 0 times"),
    ({"file": "g"}, "No such file")])
def test_what_cannot_be_planted_is_not_killed(tree, changes, text):
    verdict = judge(mutant("t", **changes), tree, Canned(tree, t=Outcome.RED))
    assert not verdict.killed and text in verdict.text


def test_test_that_fails_anyway_kills_nothing(tree):
    class Red:
        def run(self, tests):
            return {test: Result(Outcome.RED) for test in tests}

    said = []
    assert judge_all([mutant("t")], tree, Red(),
                     lambda text, **_: said.append(text)) == ["m"]
    assert "t fails without any fault" in said[1]
    assert "its tests fail without the fault too" in said[2]


def test_fault_goes_whatever_happens(tree):
    with pytest.raises(KeyboardInterrupt):
        with workspace.planted(mutant("t"), tree):
            assert (tree / "f").read_text() == "bad"
            raise KeyboardInterrupt
    assert (tree / "f").read_text() == "good"


def test_copy_follows_the_checkout(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for path in ("a/kept", "a/changed", "a/__pycache__/x.pyc", ".git/x",
                 ".bazelrc", "shared/x"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(path)
    (source / "a" / "kept").chmod(0o755)
    (source / "bazel-out").symlink_to(source / "a")
    target.mkdir()
    (target / "bazel-bin").symlink_to(source / "a")
    workspace.synchronize(source, target)
    listed = {p.relative_to(target).as_posix() for p in target.rglob("*")}
    assert listed == {"a", "a/kept", "a/changed", ".bazelrc", "bazel-bin"}
    assert os.access(target / "a" / "kept", os.X_OK)

    kept = (target / "a" / "kept").stat()
    (source / "a" / "changed").write_text("now")
    (target / "a" / "gone").write_text("")
    workspace.synchronize(source, target)
    assert (target / "a" / "changed").read_text() == "now"
    assert not (target / "a" / "gone").exists()
    assert (target / "a" / "kept").stat() == kept


# ------------------------------------------------------------ a small tree

FILES = {
    "toy/BUILD.bazel": """
cc_library(name = "a", srcs = ["a.cc"], hdrs = ["a.h"])
cc_test(name = "a_test", srcs = ["a_test.cc"], deps = [":a"])
""",
    "toy/a.h": "int Answer();\nint Unseen();\n",
    "toy/a.cc": """#include "toy/a.h"
int Answer() { return 42; }
int Unseen() { return 7; }
""",
    "toy/a_test.cc": """#include "toy/a.h"
int main() { return Answer() == 42 ? 0 : 1; }
""",
    "toy/test_a.py": """
import pathlib
import pytest

TEXT = (pathlib.Path(__file__).parent / "data.txt").read_text()

@pytest.fixture
def word():
    return TEXT.split()[1]

def test_first():
    assert TEXT.split()[0] == "one"

def test_second(word):
    assert word
""",
    "toy/data.txt": "one two\n",
    # What the launcher builds for Python's tests.
    "proto/BUILD.bazel": 'filegroup(name = "nothing")\n',
}

A_TEST = "//toy:a_test"
ANSWER = {"file": "toy/a.cc", "old": "return 42;"}
DATA = {"file": "toy/data.txt", "old": "one two"}
# Changes of a mutant, whether it is killed, and what is said of it.
CASES = {
    "killed": ({**ANSWER, "new": "return 41;"}, True, A_TEST),
    "unseen": ({"file": "toy/a.cc", "old": "return 7;", "new": "return 8;"},
               False, f"{A_TEST} passes"),
    "stale": ({"file": "toy/a.cc", "old": "return 43;", "new": "return 41;"},
              False, "expected the old text once, got: 0 times"),
    "no-compile": ({**ANSWER, "new": "return forty;"}, False, "was not built"),
    "loops": ({**ANSWER, "new": "volatile int i = 1; while (i) {} return 42;"},
              False, "time limit"),
    "python": ({**DATA, "new": "two one",
                "tests": ["toy/test_a.py::test_first"]}, True, "test_first"),
    "python-fixture": ({**DATA, "new": "one",
                        "tests": ["toy/test_a.py::test_second"]}, False,
                       "did not run"),
}


def toml(name, changes):
    row = {"name": name, "breaks": "the toy", "tests": [A_TEST], **changes}
    return "[[mutant]]\n" + "".join(
        f"{key} = {value!r}\n" for key, value in row.items())


def write_toy(root):
    shutil.rmtree(root)
    for name in ("shardplane", "WORKSPACE", ".bazelrc", "BUILD.bazel",
                 ".clang-format", ".clang-tidy", "LICENSE",
                 "python/requirements.lock"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for name in ("third_party", "tests/mutants"):
        shutil.copytree(ROOT / name, root / name, ignore=
                        shutil.ignore_patterns("*.toml", "__pycache__"))
    files = FILES | {"tests/mutants/toy.toml": "".join(
        toml(name, changes) for name, (changes, _, _) in CASES.items())}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def toy():
    """A checkout with the project's launcher and a table of its own."""
    with workspace.locked(TOY):
        write_toy(TOY)
        yield TOY


def contents(root):
    return {path.relative_to(root): path.read_bytes()
            for path in root.rglob("*") if path.is_file()}


def run_mutants(root, *options):
    return subprocess.run(
        [root / "shardplane", "test", "--mutants", *options], check=False,
        text=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=1200,
        env=dict(os.environ, SHARDPLANE_CACHE=str(CACHE)))


@pytest.fixture(scope="module")
def judged(toy):
    before = contents(toy)
    done = run_mutants(toy, "--", "--test_timeout=3")
    assert contents(toy) == before
    return done


@pytest.mark.parametrize("name", CASES)
def test_judges(judged, name):
    _, killed, text = CASES[name]
    (line,) = [line for line in judged.stdout.splitlines()
               if line.startswith((f"killed    {name} ", f"SURVIVED  {name} "))]
    assert line.startswith("killed" if killed else "SURVIVED"), judged.stdout
    assert text in line


def test_adds_up(judged):
    killed = sum(killed for _, killed, _ in CASES.values())
    lines = judged.stdout.splitlines()
    assert lines[-1] == f"{killed} passed, {len(CASES) - killed} failed"
    assert judged.returncode == 1
    assert "survived: unseen" in lines and "survived: killed" not in lines


def test_shows_why_nothing_was_built(judged):
    assert "forty" in judged.stdout


def test_selection_that_is_killed_passes(toy):
    done = run_mutants(toy, "--only=killed")
    assert done.stdout.splitlines()[-1] == "1 passed, 0 failed", done.stderr
    assert done.returncode == 0


def test_empty_selection_fails(toy):
    done = run_mutants(toy, "--only=no such")
    assert done.stdout.splitlines()[-1] == "0 passed, 1 failed", done.stderr
    assert done.returncode == 1
