"""run_gpu_tests.sh, with tests and a Python that only say what they are."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

PORTABLE = pathlib.Path(__file__).resolve().parents[2] / "deploy/portable"
SAY = ('#!/bin/sh\necho "$(basename "$0") on $SHARDPLANE_TEST_DEVICE '
       '$SHARDPLANE_TEST_COLLECTIVES"\n')
PYTHON = """#!/bin/sh
[ "$1" = -c ] && echo /torch && exit
for last; do true; done
echo "pytest on $SHARDPLANE_TEST_DEVICE of $(basename "$last")"
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def folder(tmp_path):
    for script in PORTABLE.glob("*.sh"):
        shutil.copy(script, tmp_path)
    for name in ("collectives", "optimizers", "torch_executor"):
        write(tmp_path / f"gpu_tests/{name}_gpu_test", SAY)
    write(tmp_path / "tests/gpu/test_gpu.py", "")
    write(tmp_path / "python", PYTHON)
    return tmp_path


def run(folder, *names, **environment):
    return subprocess.run(
        [folder / "run_gpu_tests.sh", *names], text=True, check=False,
        capture_output=True, timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHON": str(folder / "python"),
             **environment})


def ran(done):
    """(name, code) of each test, in their order."""
    return re.findall(r"=== (\w+): code (\d+),", done.stdout)


def test_all_run_and_say_how_they_went(folder):
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert ran(done) == [
        ("collectives_gpu_test", "0"), ("optimizers_gpu_test", "0"),
        ("torch_executor_gpu_test", "0"), ("collectives_staged_gpu_test", "0"),
        ("torch_executor_staged_gpu_test", "0"), ("test_gpu", "0")]
    for line in ("collectives_gpu_test on cuda \n",
                 "collectives_gpu_test on cuda shm\n",
                 "pytest on  of test_gpu.py\n", "=== 0 failed: \n"):
        assert line in done.stdout


def test_those_that_are_named(folder):
    assert ran(run(folder, "optimizers", "test_")) == [
        ("optimizers_gpu_test", "0"), ("test_gpu", "0")]


def test_one_that_hangs_leaves_others_time(folder):
    write(folder / "gpu_tests/collectives_gpu_test",
          "#!/bin/sh\necho began\nsleep 60\n")
    write(folder / "gpu_tests/optimizers_gpu_test", "#!/bin/sh\nexit 3\n")
    done = run(folder, "collectives_gpu", "optimizers", "test_",
               SHARDPLANE_TEST_SECONDS="1")
    assert done.returncode == 1
    assert ran(done) == [("collectives_gpu_test", "124"),
                         ("optimizers_gpu_test", "3"), ("test_gpu", "0")]
    assert "began\n" in done.stdout
    assert done.stdout.endswith(
        "=== 2 failed: collectives_gpu_test optimizers_gpu_test\n")
