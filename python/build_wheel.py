"""Builds the wheel of the client: ./shardplane python FILE FOLDER.

Without a network: with the setuptools that is installed, of which
requirements.lock has the version that pyproject.toml asks for. In a copy, so
that nothing is written beside the sources.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def build(folder):
    """The path of the wheel in `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("python", "proto"):
            shutil.copytree(HERE.parent / name, pathlib.Path(scratch) / name,
                            ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index",
             "--no-build-isolation", "--no-deps",
             "--disable-pip-version-check", f"--wheel-dir={folder}",
             pathlib.Path(scratch) / "python"], check=True)
    (wheel,) = pathlib.Path(folder).glob("shardplane-*.whl")
    return wheel


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: build_wheel.py FOLDER")
    print(build(sys.argv[1]))


if __name__ == "__main__":
    main()
