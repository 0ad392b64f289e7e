#!/bin/bash
# In a folder that pack.sh has filled, on a machine with a GPU: every test
# tagged gpu. $PYTHON (python3) must have torch 2.11.0+cu130, pytest, grpcio and
# protobuf. With another NCCL than torch's: LD_PRELOAD=.../libnccl.so.2.
set -uo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-python3}"
# shellcheck source=deploy/portable/environment.sh
. "$here/environment.sh" || exit 1
failed=0
for test in "$here"/gpu_tests/*; do
  SHARDPLANE_TEST_DEVICE=cuda timeout 300 "$test" || failed=1
done
# The same through the host's memory, without NCCL.
for name in collectives torch_executor; do
  SHARDPLANE_TEST_DEVICE=cuda SHARDPLANE_TEST_COLLECTIVES=shm \
    timeout 300 "$here/gpu_tests/${name}_gpu_test" || failed=1
done
"$python" -m pytest -q -rs -m gpu --import-mode=importlib \
  --rootdir="$here" -p no:cacheprovider "$here/tests/gpu" || failed=1
exit "$failed"
