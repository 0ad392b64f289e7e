"""A case that fails -> a small one that fails alike.

Each candidate is one step plainer: a block, a style, a mesh dim or an option
less, or a smaller size. The first that still fails is the next case, until none
does.
"""

import time

from tests.differential.blocks import BLOCKS

from tests.differential.styles import Style

SIZES = {"batch": 1, "sequence": 1, "width": 1, "vocabulary": 2, "head": 1}
PLAIN = {"loss": ["sum", "mean", "square", "cross_entropy"],
         "optimizer": ["sgd"], "clip": [0.0], "input_gradient": [False],
         "src_data_rank": [0], "vocabulary": [0], "head": [0],
         "frozen": [()], "tied": [()]}


def shrink(case, fails, seconds=120, clock=time.monotonic):
    """`fails(case)`: what fails, None if nothing does; a step counts if the
    answer stays. Ends early when the seconds are over."""
    kind = fails(case)
    assert kind is not None, "the case does not fail"
    end = clock() + seconds
    changed = True
    while changed:
        changed = False
        for candidate in candidates(case):
            if clock() > end:
                return case
            if fails(candidate) == kind:
                case, changed = candidate, True
                break
    return case


def candidates(case):
    """The greatest steps first."""
    yield from fewer_blocks(case)
    yield from fewer_styles(case)
    yield from smaller_meshes(case)
    yield from plainer_fields(case)
    yield from plainer_blocks(case)
    yield from plainer_plans(case)
    yield from smaller_sizes(case)


def without(mapping, key):
    return {k: v for k, v in mapping.items() if k != key}


def fewer_blocks(case):
    for name in case.blocks:
        kept = without(case.blocks, name)
        yield case.replace(
            blocks=kept, plan=without_module(case.plan, name),
            frozen=tuple(f for f in case.frozen if f".{name}." not in f),
            tied=tuple(pair for pair in case.tied
                       if not any(f".{name}." in f"{m}." for m in pair)))


def without_module(plan, name):
    """Without what speaks of that block alone."""
    return {key: without_module(value, name) if isinstance(value, dict)
            else value for key, value in plan.items()
            if name not in key.split(".")}


def edits(plan):
    """Plans with one style or key less."""
    for key, value in plan.items():
        yield without(plan, key)
        if isinstance(value, list):
            for i in range(len(value)):
                rest = value[:i] + value[i + 1:]
                yield plan | {key: rest if len(rest) > 1 else rest[0]}
        if isinstance(value, dict):
            for inner in edits(value):
                yield plan | {key: inner}
            flat = {f"{key}.{k}": v for k, v in value.items()}
            if not set(flat) & set(plan):
                yield without(plan, key) | flat


def fewer_styles(case):
    for plan in edits(case.plan):
        yield case.replace(plan=plan)


def smaller_meshes(case):
    for i in range(len(case.data_parallel)):
        yield case.replace(data_parallel=(
            *case.data_parallel[:i], *case.data_parallel[i + 1:]))
    if case.recompute:
        yield case.replace(recompute=())
    if case.reshard:
        yield case.replace(reshard=())
    if case.chunks:
        yield case.replace(chunks=False)
    if case.unit_bytes == 0:
        yield case.replace(unit_bytes=None)
    for dim, size in case.mesh.items():
        if len(case.mesh) > 1:
            mesh = without(case.mesh, dim)
            yield case.replace(
                mesh=mesh, plan=renamed(case.plan, mesh),
                reshard=() if dim in case.reshard else case.reshard,
                data_parallel=tuple(pair for pair in case.data_parallel
                                    if pair[0] != dim))
        if size > 1:
            yield case.replace(mesh=case.mesh | {dim: size - 1})
    if len(case.mesh) == 1 and "tp" not in case.mesh and (
            not case.data_parallel):
        mesh = {"tp": next(iter(case.mesh.values()))}
        yield case.replace(mesh=mesh, plan=renamed(case.plan, mesh),
                           reshard=("tp", *case.reshard[1:])
                           if case.reshard else ())


def renamed(plan, mesh):
    """Styles name only what the mesh has."""
    def one(style):
        return style if style.mesh_dim in mesh else style.replace(
            mesh_dim="", **dict(style.options))
    return mapped(plan, one)


def mapped(plan, change):
    if isinstance(plan, dict):
        return {key: mapped(value, change) for key, value in plan.items()}
    if isinstance(plan, list):
        return [change(style) for style in plan]
    return change(plan) if isinstance(plan, Style) else plan


def plainer_fields(case):
    for field, values in PLAIN.items():
        if getattr(case, field) in values[:1]:
            continue
        for value in values:
            if value != getattr(case, field):
                yield case.replace(**{field: value})
    for field in ("frozen", "tied"):
        value = getattr(case, field)
        for i in range(len(value)):
            yield case.replace(**{field: value[:i] + value[i + 1:]})


def plainer_blocks(case):
    for name, (kind, options) in case.blocks.items():
        for option, value in options.items():
            values = BLOCKS[kind].CHOICES[option]
            for plainer in values[:values.index(value)]:
                yield case.replace(blocks=case.blocks | {
                    name: (kind, options | {option: plainer})})


def plainer_plans(case):
    """One option of one style less."""
    styles = []
    mapped(case.plan, styles.append)
    for at, style in enumerate(styles):
        for option, _ in style.options:
            if style.kind.startswith("Prepare"):
                continue  # layouts come in pairs
            smaller = style.replace(**without(dict(style.options), option))
            yield case.replace(plan=with_style(case.plan, at, smaller))


def with_style(plan, at, new):
    seen = iter(range(10 ** 6))
    return mapped(plan, lambda style: new if next(seen) == at else style)


def smaller_sizes(case):
    for field, least in SIZES.items():
        size = getattr(case, field)
        for smaller in sorted({least, size // 2, size - 1}):
            if least <= smaller < size:
                yield case.replace(**{field: smaller})


def as_test(case):
    """Source of a test of its own."""
    body = repr(case).replace("\n", "\n    ")
    return (
        "from tests.differential.case import Case\n"
        "from tests.differential.check import check\n"
        "from tests.differential.styles import Style\n\n\n"
        f"def test_shrunk_from_seed_{case.seed}(cluster):\n"
        f"    check(cluster, {body})\n")
