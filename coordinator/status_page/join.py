"""Joins the sources of the status page into one file without outside parts.

    join.py OUT.h      a header with the page, its policy and its ETag
    join.py --html     the page itself, to standard output
"""

import base64
import hashlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
# In this order: what is used comes first.
SCRIPTS = ("dom", "format", "cuts", "tree", "tiles", "tree_view", "charts",
           "api", "overview", "deployment", "main")
# A string literal of a C++ compiler may be no longer than 64 KiB.
LITERAL = 8000


def read(name):
    return (HERE / name).read_text(encoding="utf-8").strip("\n")


def parts():
    """The style and the script, as they stand between their tags."""
    script = "\n\n".join(read(f"{name}.js") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}\n}})();'
    style = read("style.css")
    assert "</script" not in script and "</style" not in style
    return style, script


def page():
    style, script = parts()
    return (read("index.html").replace("/*STYLE*/", style)
            .replace("/*SCRIPT*/", script) + "\n")


def digest(text):
    value = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(value).decode()}'"


def policy():
    """Content-Security-Policy: this script and this style, this origin."""
    style, script = parts()
    return "; ".join((
        "default-src 'none'", f"script-src {digest(script)}",
        f"style-src {digest(style)}", "connect-src 'self'", "img-src data:",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'"))


def literal(text):
    raw = text.encode()
    pieces = [raw[i:i + LITERAL] for i in range(0, len(raw), LITERAL)]
    lines = []
    for piece in pieces:
        lines.append('    "' + "".join(
            chr(c) if 32 <= c < 127 and c not in b'"\\?' else f"\\{c:03o}"
            for c in piece) + '"')
    return "\n".join(lines)


def header():
    text = page()
    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    return "\n".join((
        "// Made by coordinator/status_page/join.py.", "#pragma once",
        "namespace shardplane {",
        f"inline constexpr char kStatusPage[] =\n{literal(text)};",
        f"inline constexpr char kStatusPagePolicy[] =\n{literal(policy())};",
        f"inline constexpr char kStatusPageTag[] =\n{literal(tag)};",
        "}  // namespace shardplane", ""))


if __name__ == "__main__":
    if sys.argv[1] == "--html":
        sys.stdout.write(page())
    else:
        pathlib.Path(sys.argv[1]).write_text(header(), encoding="ascii")
