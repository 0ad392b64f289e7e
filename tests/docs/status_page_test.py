"""Holds docs/status_page.md to the code's tables and to its pictures."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "status_page.md").read_text(encoding="utf-8")


def read(*path):
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


def rows(heading):
    """(first cell, second cell) of the table below a heading."""
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [tuple(cell.strip().strip("`") for cell in line.split("|")[1:3])
            for line in part.splitlines() if line.startswith("| `")]


def test_the_paths_are_those_of_the_api():
    code = read("coordinator", "http_api.cc")
    table = code[code.index("kRows[]"):code.index("#undef")]
    paths = re.findall(r'\{"(/v1/[^"]+)",\s*SHARDPLANE_READS\((\w+),', table)
    assert len(paths) == table.count("SHARDPLANE_READS(")
    assert rows("The same as JSON") == paths + [("/v1/watch", "Watch")]


def test_the_keys_are_those_of_the_page():
    code = read("coordinator", "status_page", "main.js")
    table = code[code.index("const KEYS"):code.index("const THEMES")]
    keys = re.findall(r'\["([^"]+)", "', table)
    assert [key for key, _ in rows("Keys")] == keys
    for key in re.findall(r'^  "?([^"\s]+)"?: (?:\(|show|next)',
                          code[code.index("const ACTIONS"):], re.MULTILINE):
        assert key in keys, key


def test_the_limits_are_those_of_the_code():
    header = read("coordinator", "http_api.h")
    waits = re.search(r"max_waits = (\d+)", header)[1]
    calls = re.search(r"max_calls = (\d+)", header)[1]
    assert f"At most {waits} watches and {calls} other calls" in PAGE
    seconds = int(re.search(r"wait_limit = absl::Seconds\((\d+)\)", header)[1])
    assert f"(at most {seconds * 1000:,})" in PAGE


def test_the_pictures_are_there_and_small():
    shown = re.findall(r"\]\((screenshots/[^)]+)\)", PAGE)
    assert sorted(shown) == sorted(
        f"screenshots/{path.name}"
        for path in (ROOT / "docs" / "screenshots").glob("*.png"))
    for name in shown:
        data = (ROOT / "docs" / name).read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) < 150_000, name
    for name in shown:
        other = {"light": "dark", "dark": "light"}
        theme = re.search(r"-(light|dark)\.png", name)[1]
        assert name.replace(theme, other[theme]) in shown
