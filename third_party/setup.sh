# shellcheck shell=bash
# Sourced by ./shardplane: packages, the project's Python, and Bazel.
# Sets CACHE, PACKAGES, VENV and NVCC; needs ROOT.

CACHE="${SHARDPLANE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/shardplane}"
PACKAGES=("$ROOT/third_party/packages.debian")
LOCK="$ROOT/python/requirements.lock"
VENV="$CACHE/venv-$(sha256sum "$LOCK" | cut -c1-16)"
# The compiler of the kernels for GPUs: SHARDPLANE_NVCC=PATH is another one than
# the lock's, and SHARDPLANE_NVCC=none builds without kernels.
NVCC_LOCK="$ROOT/third_party/nvcc/nvcc.lock"
NVCC_FOLDER="$CACHE/nvcc-$(sha256sum "$NVCC_LOCK" | cut -c1-16)"
NVCC="${SHARDPLANE_NVCC:-$NVCC_FOLDER/nvidia/cu13/bin/nvcc}"

say() { echo "shardplane: $*" >&2; }

# Runs a command; its output goes to a file, and is shown when it fails.
logged() {
  if ! "$@" >"$CACHE/setup.log" 2>&1 </dev/null; then
    tail -n 40 "$CACHE/setup.log" >&2
    say "failed: $* (all of it: $CACHE/setup.log)"
    exit 1
  fi
}

package_names() { sed 's/#.*//; s/[[:space:]]//g; /^$/d' "${PACKAGES[@]}"; }

# Those of the list that are not installed, one a line.
missing_packages() {
  # shellcheck disable=SC2046
  comm -23 <(package_names | sort -u) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $(package_names) \
        2>/dev/null | sed -n 's/^installed //p' | sort -u)
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "this is not Debian: install what corresponds to ${PACKAGES[*]} by hand"
    exit 3
  fi
  local missing sudo=()
  mapfile -t missing < <(missing_packages)
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if [[ $(id -u) -ne 0 ]]; then
    sudo=(sudo -n)
    if ! sudo -n true 2>/dev/null; then
      say "Debian packages are missing; without root or sudo, have somebody run:"
      echo "apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
      exit 3
    fi
  fi
  say "installing Debian packages: ${missing[*]}"
  logged "${sudo[@]}" apt-get -q update
  logged "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qy \
    -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}"
}

# The mark is written last: a folder without it was left half done.
install_python() {
  [[ ! -e "$VENV/.complete" ]] || return 0
  say "installing Python packages into $VENV (about 5 GB, minutes)"
  rm -rf "$VENV"
  /usr/bin/python3 -m venv "$VENV" >&2
  logged "$VENV/bin/python3" -m pip install --disable-pip-version-check \
    --no-compile --require-hashes --no-deps --only-binary=:all: -r "$LOCK"
  touch "$VENV/.complete"
}

# Whether NVCC is the lock's and not there yet.
misses_nvcc() {
  [[ -z "${SHARDPLANE_NVCC:-}" && ! -e "$NVCC_FOLDER/.complete" ]]
}

install_nvcc() {
  misses_nvcc || return 0
  say "installing nvcc into $NVCC_FOLDER (260 MB)"
  rm -rf "$NVCC_FOLDER"
  logged "$VENV/bin/python3" -m pip install --disable-pip-version-check \
    --no-compile --require-hashes --no-deps --only-binary=:all: \
    --target "$NVCC_FOLDER" -r "$NVCC_LOCK"
  touch "$NVCC_FOLDER/.complete"
}

# For the tests: they start Python often, and it must not write beside the
# sources that it reads, so each would compile torch anew.
compile_python() {
  [[ ! -e "$VENV/.compiled" ]] || return 0
  say "compiling Python packages (half a minute)"
  logged "$VENV/bin/python3" -m compileall -q -j 0 "$VENV/lib"
  touch "$VENV/.compiled"
}

# Cheap when all is there. One process at a time installs, the others wait.
setup() {
  mkdir -p "$CACHE"
  if [[ ! -e "$VENV/.complete" || -n "$(missing_packages 2>&1)" ]] ||
      misses_nvcc; then
    # flock is in util-linux, an essential package.
    exec 9>"$CACHE/setup.lock"
    flock 9
    install_packages 9>&-
    install_python 9>&-
    install_nvcc 9>&-
    exec 9>&-
  fi
}

# Another text after each change of the system's packages.
dpkg_status() { stat -c %y /var/lib/dpkg/status 2>/dev/null || true; }

# Bazel's links into another cache's folders: what is behind them would be
# packages to this one.
drop_foreign_links() {
  local link own
  own="$(realpath -m "$CACHE")/bazel/"
  for link in "$ROOT"/bazel-*; do
    if [[ -L "$link" && "$(readlink "$link")" != "$own"* ]]; then
      rm -f "$link"
    fi
  done
}

# One Bazel at a time for all checkouts. -o: Bazel's server stays behind and
# must not inherit the lock. SHARDPLANE_BAZEL_IDLE_SECONDS ends it early.
run_bazel() {
  local command="$1" idle="${SHARDPLANE_BAZEL_IDLE_SECONDS:-}"
  shift
  drop_foreign_links
  (cd "$ROOT" && flock -o "$CACHE/bazel.lock" bazel \
    --output_user_root="$CACHE/bazel" ${idle:+"--max_idle_secs=$idle"} "$command" \
    --disk_cache="$CACHE/disk" \
    --repo_env=SHARDPLANE_PYTHON="$VENV/bin/python3" \
    --repo_env=SHARDPLANE_NVCC="$NVCC" \
    --repo_env=SHARDPLANE_DPKG_STATUS="$(dpkg_status)" "$@")
}

python_environment() {
  export PYTHONPATH="$ROOT/python:$ROOT/bazel-bin/proto${PYTHONPATH:+:$PYTHONPATH}"
  export SHARDPLANE_BIN_DIR="$ROOT/bazel-bin"
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
}
