"""The layout of a package's C++, as clang-format sees it."""

_SCRIPT = """#!/bin/bash
clang-format-14 --style=file:%s --dry-run --Werror %s
"""

def _format_test_impl(ctx):
    script = ctx.actions.declare_file(ctx.label.name)
    style = ctx.file._style
    ctx.actions.write(
        script,
        _SCRIPT % (
            style.short_path,
            " ".join(["'%s'" % file.short_path for file in ctx.files.srcs]),
        ),
        is_executable = True,
    )
    return [DefaultInfo(
        executable = script,
        runfiles = ctx.runfiles(files = ctx.files.srcs + [style]),
    )]

_format_test = rule(
    implementation = _format_test_impl,
    test = True,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cc", ".h"]),
        "_style": attr.label(default = "//:.clang-format", allow_single_file = True),
    },
)

def format_test():
    """A test of all C++ in the package's folder. It needs clang-format-14."""
    _format_test(
        name = "format_test",
        size = "small",
        srcs = native.glob(["**/*.cc", "**/*.h"]),
    )
