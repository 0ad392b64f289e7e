"""Debian's static libraries, for binaries that travel: see deploy/portable."""

_FOLDER = "/usr/lib/x86_64-linux-gnu"

# What gRPC, protobuf and googletest need beside Abseil and glibc.
_NAMES = [
    "address_sorting",
    "cares",
    "crypto",
    "gpr",
    "grpc",
    "grpc++",
    "grpc++_reflection",
    "protobuf",
    "re2",
    "ssl",
    "upb",
    "z",
]
_TEST_NAMES = ["gmock", "gtest", "gtest_main"]

_BUILD = """
package(default_visibility = ["//visibility:public"])

# A binary that depends on this is linked with the archives of those libraries
# that have one here: -L goes before the system's folder, for every -l.
cc_library(
    name = "static_libs",
    linkopts = ["-L{folder}", "-Wl,--start-group"] + {libraries} + ["-Wl,--end-group"],
)
"""

def _static_libs_repository_impl(ctx):
    found = ctx.execute(["sh", "-c", "ls %s/libabsl_*.a" % _FOLDER])
    if found.return_code != 0:
        fail("no static Abseil: %s" % found.stderr)
    names = [
        path.rpartition("/")[2][len("lib"):-len(".a")]
        for path in found.stdout.strip().split("\n")
    ] + _NAMES
    for name in names + _TEST_NAMES:
        path = "%s/lib%s.a" % (_FOLDER, name)
        if not ctx.path(path).exists:
            fail("expected a static library, got none: %s" % path)
        ctx.symlink(path, "lib/lib%s.a" % name)
    ctx.file("BUILD.bazel", _BUILD.format(
        folder = ctx.path("lib"),
        libraries = ["-l" + name for name in names],
    ))

static_libs_repository = repository_rule(
    implementation = _static_libs_repository_impl,
)
