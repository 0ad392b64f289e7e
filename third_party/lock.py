"""Writes the lock files of Python's packages and of nvcc from their .in files.

Run it with the Python and on the kind of machine that the locks are for:
    python3 third_party/lock.py
Exact versions and the sha256 of the one wheel that fits, for every package
that pip would install; no index is named.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOCKED = ["python/requirements", "third_party/nvcc/nvcc"]  # .in, .lock


def Resolve(pip_python, requirements):
    """pip's report of what it would install into an empty environment."""
    out = subprocess.run(
        [pip_python, "-m", "pip", "install", "--quiet", "--dry-run",
         "--ignore-installed", "--only-binary=:all:", "--report=-",
         "-r", requirements],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out)["install"]


def Line(item):
    name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
    version = item["metadata"]["version"]
    digest = item["download_info"]["archive_info"]["hash"]
    algorithm, value = digest.split("=", 1)
    assert algorithm == "sha256", digest
    return f"{name}=={version} \\\n    --hash=sha256:{value}\n"


def Write(pip_python, name):
    path = os.path.join(ROOT, name)
    lines = sorted(map(Line, Resolve(pip_python, path + ".in")))
    head = (f"# Written by third_party/lock.py from {os.path.basename(name)}.in"
            f": CPython {sys.version_info[0]}.{sys.version_info[1]}, "
            "x86-64 Linux.\n")
    with open(path + ".lock", "w", encoding="utf-8") as lock:
        lock.write(head + "".join(lines))
    print(f"{path}.lock: {len(lines)} packages")


def main():
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
        for name in LOCKED:
            Write(os.path.join(scratch, "bin", "python3"), name)


if __name__ == "__main__":
    main()
