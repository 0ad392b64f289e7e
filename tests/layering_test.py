"""Checks the rules of the layers: who may include whom.

A rule is a function from a Tree (the includes of all files) to sentences, one
a violation. Each rule is also tried on a small tree that breaks it.
"""

import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Our own folders with C++ in them. A new folder gets its line here, or
# test_every_folder_has_a_line fails.
MAY_INCLUDE = {
    "common": {"common"},
    "telemetry": {"telemetry", "common"},
    "ipc": {"ipc", "common"},
    "proto": {"proto", "common"},
    "coordinator": {"coordinator", "telemetry", "proto", "ipc", "common"},
    "worker": {"worker", "telemetry", "proto", "ipc", "common"},
    "client": {"client", "proto"},
    "tests": {"tests", "client", "coordinator", "worker", "telemetry", "ipc",
              "proto", "common"},
    "bench": {"bench", "client", "coordinator", "worker", "telemetry", "ipc",
              "proto", "common"},
}
# Tests may also use the matchers.
TEST_ONLY = {"tests"}
TORCH = ("ATen/", "c10/", "torch/", "caffe2/", "gloo/")
# google/ here: protobuf's own headers and generated google/rpc.
GRPC = ("grpc/", "grpcpp/", "grpc++/", "google/")
GENERATED = re.compile(r"\.pb\.h$")
TEST_LIBRARIES = ("gtest/", "gmock/")
# Standard headers that bring a thread, a clock or a lock.
IMPURE = {"thread", "mutex", "shared_mutex", "condition_variable", "future",
          "atomic", "chrono", "ctime", "stop_token", "semaphore", "latch",
          "barrier", "filesystem", "fstream", "iostream"}
IMPURE_ABSL = ("absl/synchronization/", "absl/time/clock.h", "absl/flags/")
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


class Tree:
    """The C++ files below a folder, by path from it, with their includes."""

    def __init__(self, root):
        self.includes = {}
        for folder in sorted(p for p in pathlib.Path(root).iterdir()
                             if p.is_dir() and not p.is_symlink()
                             and not p.name.startswith((".", "bazel-"))):
            for path in sorted(folder.rglob("*")):
                if path.suffix in (".h", ".cc"):
                    name = path.relative_to(root).as_posix()
                    self.includes[name] = [
                        own or angled for own, angled in
                        INCLUDE.findall(path.read_text(encoding="utf-8"))]
        self.reach = functools.cache(self.reach)

    def own(self, include):
        """The file of the tree that `include` means; None for a foreign one."""
        return include if include in self.includes else None

    def reach(self, name):
        """include -> the chain of own files by which `name` reaches it."""
        chains, todo = {}, [(name, (name,))]
        visited = {name}
        while todo:
            current, chain = todo.pop(0)
            for include in self.includes[current]:
                chains.setdefault(include, chain)
                header = self.own(include)
                if header and header not in visited:
                    visited.add(header)
                    todo.append((header, chain + (header,)))
        return chains


def folder_of(name):
    return name.split("/", 1)[0]


def is_test(name):
    """A test, or what only tests share: fixtures."""
    return name.endswith(("_test.cc", "_for_test.h", "_fixture.h",
                          "_fixture.cc"))


def is_torch(include):
    return include.startswith(TORCH)


def is_grpc(include):
    return include.startswith(GRPC) or bool(GENERATED.search(include))


def common_is_pure(tree):
    for name, includes in tree.includes.items():
        if folder_of(name) != "common":
            continue
        for include in includes:
            if is_test(name) and include.startswith(
                    TEST_LIBRARIES + ("tests/",)):
                continue
            pure = (include.startswith("common/")
                    or (include.startswith("absl/")
                        and not include.startswith(IMPURE_ABSL))
                    or ("/" not in include and not include.endswith(".h")
                        and include not in IMPURE))
            if not pure:
                yield (f"{name}: common/ uses Abseil and the standard library "
                       f"only, without threads, clocks and files; got: {include}")


def folders_keep_their_arrows(tree):
    for name, includes in tree.includes.items():
        allowed = MAY_INCLUDE.get(folder_of(name), set())
        if is_test(name):
            allowed = allowed | TEST_ONLY
        for include in includes:
            target = folder_of(include)
            # Generated headers lie below proto/ without naming it.
            target = "proto" if target == "shardplane" else target
            if target in MAY_INCLUDE and target not in allowed:
                yield (f"{name}: {folder_of(name)}/ may include "
                       f"{', '.join(sorted(allowed))}; got: {include}")


def torch_stays_in_worker(tree):
    """And in bench/, which measures the worker's parts beside ATen."""
    for name, includes in tree.includes.items():
        if folder_of(name) not in ("worker", "bench"):
            for include in filter(is_torch, includes):
                yield f"{name}: torch is for worker/ alone; got: {include}"


def torch_and_grpc_never_meet(tree):
    for name in tree.includes:
        chains = tree.reach(name)
        torch = next((i for i in chains if is_torch(i)), None)
        grpc = next((i for i in chains if is_grpc(i)), None)
        if torch and grpc:
            yield (f"{name}: no file sees both torch and gRPC; got: "
                   f"{torch} (by {' -> '.join(chains[torch])}) and "
                   f"{grpc} (by {' -> '.join(chains[grpc])})")


def telemetry_knows_no_rpc(tree):
    for name in tree.includes:
        if (folder_of(name) == "telemetry"
                and not name.startswith("telemetry/rpc_")):
            for include in filter(is_grpc, tree.reach(name)):
                yield f"{name}: telemetry/ knows no gRPC; got: {include}"


# Of worker/shm, what reduces and what c10d sees. All else runs under the
# sanitizers, which know nothing of torch's libraries.
SHM_WITH_TORCH = ("reductions", "short_floats", "shm_call_parts", "shm_calls",
                  "shm_dim_calls", "shm_work", "shm_backend")


def shared_memory_needs_no_torch(tree):
    for name in tree.includes:
        if not name.startswith("worker/shm/"):
            continue
        stem = name.rsplit("/", 1)[1].split(".")[0].removesuffix("_test")
        if stem not in SHM_WITH_TORCH:
            for include in filter(is_torch, tree.reach(name)):
                yield f"{name}: torch is for the backend alone; got: {include}"


# What nvcc reads, beside fused.cu.
FOR_NVCC = {f"worker/kernels/{name}.h" for name in
            ("kernels", "lanes", "bodies")}


def kernels_need_no_torch(tree):
    """And what nvcc compiles no Abseil."""
    for name in tree.includes:
        if not name.startswith("worker/kernels/"):
            continue
        for include in tree.reach(name):
            if is_torch(include) or (
                    name in FOR_NVCC and include.startswith("absl/")):
                yield f"{name}: kernels are for nvcc and sanitizers; got: {include}"


RULES = [common_is_pure, folders_keep_their_arrows, torch_stays_in_worker,
         torch_and_grpc_never_meet, telemetry_knows_no_rpc,
         shared_memory_needs_no_torch, kernels_need_no_torch]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_repository_keeps(rule):
    assert list(rule(Tree(ROOT))) == []


def test_every_folder_has_a_line():
    assert {folder_of(name) for name in Tree(ROOT).includes} <= set(MAY_INCLUDE)


def test_every_package_of_a_folder_has_a_format_test():
    for build in ROOT.glob("*/**/BUILD.bazel"):
        folder, *_ = build.relative_to(ROOT).parts
        if folder in MAY_INCLUDE and re.search(r"\bcc_\w+\(",
                                               build.read_text("utf-8")):
            assert build.read_text("utf-8").endswith("\n\nformat_test()\n"), build


# rule, files of a tree that breaks it, the include that the message ends with.
BROKEN = [
    (common_is_pure, {"common/a.h": "#include <thread>"}, "thread"),
    (common_is_pure, {"common/a.cc": '#include "absl/synchronization/mutex.h"'},
     "absl/synchronization/mutex.h"),
    (common_is_pure, {"common/a.cc": "#include <grpcpp/grpcpp.h>"},
     "grpcpp/grpcpp.h"),
    (common_is_pure, {"common/a.cc": '#include "gtest/gtest.h"'},
     "gtest/gtest.h"),
    (folders_keep_their_arrows,
     {"coordinator/a.cc": '#include "worker/executor.h"'}, "worker/executor.h"),
    (folders_keep_their_arrows,
     {"worker/a_test.cc": '#include "coordinator/ids.h"'}, "coordinator/ids.h"),
    (folders_keep_their_arrows,
     {"common/a.cc": '#include "shardplane/v1/types.pb.h"'},
     "shardplane/v1/types.pb.h"),
    (folders_keep_their_arrows, {"client/a.cc": '#include "common/errors.h"'},
     "common/errors.h"),
    (torch_stays_in_worker, {"coordinator/a.cc": "#include <ATen/ATen.h>"},
     "ATen/ATen.h"),
    (torch_and_grpc_never_meet,
     {"worker/a.cc": '#include "worker/b.h"\n#include <grpcpp/server.h>',
      "worker/b.h": '#include "worker/c.h"',
      "worker/c.h": "#  include <c10/util/Exception.h>"},
     "(by worker/a.cc)"),
    (shared_memory_needs_no_torch,
     {"worker/shm/moves.cc": '#include "worker/shm/reductions.h"',
      "worker/shm/reductions.h": "#include <c10/util/Half.h>"},
     "c10/util/Half.h"),
    (kernels_need_no_torch,
     {"worker/kernels/a.cc": "#include <ATen/ATen.h>"}, "ATen/ATen.h"),
    (kernels_need_no_torch,
     {"worker/kernels/lanes.h": '#include "absl/status/status.h"'},
     "absl/status/status.h"),
    (telemetry_knows_no_rpc,
     {"telemetry/a.cc": '#include "telemetry/b.h"',
      "telemetry/b.h": "#include <grpcpp/server.h>"}, "grpcpp/server.h"),
]


@pytest.mark.parametrize(
    "rule, files, ending", BROKEN,
    ids=[f"{rule.__name__}-{n}" for n, (rule, _, _) in enumerate(BROKEN)])
def test_rule_finds(rule, files, ending, tmp_path):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    violations = list(rule(Tree(tmp_path)))
    assert violations and violations[0].endswith(ending)


def test_a_test_may_use_the_matchers(tmp_path):
    path = tmp_path / "common" / "a_test.cc"
    path.parent.mkdir()
    path.write_text('#include "common/a.h"\n#include "gmock/gmock.h"\n'
                    '#include "tests/matchers.h"\n', encoding="utf-8")
    tree = Tree(tmp_path)
    assert [list(rule(tree)) for rule in RULES] == [[]] * len(RULES)
