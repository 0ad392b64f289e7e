"""The table of planted faults: *.toml in this folder, one [[mutant]] each.

    [[mutant]]
    name = "lease-never-ends"
    breaks = "a worker that no longer renews its lease is never declared LOST"
    file = "coordinator/worker_registry.cc"
    tests = ["//coordinator:worker_registry_test"]
    old = '''worker.lease_end < now'''
    new = '''worker.lease_end == absl::InfiniteFuture()'''

The old text has to stand in the file exactly once. A test is a Bazel target or
a pytest id (`tests/client/test_plan.py::test_name`); each has to go red, and a
test that runs into its time limit has only where `may_hang` is true.
"""

import collections
import dataclasses
import pathlib
import re
import tomllib


FORMAT_TEST = "format_test"  # third_party/clang/format.bzl


class NoMatch(Exception):
    """The table no longer fits the sources."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    breaks: str  # what goes wrong where this fault is
    file: str
    tests: tuple
    old: str
    new: str
    may_hang: bool = False

    def __post_init__(self):
        object.__setattr__(self, "tests", tuple(self.tests))

    def planted(self, text):
        """The file's text with the fault."""
        count = text.count(self.old)
        if count != 1:
            raise NoMatch(f"{self.file}: expected the old text once, got: "
                          f"{count} times")
        return text.replace(self.old, self.new)

    def mentions(self, text):
        return any(text in field
                   for field in (self.name, self.file, *self.tests))


def read_table(folder):
    mutants = []
    for path in sorted(pathlib.Path(folder).glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        mutants += [Mutant(**row) for row in table["mutant"]]
    return mutants


def is_label(test):
    return test.startswith("//")


def _has_test(root, test):
    if is_label(test):  # a test's target has the name of its source
        folder, _, name = test[2:].partition(":")
        if name == FORMAT_TEST:
            return "format_test()" in (root / folder / "BUILD.bazel").read_text(
                encoding="utf-8")
        return (root / folder / f"{name}.cc").is_file()
    file, *names = test.split("[")[0].split("::")
    pattern = rf"^\s*def {names[-1]}\(" if names else ""
    path = root / file
    return path.is_file() and re.search(
        pattern, path.read_text(encoding="utf-8"), re.MULTILINE)


def problems_of(mutant, root):
    """Sentences: what keeps the mutant from being tried on these sources."""
    path = root / mutant.file
    if not path.is_file():
        yield f"{mutant.name}: no such file: {mutant.file}"
        return
    try:
        if mutant.planted(path.read_text(encoding="utf-8")) == path.read_text(
                encoding="utf-8"):
            yield f"{mutant.name}: the fault changes nothing"
    except NoMatch as problem:
        yield f"{mutant.name}: {problem}"
    if not mutant.tests:
        yield f"{mutant.name}: no test is named"
    for test in mutant.tests:
        if not _has_test(root, test):
            yield f"{mutant.name}: no such test: {test}"


def problems(mutants, root):
    names = collections.Counter(m.name for m in mutants)
    yield from (f"{name}: is there {count} times"
                for name, count in names.items() if count > 1)
    for mutant in mutants:
        yield from problems_of(mutant, pathlib.Path(root))
