"""Debian's clang as the toolchain of --config=sanitize: see .bazelrc."""

load(
    "@bazel_tools//tools/cpp:unix_cc_configure.bzl",
    "configure_unix_toolchain",
)

_CLANG = "/usr/bin/clang-14"

# What .bazelrc and the toolchain say, as far as it changes what a header means:
# clang refuses the file where one differs. What the headers' templates are for
# themselves is instantiated here once, not in every source.
_FLAGS = [
    "-std=c++20",
    "-O0",
    "-g1",
    "-fPIC",
    "-fstack-protector",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize=vptr,function",
    "-fno-sanitize-recover=all",
    "-fpch-instantiate-templates",
]

# Read from a pipe, the headers have no name that Bazel would miss among the
# inputs of who includes them.
_PRECOMPILE = 'headers="$1"; shift; "$@" <"$headers"'

def _clang_repository_impl(ctx):
    headers = ctx.path(Label("//third_party/clang:system_headers.inc"))
    if not ctx.path(_CLANG).exists:
        fail("no %s: install third_party/packages-test.debian" % _CLANG)
    configure_unix_toolchain(ctx, "k8", {"gcc": _CLANG})
    made = ctx.execute(
        ["bash", "-c", _PRECOMPILE, "bash", headers, _CLANG] + _FLAGS +
        ["-x", "c++-header", "-", "-o", "system_headers.pch"],
    )
    if made.return_code != 0:
        fail("system_headers.inc: %s" % made.stderr)

# The system's headers may be others after a change of its packages, when clang
# refuses what was made of those before.
clang_repository = repository_rule(
    implementation = _clang_repository_impl,
    environ = ["SHARDPLANE_DPKG_STATUS"],
)
