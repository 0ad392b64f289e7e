"""File systems of Debian 12, made by mmdebstrap and kept between runs."""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess

SUITE = "bookworm"
# As debian:12-slim leaves them out.
OPTIONS = ["--dpkgopt=path-exclude=/usr/share/man/*",
           "--dpkgopt=path-exclude=/usr/share/info/*",
           "--dpkgopt=path-exclude=/usr/share/locale/*",
           "--dpkgopt=path-exclude=/usr/share/doc/*",
           "--dpkgopt=path-include=/usr/share/doc/*/copyright"]


def cache():
    folder = os.environ.get("SHARDPLANE_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or
        os.path.expanduser("~/.cache"), "shardplane")
    return pathlib.Path(folder) / "debian"


def root(packages, variant="minbase"):
    """The folder: a root with these packages; variant "extract": merely
    unpacked, with what they depend on. Nobody writes there."""
    wanted = json.dumps([SUITE, variant, OPTIONS, sorted(packages)])
    name = hashlib.sha256(wanted.encode()).hexdigest()[:16]
    made = cache() / name
    cache().mkdir(parents=True, exist_ok=True)
    # One at a time makes it, the others wait for it.
    with open(cache() / f"{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _make(made, packages, variant)
    return made


def _make(made, packages, variant):
    half = made.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    done = subprocess.run(
        ["mmdebstrap", "--quiet", f"--variant={variant}", *OPTIONS,
         f"--include={','.join(packages)}", SUITE, half],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
        check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    # A container runtime puts its own over these.
    for name in ("hosts", "hostname", "resolv.conf"):
        (half / "etc" / name).write_text("")
    half.rename(made)
