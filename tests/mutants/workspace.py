"""A copy of the sources in which faults are planted; the checkout stays whole.

The copy lies in the cache folder and is kept: with Bazel's output folder for
it, so that a later run builds only what has changed since.
"""

import contextlib
import fcntl
import filecmp
import importlib.util
import os
import pathlib
import shutil

# Not sources: what git ignores. Links are Bazel's, names with a dot that are
# folders are tools'.
_SKIPPED = {"__pycache__", "shared"}


def _sources(root):
    """Paths of the files below, from the root."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders
                      if name not in _SKIPPED and not name.startswith(".")
                      and not os.path.islink(os.path.join(folder, name))]
        for name in files:
            path = pathlib.Path(folder, name)
            if not path.is_symlink() and path.suffix != ".pyc":
                yield path.relative_to(root)


def synchronize(source, target):
    """Makes the target's files those of the source; equal ones stay as they
    are, dates and all, so that Bazel need not look at them again."""
    wanted = set(_sources(source))
    for path in set(_sources(target)) - wanted:
        (target / path).unlink()
    for path in wanted:
        to = target / path
        if not to.is_file() or not filecmp.cmp(source / path, to,
                                               shallow=False):
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / path, to)


@contextlib.contextmanager
def locked(folder):
    """One process at a time has the folder, which is made; others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def planted(mutant, root):
    """The mutant's fault is in the tree, until the end of the block."""
    path = root / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(mutant.planted(text), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def load_tools(root):
    """run_tests.py of the tree at `root`: it runs that tree's tests."""
    spec = importlib.util.spec_from_file_location(
        "run_tests", root / "third_party" / "run_tests.py")
    tools = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tools)
    return tools
