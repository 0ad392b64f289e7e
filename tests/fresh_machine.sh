#!/bin/bash
# Runs the launcher on a machine that has nothing but a minimal Debian 12: tests
# that the set-up installs all that is needed. Not part of ./shardplane test: it
# downloads 5 GB and takes as long as everything together.
#
#   tests/fresh_machine.sh FOLDER [COMMAND...]
#
# FOLDER gets the root file system (kept, and used again the next time) and a
# clone of this checkout's HEAD; COMMAND is run in the clone, "./shardplane test"
# if none is given. Needs root, mmdebstrap, bubblewrap and git. What the machine
# needs to reach its package registries (pip's configuration, certificates) is
# bound read-only; name more in FRESH_MACHINE_BIND, separated by colons.
set -euo pipefail

if [[ $# -lt 1 ]]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
fi

checkout="$(cd "$(dirname "$0")/.." && pwd)"
mkdir -p "$1"
folder="$(cd "$1" && pwd)"
shift
[[ $# -gt 0 ]] || set -- ./shardplane test
root="$folder/root"

if [[ ! -e "$root/etc/debian_version" ]]; then
  mmdebstrap --variant=minbase --include=python3,ca-certificates \
    bookworm "$root.tar"
  mkdir -p "$root"
  tar -C "$root" -xf "$root.tar"
  rm "$root.tar"
fi

rm -rf "$root/src"
git clone --quiet --no-local "$checkout" "$root/src"

binds=()
IFS=: read -ra wanted <<<"/etc/resolv.conf:/etc/hosts:\
/etc/pip.conf:${PIP_CERT:-}:${PIP_CONFIG_FILE:-}:${PIP_FIND_LINKS:-}:\
${FRESH_MACHINE_BIND:-}"
for path in "${wanted[@]}"; do
  if [[ -n "$path" && -e "$path" ]]; then
    binds+=(--ro-bind "$(readlink -f "$path")" "$path")
  fi
done

environment=(--setenv HOME /root --setenv LANG C.UTF-8
  --setenv PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
while IFS='=' read -r name _; do
  environment+=(--setenv "$name" "${!name}")
done < <(env | grep -E '^(PIP_|[a-z]+_proxy=|[A-Z]+_PROXY=)' || true)

# A tmpfs is made 1777 by the shell inside: apt's own user must write there.
exec bwrap --bind "$root" / --proc /proc --dev /dev --tmpfs /tmp \
  "${binds[@]}" --clearenv "${environment[@]}" --die-with-parent \
  --unshare-pid --unshare-ipc --unshare-uts --hostname fresh \
  --chdir /src /bin/bash -c 'chmod 1777 /tmp; exec "$@"' bash "$@"
