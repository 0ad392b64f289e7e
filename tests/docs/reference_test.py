"""Holds docs/reference to the protos."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

REFERENCE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "reference"
_spec = importlib.util.spec_from_file_location(
    "reference_generate", REFERENCE / "generate.py")
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


@pytest.fixture(scope="module")
def made():
    return generate.pages()


@pytest.fixture(scope="module")
def files():
    return generate.descriptors()


def test_the_script_makes_the_pages_that_are_here(tmp_path):
    subprocess.run([sys.executable, REFERENCE / "generate.py", tmp_path],
                   check=True)
    new = {p.name: p.read_text("utf-8") for p in tmp_path.iterdir()}
    old = {p.name: p.read_text("utf-8") for p in REFERENCE.glob("*.md")}
    assert set(new) == set(old)
    for page, text in new.items():
        assert text == old[page], (
            f"{page} is old: ./shardplane python docs/reference/generate.py")


def test_every_method_message_field_and_enum_is_there(made, files):
    for page, path in generate.PAGES.items():
        rows = re.findall(r"^\| `(\w+)`", made[page], re.MULTILINE)
        headings = re.findall(r"^### (.+)$", made[page], re.MULTILINE)
        for service in files[path].service:
            assert {m.name for m in service.method} <= set(rows)
        for message in files[path].message_type:
            assert message.name in headings
            section = made[page].split(f"\n### {message.name}\n")[1]
            shown = re.findall(r"^\| `(\w+)` = (\d+)",
                               section.split("\n### ")[0], re.MULTILINE)
            assert shown == [(f.name, str(f.number)) for f in message.field]
        for enum in files[path].enum_type:
            assert enum.name in headings


def test_every_link_has_its_heading(made):
    anchors = {page: [generate.slug(heading) for heading in
                      re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
               for page, text in made.items()}
    for page, text in made.items():
        assert len(anchors[page]) == len(set(anchors[page]))
        for target in re.findall(r"\]\(([\w.]*#[^)]+)\)", text):
            other, anchor = target.split("#")
            assert anchor in anchors[other or page], target


def test_comments_above_and_behind_reach_the_page(made):
    page = made["coordinator.md"]
    assert "| `validate_only` = 4 | bool | plan, report, touch no worker |" in (
        page)
    assert "Runs one numbered action; takes effect exactly once." in page
    assert "Group rank, along the plan's mesh dim, that has the full" in page
    assert "| `labels` = 6 | map of string to string |" in page
    assert "optional int32" in page and "one of `kind`" in page


def bare(file):
    comments = generate.Comments(file)
    for number, items, part in ((4, file.message_type, "field"),
                                (6, file.service, "method")):
        for index, item in enumerate(items):
            for place, member in enumerate(getattr(item, part)):
                if not comments.sentence((number, index, 2, place)):
                    yield f"{item.name}.{member.name}"


def test_no_field_comes_without_a_comment(files):
    found = [name for file in files.values() for name in bare(file)]
    assert found == [], "say what the new one means: " + ", ".join(found)
