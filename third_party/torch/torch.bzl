"""LibTorch as an external repository: links into the Python wheel's folder."""

_FIND = """
import importlib.util, os
torch = os.path.dirname(importlib.util.find_spec("torch").origin)
site = os.path.dirname(torch)
print(torch)
print(os.path.join(site, "nvidia", "cu13", "include"))
print(os.path.join(site, "nvidia", "nccl", "include"))
print(os.path.join(site, "nvidia", "nccl", "lib"))
print(open(os.path.join(torch, "version.py")).read().split("'")[1])
"""

_BUILD = """
package(default_visibility = ["//visibility:public"])

# version: {version}
# LibTorch for CPUs. No file that includes these may include gRPC.
cc_library(
    name = "torch",
    hdrs = glob([
        "include/**/*.h",
        "include/**/*.hpp",
        "include/**/*.cuh",
        "include/**/*.inc",
        "api/**/*.h",
    ]),
    includes = ["include", "api"],
    defines = [
        "USE_C10D_GLOO",
        "USE_C10D_NCCL",
    ],
    linkopts = [
        "-L{lib}",
        "-Wl,--no-as-needed",
        "-lc10",
        "-ltorch_cpu",
        "-Wl,--allow-shlib-undefined",
        "-Wl,--disable-new-dtags",
        "-Wl,-rpath,{lib}",
    ],
)

# The same with CUDA and NCCL: needed by what names CUDA streams or
# ProcessGroupNCCL. It loads on a machine without a GPU too.
cc_library(
    name = "torch_cuda",
    hdrs = glob([
        "cuda_include/**/*",
        "nccl_include/**/*",
    ]),
    includes = ["cuda_include", "nccl_include"],
    linkopts = [
        "-Wl,--no-as-needed",
        "-lc10_cuda",
        "-ltorch_cuda",
    ],
    deps = [":torch"],
)

# The names that profilers show: headers only, which look for a profiler when
# they are first called. A binary for CPUs has them, too.
cc_library(
    name = "nvtx",
    hdrs = glob(["nvtx_include/**/*.h"]),
    includes = ["nvtx_include"],
    linkopts = ["-ldl"],
)
"""

def _torch_repository_impl(ctx):
    python = ctx.os.environ.get("SHARDPLANE_PYTHON")
    if not python:
        fail("SHARDPLANE_PYTHON is not set: build with ./shardplane build")
    found = ctx.execute([python, "-c", _FIND])
    if found.return_code != 0:
        fail("no torch in %s: %s" % (python, found.stderr))
    torch, cuda, nccl, nccl_lib, version = found.stdout.strip().split("\n")

    # Not all of include/: it also holds an old google/protobuf.
    for folder in ["ATen", "c10", "caffe2", "torch"]:
        ctx.symlink(torch + "/include/" + folder, "include/" + folder)
    ctx.symlink(torch + "/include/torch/csrc/api/include", "api")
    ctx.symlink(cuda, "cuda_include")
    ctx.symlink(nccl, "nccl_include")
    ctx.symlink(cuda + "/nvtx3", "nvtx_include/nvtx3")
    ctx.file("BUILD.bazel", _BUILD.format(lib = torch + "/lib", version = version))

torch_repository = repository_rule(
    implementation = _torch_repository_impl,
    environ = ["SHARDPLANE_PYTHON"],
    local = False,
)
