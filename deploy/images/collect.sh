#!/bin/bash
# collect.sh BIN OUT [--link]: fills OUT with what the images copy.
#
#   OUT/bin   the binaries of BIN (bazel-bin), stripped
#   OUT/cpu   libraries of Python's wheels that the worker needs, laid out as in
#             site-packages, by which they find each other
#   OUT/gpu   those that the worker for GPUs needs beside
#
# --link: symbolic links to the libraries instead of copies.
set -euo pipefail

bin="$1"
out="$2"
copy=(cp -L)
[[ "${3:-}" != --link ]] || copy=(ln -s)

# Absolute paths of all that is linked by these, site-packages' only.
linked() {
  ldd "$@" | awk '$2 == "=>" && $3 ~ "/site-packages/" { print $3 }' |
    xargs -r realpath | sort -u
}

# What libtorch_cuda and cuDNN load by name when they first use it.
loaded_later() {
  echo "$1"/torch/lib/lib{caffe2_nvrtc,torch_cuda_linalg}.so
  echo "$1"/nvidia/cudnn/lib/libcudnn_*.so.9
  echo "$1"/nvidia/cu13/lib/libnvrtc{,-builtins}.so.13*
}

# place FOLDER SITE LIBRARY...: below FOLDER, where they lie below SITE.
place() {
  local folder="$1" site="$2" library target
  shift 2
  for library in "$@"; do
    target="$folder/${library#"$site"/}"
    mkdir -p "$(dirname "$target")"
    "${copy[@]}" "$library" "$target"
  done
}

mkdir -p "$out/bin"
install -s "$bin/coordinator/shardplane_coordinator" \
  "$bin/worker/shardplane_worker" "$bin/worker/shardplane_worker_cuda" \
  "$out/bin/"

# Asked of the originals: where their libraries lie, they know by RPATH.
mapfile -t cpu < <(linked "$bin/worker/shardplane_worker")
torch="$(printf '%s\n' "${cpu[@]}" | grep '/torch/lib/libtorch_cpu.so$')"
site="${torch%/torch/lib/libtorch_cpu.so}"
read -ra later <<<"$(loaded_later "$site" | tr '\n' ' ')"
mapfile -t gpu < <(comm -13 <(printf '%s\n' "${cpu[@]}") <(
  { linked "$bin/worker/shardplane_worker_cuda" "${later[@]}"
    realpath "${later[@]}"; } | sort -u))
place "$out/cpu" "$site" "${cpu[@]}"
place "$out/gpu" "$site" "${gpu[@]}"
