"""./shardplane test --mutants: every planted fault must turn a test red."""

import hashlib
import os
import pathlib

from tests.mutants import workspace
from tests.mutants.judge import Tests, judge_all
from tests.mutants.table import read_table

# The copy's Bazel ends by itself soon after the run, however that ended.
_IDLE_SECONDS = "300"


def _name_of(root):
    """Two checkouts have two copies."""
    return hashlib.sha256(str(root).encode()).hexdigest()[:12]


def run(root, cache, only="", bazel_options=(), say=print):
    """Whether all mutants of the table that mention `only` are killed.

    `root`: the checkout, which stays as it is; `cache`: the folder for copies.
    """
    root = pathlib.Path(root).resolve()
    mutants = [m for m in read_table(root / "tests" / "mutants")
               if m.mentions(only)]
    if not mutants:
        say("no mutant was selected\n0 passed, 1 failed")
        return False
    os.environ["SHARDPLANE_BAZEL_IDLE_SECONDS"] = _IDLE_SECONDS
    copy = pathlib.Path(cache, "mutants", _name_of(root)).resolve()
    with workspace.locked(copy):
        workspace.synchronize(root, copy)
        survivors = judge_all(mutants, copy, Tests(copy, bazel_options), say)
    say()
    for name in survivors:
        say(f"survived: {name}")
    say(f"{len(mutants) - len(survivors)} passed, {len(survivors)} failed")
    return not survivors
