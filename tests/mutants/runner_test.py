"""./shardplane test --mutants on a small tree with faults of every kind."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.mutants import run_mutants, workspace
from tests.mutants.table import Mutant

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The launcher's: it holds the project's Python, which runs this. The toy's
# folder is kept, as Bazel needs long for the first build of a folder.
CACHE = pathlib.Path(sys.prefix).parent
TOY = CACHE / "mutants" / "toy"

FILES = {
    "toy/BUILD.bazel": """
cc_library(name = "a", srcs = ["a.cc"], hdrs = ["a.h"])
cc_test(name = "a_test", srcs = ["a_test.cc"], deps = [":a"])
cc_test(name = "bad_test", srcs = ["bad_test.cc"])
""",
    "toy/a.h": "int Answer();\nint Unseen();\n",
    "toy/a.cc": """#include "toy/a.h"
int Answer() { return 42; }
int Unseen() { return 7; }
""",
    "toy/a_test.cc": """#include "toy/a.h"
int main() { return Answer() == 42 ? 0 : 1; }
""",
    "toy/bad_test.cc": "int main() { return 1; }\n",
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
    "proto/BUILD.bazel": 'filegroup(name = "all_of_it")\n',
}

A_TEST = "//toy:a_test"
ANSWER = {"file": "toy/a.cc", "old": "return 42;"}
DATA = {"file": "toy/data.txt", "old": "one two"}
LOOP = "volatile bool on = true; while (on) {} return 42;"
# Changes of a mutant, whether it is killed, and what is said of it.
CASES = {
    "killed": ({**ANSWER, "new": "return 41;"}, True, A_TEST),
    "crash": ({**ANSWER, "new": "__builtin_trap();"}, True, A_TEST),
    "unseen": ({"file": "toy/a.cc", "old": "return 7;", "new": "return 8;"},
               False, f"{A_TEST} passes"),
    "stale": ({"file": "toy/a.cc", "old": "return 43;", "new": "return 41;"},
              False, "expected the old text once, got: 0 times"),
    "no-file": ({"file": "toy/b.cc", "old": "x", "new": "y"}, False, "toy/b.cc"),
    "no-compile": ({**ANSWER, "new": "return forty;"}, False, "was not built"),
    "loops": ({**ANSWER, "new": LOOP}, False, "time limit"),
    "loops-as-said": ({**ANSWER, "new": LOOP, "may_hang": True}, True, A_TEST),
    "fails-anyway": ({**ANSWER, "new": "return 41;",
                      "tests": ["//toy:bad_test"]}, False,
                     "fail without the fault too"),
    "python": ({**DATA, "new": "two one",
                "tests": ["toy/test_a.py::test_first"]}, True, "test_first"),
    "python-unseen": ({**DATA, "new": "one three",
                       "tests": ["toy/test_a.py::test_second"]}, False,
                      "passes"),
    "python-fixture": ({**DATA, "new": "one",
                        "tests": ["toy/test_a.py::test_second"]}, False,
                       "did not run"),
    "one-of-two": ({**ANSWER, "new": "return 41;",
                    "tests": [A_TEST, "toy/test_a.py::test_first"]}, False,
                   "test_first passes"),
}


def toml(name, changes):
    row = {"name": name, "breaks": "the toy", "tests": [A_TEST],
           "may_hang": False, **changes}
    return "[[mutant]]\n" + "".join(
        f"{key} = {str(value).lower() if key == 'may_hang' else repr(value)}\n"
        for key, value in row.items())


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


@pytest.fixture(scope="module")
def judged(toy):
    said, before = [], contents(toy)
    passed = run_mutants.run(
        toy, CACHE, bazel_options=["--test_timeout=3"],
        say=lambda text="", **_: said.append(text))
    assert contents(toy) == before
    return passed, said


@pytest.mark.parametrize("name", CASES)
def test_judges(judged, name):
    _, killed, text = CASES[name]
    (line,) = [s for s in judged[1] if s.split()[1:2] == [name]
               and s.startswith(("killed ", "SURVIVED "))]
    assert line.startswith("killed" if killed else "SURVIVED"), line
    assert text in line


def test_adds_up(judged):
    passed, said = judged
    killed = sum(killed for _, killed, _ in CASES.values())
    assert not passed
    assert said[-1] == f"{killed} passed, {len(CASES) - killed} failed"
    assert "survived: unseen" in said and "survived: killed" not in said


def test_compiler_errors_are_shown(judged):
    assert any("forty" in text for text in judged[1])


def test_selection_that_is_killed_passes(toy):
    said = []
    assert run_mutants.run(toy, CACHE, "killed",
                           say=lambda text="", **_: said.append(text))
    assert said[-1] == "1 passed, 0 failed"


def test_empty_selection_fails(toy):
    said = []
    assert not run_mutants.run(toy, CACHE, "no such", say=said.append)
    assert said[-1].endswith("0 passed, 1 failed")


def test_command_line(toy):
    """What the toy's own launcher says of one mutant that survives."""
    done = subprocess.run(
        [toy / "shardplane", "test", "--mutants", "--only=stale"],
        check=False, text=True, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=600)
    assert done.stdout.splitlines()[-1] == "0 passed, 1 failed", done.stderr
    assert done.returncode == 1
    assert "SURVIVED  stale" in done.stdout


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


def test_fault_goes_whatever_happens(tmp_path):
    (tmp_path / "f").write_text("good")
    mutant = Mutant("m", "", "f", ["//t:t"], "good", "bad")
    with pytest.raises(KeyboardInterrupt):
        with workspace.planted(mutant, tmp_path):
            assert (tmp_path / "f").read_text() == "bad"
            raise KeyboardInterrupt
    assert (tmp_path / "f").read_text() == "good"
