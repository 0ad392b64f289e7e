"""What clang says of our C++: a package's format_test and thread_safety_test.

Both need clang-14 and clang-format-14, which packages-test.debian lists.
"""

Reports = provider(
    doc = "What clang found in a target's sources.",
    fields = {"files": "list of files, empty where nothing was found"},
)

# A torch header takes clang many seconds, and the torch side guards nothing.
def _uses_torch(deps):
    return any([dep.label.workspace_name == "torch" for dep in deps])

def _flags(compilation):
    return (
        ["-D" + define for define in compilation.defines.to_list()] +
        ["-iquote" + path for path in compilation.quote_includes.to_list()] +
        ["-I" + path for path in compilation.includes.to_list()] +
        ["-isystem" + path for path in compilation.system_includes.to_list()]
    )

# A finding is not a failed action: the test shows it, and the build goes on.
# Nothing can be found in a source that no mutex reaches by way of our headers,
# which is most of them.
_CHECK = """
report="$1"; new="$2"; shift 2
clang++-14 --version >"$report" || exit
reached=" "
while [[ -n "$new" ]]; do
  if grep -qE 'synchronization/mutex[.]h|thread_annotations[.]h' $new; then
    clang++-14 "$@" >"$report" 2>&1 || [[ -s "$report" ]]
    exit
  fi
  reached+="$new "
  included="$(sed -nE 's/^#include "([^"]+)".*/\\1/p' $new | sort -u)"
  new=""
  for file in $included; do
    if [[ -f "$file" && "$reached" != *" $file "* ]]; then new+="$file "; fi
  done
done
>"$report"
"""

def _check(ctx, source, own, compilation):
    report = ctx.actions.declare_file(
        "_thread_safety/%s/%s.txt" % (ctx.rule.attr.name, source.basename),
    )
    ctx.actions.run_shell(
        command = _CHECK,
        arguments = [report.path, source.path] +
                    ["-std=c++20", "-fsyntax-only"] +
                    ["-Wthread-safety", "-Werror"] +
                    # Tests and binaries have no context of their own.
                    ["-iquote.", "-iquote" + ctx.bin_dir.path] +
                    _flags(compilation) + [source.path],
        inputs = depset(own, transitive = [compilation.headers]),
        outputs = [report],
        mnemonic = "ThreadSafety",
        progress_message = "Checking thread safety of " + source.short_path,
        use_default_shell_env = True,
    )
    return report

def _thread_safety_impl(_target, ctx):
    deps = ctx.rule.attr.deps
    if _uses_torch(deps):
        return [Reports(files = [])]
    compilation = cc_common.merge_cc_infos(
        cc_infos = [dep[CcInfo] for dep in deps if CcInfo in dep],
    ).compilation_context
    own = ctx.rule.files.srcs + getattr(ctx.rule.files, "hdrs", [])
    return [Reports(files = [
        _check(ctx, source, own, compilation)
        for source in own
        if source.extension == "cc" and source.is_source
    ])]

_thread_safety = aspect(implementation = _thread_safety_impl)

def _quoted(files):
    return " ".join(["'%s'" % file.short_path for file in files])

def _script(ctx, text, files):
    script = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(script, "#!/bin/bash\n" + text, is_executable = True)
    return [DefaultInfo(
        executable = script,
        runfiles = ctx.runfiles(files = files),
    )]

def _thread_safety_test_impl(ctx):
    reports = [file for dep in ctx.attr.deps for file in dep[Reports].files]
    text = "found=\"$(cat /dev/null %s)\"\necho \"$found\"\n[[ -z \"$found\" ]]\n"
    return _script(ctx, text % _quoted(reports), reports)

_thread_safety_test = rule(
    implementation = _thread_safety_test_impl,
    test = True,
    attrs = {"deps": attr.label_list(aspects = [_thread_safety])},
)

def _format_test_impl(ctx):
    text = "clang-format-14 --style=file:%s --dry-run --Werror %s\n"
    style = ctx.file._style
    return _script(
        ctx,
        text % (style.short_path, _quoted(ctx.files.srcs)),
        ctx.files.srcs + [style],
    )

_format_test = rule(
    implementation = _format_test_impl,
    test = True,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cc", ".h"]),
        "_style": attr.label(default = "//:.clang-format", allow_single_file = True),
    },
)

def clang_tests():
    """Stands at the end of a BUILD file: it sees the targets above it."""
    _thread_safety_test(
        name = "thread_safety_test",
        size = "small",
        tags = ["clang"],
        deps = [
            ":" + name
            for name, rule in sorted(native.existing_rules().items())
            if rule["kind"] in ("cc_binary", "cc_library", "cc_test")
        ],
    )
    _format_test(
        name = "format_test",
        size = "small",
        srcs = native.glob(["**/*.cc", "**/*.h"]),
        tags = ["clang"],
    )
