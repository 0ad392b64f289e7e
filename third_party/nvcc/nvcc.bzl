"""nvcc as an external repository: where it lies, or that there is none."""

def _nvcc_repository_impl(ctx):
    nvcc = ctx.os.environ.get("SHARDPLANE_NVCC", "none")
    if nvcc != "none":
        found = ctx.execute([nvcc, "--version"])
        if found.return_code != 0:
            fail("SHARDPLANE_NVCC=%s does not run: %s" % (nvcc, found.stderr))
    ctx.file("BUILD.bazel", "")
    ctx.file("nvcc.bzl", "NVCC = %r\n" % ("" if nvcc == "none" else nvcc))

# @nvcc//:nvcc.bzl has NVCC, the compiler's path; "" if there is none.
nvcc_repository = repository_rule(
    implementation = _nvcc_repository_impl,
    environ = ["SHARDPLANE_NVCC"],
    local = False,
)
