"""Tables of a report: as text, as HTML, and with repeated layers folded."""

import html
import re

_NUMBER = re.compile(r"[0-9]+")

# No colours of its own: readable on dark and on light.
_STYLE = """<style>
.shardplane table {border-collapse: collapse; font-size: 90%;}
.shardplane th, .shardplane td {text-align: left; vertical-align: top;
 padding: 0.15em 0.9em 0.15em 0; border: 0; background: none;
 border-bottom: 1px solid rgba(128, 128, 128, 0.35);}
.shardplane summary {cursor: pointer; font-weight: 600; margin: 0.4em 0;}
.shardplane code {background: none; color: inherit;}
</style>"""


def human_bytes(count):
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else (
                f"{count:.1f} {unit}")
        count /= 1024


def ranges(numbers):
    """[0, 1, 2, 5] -> "0-2,5"."""
    parts, numbers = [], sorted(set(numbers))
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


class Row:
    """Of a table: a module's FQN, cells that must be equal to be folded, and
    numbers that are added up."""

    def __init__(self, fqn, cells, sums=()):
        self.fqn = fqn
        self.cells = tuple(cells)
        self.sums = tuple(sums)
        self.count = 1

    def name(self):
        times = f" ×{self.count}" if self.count > 1 else ""
        return (self.fqn or '""') + times


def _template(row, index):
    """The row with the number at token `index` left out, wherever the name up
    to there stands; None: there is no number."""
    tokens = row.fqn.split(".")
    if index >= len(tokens) or not _NUMBER.fullmatch(tokens[index]):
        return None
    stem = ".".join(tokens[:index + 1])
    blank = ".".join([*tokens[:index], "#"])
    # A bare number is a name only where a name goes on behind it.
    behind = r"(?!\w)" if index else r"(?=\.[A-Za-z_])"
    found = re.compile(r"(?<![\w.])" + re.escape(stem) + behind)
    cells = tuple(found.sub(blank, cell) for cell in row.cells)
    return (".".join([*tokens[:index], "#", *tokens[index + 1:]]), cells,
            row.sums, row.count)


def _fold_at(rows, index):
    groups = {}
    for row in rows:
        template = _template(row, index)
        key = (id(row),) if template is None else template
        groups.setdefault(key, []).append(row)
    folded = []
    for key, group in groups.items():
        if len(group) == 1:
            folded.append(group[0])
            continue
        numbers = ranges(int(row.fqn.split(".")[index]) for row in group)
        fqn, cells, sums, count = key
        def fill(text, numbers=numbers):
            return text.replace("#", numbers, 1)
        new = Row(fill(fqn), [fill(cell) for cell in cells],
                  [value * len(group) for value in sums])
        new.count = count * len(group)
        folded.append(new)
    return folded


def fold(rows):
    """Rows that differ in a layer's number alone become one, at the place of
    the first: "layers.0-125.self_attn.q_proj ×126"."""
    deepest = max((row.fqn.count(".") for row in rows), default=-1)
    for index in range(deepest, -1, -1):
        rows = _fold_at(rows, index)
    return rows


def text_table(header, rows):
    """Lines; each row a sequence of cells."""
    widths = [max(len(str(cell)) for cell in column)
              for column in zip(header, *rows)]

    def line(cells):
        return "  ".join(str(cell).ljust(width)
                         for cell, width in zip(cells, widths)).rstrip()
    return [line(header), line(["-" * width for width in widths]),
            *map(line, rows)]


class Table:
    """A title, a header, and rows of cells."""

    def __init__(self, title, header, rows, empty=""):
        self.title = title
        self.header = header
        self.rows = [tuple(map(str, row)) for row in rows]
        self.empty = empty  # what to say where there are no rows

    def lines(self):
        if not self.rows:
            return [self.empty] if self.empty else []
        return text_table(self.header, self.rows)

    def html(self, opened=True):
        if not self.rows and not self.empty:
            return ""
        if not self.rows:
            return f"<p>{html.escape(self.empty)}</p>"
        def cells(tag, row):
            return "".join(f"<{tag}>{html.escape(cell)}</{tag}>"
                           for cell in row)
        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in self.rows)
        return (f"<details{' open' if opened else ''}><summary>"
                f"{html.escape(self.title)} ({len(self.rows)})</summary>"
                f"<table><thead><tr>{cells('th', self.header)}</tr></thead>"
                f"<tbody>{body}</tbody></table></details>")


def page(parts):
    """HTML that stands alone, for a notebook's cell."""
    return f'<div class="shardplane">{_STYLE}{"".join(parts)}</div>'
