# shellcheck shell=bash
# To be sourced in a folder that pack.sh has filled: where its binaries find
# libraries, and Python what it imports. $PYTHON (python3) must have torch
# 2.11.0+cu130, grpcio and protobuf.
folder="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
torch="$("${PYTHON:-python3}" -c 'import torch; print(torch.__path__[0])')" ||
  return 1
export LD_LIBRARY_PATH="$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export SHARDPLANE_BIN_DIR="$folder/bin"
export PYTHONPATH="$folder/python:$folder/stubs:$folder"
unset folder torch
