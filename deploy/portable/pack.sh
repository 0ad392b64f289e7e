#!/bin/bash
# pack.sh FOLDER: fills FOLDER with what a machine needs beside torch to run
# Shardplane, its GPU tests and its benchmark of a GPU. See docs/gpu.md.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
out="${1:?usage: pack.sh FOLDER}"
tests=({captured_run,captured_update,collectives,fused_kernels,host_staged_group,nccl_group,optimizers,stored_tensors,torch_executor,torch_tensors}_gpu_test)
binaries=(shardplane_coordinator shardplane_worker shardplane_worker_cuda)

"$root/shardplane" build //proto:py \
  "${binaries[@]/#///deploy/portable:}" "${tests[@]/#///deploy/portable:}" >&2

made="$root/bazel-bin/deploy/portable"
mkdir -p "$out"/{bin/coordinator,bin/worker,lib,python,stubs} \
  "$out"/{gpu_tests,tests,bench/measure}
out="$(cd "$out" && pwd)"
# Where LocalCluster looks for them under $SHARDPLANE_BIN_DIR.
install -s "$made/shardplane_coordinator" "$out/bin/coordinator/"
install -s "$made"/shardplane_worker{,_cuda} "$out/bin/worker/"
for name in "${tests[@]}"; do
  install -s "$made/$name" "$out/gpu_tests/"
done
# Debian has no static libraries of these.
ldd "$made/shardplane_coordinator" |
  awk '$1 ~ /^lib(civetweb|prometheus)/ { print $3 }' |
  xargs cp -L -t "$out/lib"
cp -r "$root/python/shardplane" "$out/python/"
# Of what tests import, all that a machine for torch does not have.
cp -r "$("$root/shardplane" python -c \
  'import expecttest; print(expecttest.__path__[0])')" "$out/python/"
(cd "$root/bazel-bin/proto" && find . -name '*_pb2*.py' -print0 |
  xargs -0 cp -L --parents -t "$out/stubs")
cp "$root"/tests/*.py "$out/tests/"
cp -r "$root"/tests/{conformance,differential,gpu,zoo} "$out/tests/"
cp "$root/bench/gpu.py" "$out/bench/"
cp "$root"/bench/measure/{__init__,figures,gpu_*}.py "$out/bench/measure/"
install "$root/deploy/portable/run_gpu_tests.sh" "$out/"
install -m 644 "$root/deploy/portable/environment.sh" "$out/"
find "$out" -name __pycache__ -prune -exec rm -rf {} +
chmod -R u+w "$out"
