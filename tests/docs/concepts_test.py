"""Runs what docs/concepts.md shows, and looks at its pictures."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from tests.docs.pages import DOCS, blocks, output_of, page

PAGE = page("concepts.md")
PICTURES = sorted((DOCS / "pictures").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
# Of the pictures' monospaced type, and of what stands above its line.
WIDTH, HEIGHT = 7.9, 12


def test_it_prints_what_it_shows(tmp_path):
    (source,) = blocks(PAGE)
    printed = output_of(source, tmp_path)
    shown = re.findall(r"^    (\S.*)$", PAGE.split("```\n")[-1], re.MULTILINE)
    assert printed.splitlines() == shown and len(shown) == 3


def test_every_picture_is_shown_under_its_title():
    shown = dict((name, alt) for alt, name in
                 re.findall(r"^!\[(.*)\]\(pictures/(.*)\)$", PAGE,
                            re.MULTILINE))
    assert sorted(shown) == [path.name for path in PICTURES]
    for path in PICTURES:
        title = ElementTree.parse(path).getroot().find(f"{SVG}title")
        assert title.text == shown[path.name]


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_small_whole_and_for_light_and_dark(path):
    source = path.read_text("utf-8")
    assert len(source) < 8000
    assert "prefers-color-scheme: dark" in source
    assert not re.findall(r"href|url\((?!#)|@import|<script", source)
    root = ElementTree.fromstring(source)
    _, _, width, height = map(float, root.get("viewBox").split())
    for box in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(box.get(name))
                      for name in ("x", "y", "width", "height"))
        assert 0 <= x and 0 <= y and x + w <= width and y + h <= height


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_words_of_a_picture_are_in_their_boxes(path):
    root = ElementTree.parse(path).getroot()
    width = float(root.get("width"))
    boxes = [tuple(float(box.get(name))
                   for name in ("x", "y", "width", "height"))
             for box in root.iter(f"{SVG}rect")]
    for text in root.iter(f"{SVG}text"):
        x, y = float(text.get("x")), float(text.get("y"))
        end = x + WIDTH * len(text.text)
        assert end <= width, text.text
        for left, top, w, h in boxes:
            if left <= x < left + w and top < y - HEIGHT / 2 < top + h:
                assert end <= left + w and y <= top + h, text.text
                assert y - HEIGHT >= top, text.text
