"""What ./shardplane says and installs, without installing anything."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = ["demo", "up", "test", "bench", "python", "build"]
NOBODY = 65534


def run(*args, root=ROOT, prefix=(), **options):
    return subprocess.run([*prefix, str(root / "shardplane"), *args],
                          capture_output=True, text=True, timeout=120,
                          stdin=subprocess.DEVNULL, **options)


def test_help_names_every_command():
    result = run("help")
    assert result.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command):
    for words in (("help", command), (command, "--help")):
        result = run(*words)
        assert result.returncode == 0, result.stderr
        assert f"usage: ./shardplane {command}" in result.stdout


def test_help_of_demo_names_every_demo():
    listed = run("help", "demo").stdout
    for path in (ROOT / "python/shardplane/demos").glob("*.py"):
        if "def main(" in path.read_text():
            assert f"\n  {path.stem} " in listed


def test_unknown_command_exits_2():
    result = run("frobnicate")
    assert result.returncode == 2
    assert "frobnicate" in result.stderr


@pytest.fixture
def checkout():
    """A copy of what the launcher reads, in a folder that anyone may read:
    pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "checkout"
        (root / "python").mkdir(parents=True)
        shutil.copy(ROOT / "shardplane", root)
        shutil.copytree(ROOT / "third_party", root / "third_party")
        shutil.copy(ROOT / "python/requirements.lock", root / "python")
        (root / "cache").mkdir()
        (root / "cache").chmod(0o777)
        for path in (pathlib.Path(folder), root):
            path.chmod(0o755)
        yield root


def test_without_root_or_sudo_it_says_what_to_install(checkout):
    with open(checkout / "third_party/packages.debian", "a") as packages:
        packages.write("shardplane-no-such-package  # for this test\n")
    as_nobody = () if os.getuid() else (
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    result = run("build", root=checkout, prefix=as_nobody,
                 env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                      "SHARDPLANE_CACHE": str(checkout / "cache")})
    assert result.returncode == 3, result.stderr
    command = result.stdout.strip().splitlines()[-1]
    assert command.startswith("apt-get update && apt-get install")
    assert command.endswith("shardplane-no-such-package")
    assert "without root or sudo" in result.stderr


def test_links_into_another_cache_are_dropped(checkout, tmp_path):
    """Bazel would take for packages what is behind them."""
    cache = tmp_path / "cache"
    own, foreign = checkout / "bazel-bin", checkout / "bazel-other-out"
    own.symlink_to(cache / "bazel" / "x" / "execroot")
    foreign.symlink_to(tmp_path)
    (checkout / "bazel-notes").write_text("no link")
    subprocess.run(
        ["bash", "-euc", ". third_party/setup.sh; drop_foreign_links"],
        cwd=checkout, check=True, timeout=60, stdin=subprocess.DEVNULL,
        env=dict(os.environ, ROOT=str(checkout), SHARDPLANE_CACHE=f"{cache}/"))
    assert own.is_symlink() and not foreign.is_symlink()
    assert (checkout / "bazel-notes").exists() and tmp_path.exists()


def test_a_second_call_starts_in_seconds(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import shardplane, torch, sys\n"
                      "print(torch.__version__, sys.argv[1:])\n")
    began = time.monotonic()
    result = run("python", str(script), "--flag")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("['--flag']")
    assert time.monotonic() - began < 60  # seconds, beside other work


@pytest.mark.parametrize("lock, least", [
    ("python/requirements.lock", 20), ("third_party/nvcc/nvcc.lock", 4)])
def test_lock_file_pins_and_hashes_everything_and_names_no_registry(
        lock, least):
    text = (ROOT / lock).read_text()
    assert "://" not in text
    entries = [e for e in text.replace("\\\n", " ").splitlines()
               if e.strip() and not e.startswith("#")]
    assert len(entries) >= least
    for entry in entries:
        assert "==" in entry and "--hash=sha256:" in entry, entry
