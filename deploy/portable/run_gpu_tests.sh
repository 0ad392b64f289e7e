#!/bin/bash
# run_gpu_tests.sh [NAME...]: in a folder that pack.sh has filled, on a machine
# with a GPU, every test tagged gpu, or those whose names begin so. Each has
# $SHARDPLANE_TEST_SECONDS (180): one that hangs is ended, and the next begins.
# $PYTHON (python3) must have torch 2.11.0+cu130, pytest, grpcio and protobuf.
# With another NCCL than torch's: LD_PRELOAD=.../libnccl.so.2.
set -uo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-python3}"
seconds="${SHARDPLANE_TEST_SECONDS:-180}"
# shellcheck source=deploy/portable/environment.sh
. "$here/environment.sh" || exit 1
wanted=("$@")
failures=()

is_wanted() {
  [[ ${#wanted[@]} -eq 0 ]] && return
  for prefix in "${wanted[@]}"; do
    [[ $1 == "$prefix"* ]] && return
  done
  return 1
}

# run NAME COMMAND...
run() {
  local name="$1" begin=$SECONDS
  shift
  is_wanted "$name" || return
  echo "=== $name"
  timeout --kill-after=10 "$seconds" "$@"
  local code=$?
  echo "=== $name: code $code, $((SECONDS - begin)) s"
  [[ $code -eq 0 ]] || failures+=("$name")
}

export SHARDPLANE_TEST_DEVICE=cuda
for test in "$here"/gpu_tests/*; do
  run "$(basename "$test")" "$test"
done
# The same through the host's memory, without NCCL.
export SHARDPLANE_TEST_COLLECTIVES=shm
for name in collectives torch_executor; do
  run "${name}_staged_gpu_test" "$here/gpu_tests/${name}_gpu_test"
done
# What these set is for conformance tests; here each says its own device.
unset SHARDPLANE_TEST_DEVICE SHARDPLANE_TEST_COLLECTIVES
for test in "$here"/tests/gpu/test_*.py; do
  # Stacks of all threads, should one test take half of the time.
  run "$(basename "$test" .py)" \
    "$python" -u -m pytest -v -rs -m gpu --import-mode=importlib \
    -o faulthandler_timeout=$((seconds / 2)) --rootdir="$here" \
    -p no:cacheprovider "$test"
done
echo "=== ${#failures[@]} failed: ${failures[*]-}"
[[ ${#failures[@]} -eq 0 ]]
