"""Adds the generated stubs to the wheel; pyproject.toml has all else."""

import pathlib
import re
import subprocess

import setuptools
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent
PROTOS = ("coordinator", "types")


class BuildWithStubs(build_py):
    """What clients call: worker.proto is between the daemons. With .pyi, so
    that messages are typed."""

    def run(self):
        super().run()
        protos = HERE.parent / "proto"
        out = pathlib.Path(self.build_lib).resolve()
        subprocess.run(
            ["protoc", f"-I{protos}", f"--python_out={out}",
             f"--pyi_out={out}", f"--grpc_out={out}",
             "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin",
             *(f"shardplane/v1/{name}.proto" for name in PROTOS)],
            check=True)
        for path in (out / "shardplane" / "v1").glob("*.pyi"):
            path.write_text(_readable(path.read_text("utf-8")), "utf-8")


def _readable(stub):
    """protoc's .pyi of a message named None is no Python. At run time its
    name takes getattr."""
    stub = stub.replace("class None(", "class None_(")
    return re.sub(r"getattr\((\w+), 'None'\)", r"\1.None_", stub)


setuptools.setup(cmdclass={"build_py": BuildWithStubs})
