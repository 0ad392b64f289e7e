"""Adds the generated stubs to the wheel; pyproject.toml has all else."""

import pathlib
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


setuptools.setup(cmdclass={"build_py": BuildWithStubs})
