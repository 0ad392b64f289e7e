"""Runs what docs/shardctl.md shows."""

import os
import pathlib
import re
import subprocess

import pytest

import shardplane as sp
from tests.docs.pages import blocks, page

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = page("shardctl.md")


def shardctl():
    done = subprocess.run([ROOT / "shardplane", "build",
                           "//client/shardctl:shardctl"], check=False,
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return pathlib.Path(os.environ["SHARDPLANE_BIN_DIR"]) / "client/shardctl"


def test_commands_of_the_page(tmp_path):
    (yaml,) = blocks(PAGE, "yaml")
    (tmp_path / "deployment.yaml").write_text(yaml, encoding="utf-8")
    commands = "".join(blocks(PAGE, "sh")).splitlines()
    assert len(commands) == 12
    path = f"{shardctl()}:{os.environ['PATH']}"
    with sp.LocalCluster(workers=2) as cluster:
        for command in commands:
            done = subprocess.run(
                ["bash", "-c", command], check=False, text=True, timeout=60,
                capture_output=True, cwd=tmp_path, env={
                    "PATH": path,
                    "SHARDPLANE_CONFIG": str(tmp_path / "config.yaml"),
                    "ADDRESS": cluster.address})
            assert done.returncode == 0, (command, done.stderr)
            assert done.stdout, command


@pytest.mark.parametrize("code", range(5))
def test_exit_codes_are_those_of_the_program(code):
    table = (ROOT / "client/shardctl/failure.h").read_text(encoding="utf-8")
    assert re.search(rf"= {code},", table)
    assert re.search(rf"^\| {code} \|", PAGE, re.MULTILINE)
