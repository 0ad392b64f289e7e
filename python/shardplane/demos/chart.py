"""Loss curves: as text for a terminal, and as a picture."""

WIDTH, HEIGHT = 64, 14
_BOTH = "#"
_MARKS = "*o"


def columns(values, width):
    """`values` as at most `width` means of neighbours, of equal counts but
    for rounding: [1, 3, 5, 7] -> [2, 6] for 2."""
    width = min(width, len(values))
    edges = [i * len(values) // width for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:])]


def text_chart(curves, width=WIDTH, height=HEIGHT):
    """`curves`: name -> one loss a step, at least one, all finite and of one
    length. Each column is the mean of some steps; `#` where both curves meet.

        8.000 |#
              | ##
        2.000 |   #####
              +--------
               1      8
    """
    if len(curves) > len(_MARKS):
        raise ValueError(f"curves: expected at most {len(_MARKS)}, got: "
                         f"{len(curves)}")
    means = {name: columns(values, width) for name, values in curves.items()}
    low = min(map(min, means.values()))
    high = max(map(max, means.values()))
    used = len(next(iter(means.values())))
    cells = [[" "] * used for _ in range(height)]
    for mark, curve in zip(_MARKS, means.values()):
        for x, value in enumerate(curve):
            part = (high - value) / (high - low) if high > low else 0.0
            row = cells[round(part * (height - 1))]
            row[x] = mark if row[x] == " " else _BOTH
    return "\n".join([*_with_axes(cells, high, low, used, curves),
                      _legend(curves)])


def _with_axes(cells, high, low, used, curves):
    for y, row in enumerate(cells):
        label = {0: f"{high:.3f}", len(cells) - 1: f"{low:.3f}"}.get(y, "")
        yield f"{label:>8} |{''.join(row)}".rstrip()
    yield " " * 9 + "+" + "-" * used
    last = str(len(next(iter(curves.values()))))
    yield " " * 10 + "1" + last.rjust(max(used - 1, len(last) + 1))


def _legend(curves):
    names = [f"{mark} {name}" for mark, name in zip(_MARKS, curves)]
    both = [f"{_BOTH} both"] if len(curves) > 1 else []
    return " " * 10 + "   ".join([*names, *both])


def save_picture(path, curves, title):
    """The same curves, a point a step, as a PNG at `path`."""
    # Takes a second to load, and only this needs it.
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    styles = ({"linewidth": 3.5, "color": "#9ecae1"},
              {"linewidth": 1.0, "color": "#08306b", "linestyle": "--"})
    for (name, values), style in zip(curves.items(), styles):
        axes.plot(range(1, len(values) + 1), values, label=name, **style)
    axes.set(xlabel="step", ylabel="training loss", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, format="png", dpi=120)
