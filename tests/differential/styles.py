"""Styles and plans as values that can be printed, and what they ask for,
worked out here apart from the product: PyTorch's rules, in a few lines."""

import dataclasses
import fnmatch
import re

from torch import nn
from torch.distributed import tensor
from torch.distributed.tensor import parallel

import shardplane as sp
from tests.parity import Packed

PLACING = ("ColwiseParallel", "RowwiseParallel", "SequenceParallel")


def placement(text):
    """"R", "P", "S(1)" -> PyTorch's."""
    if text.startswith("S("):
        return tensor.Shard(int(text[2:-1]))
    return tensor.Replicate() if text == "R" else tensor.Partial()


@dataclasses.dataclass(frozen=True)
class Style:
    """`Style("ColwiseParallel", output_layouts="R")`. One that names its mesh
    dim is shardplane's own, any other is PyTorch's."""

    kind: str
    options: tuple = ()  # pairs
    mesh_dim: str = ""

    def __init__(self, kind, mesh_dim="", **options):
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "mesh_dim", mesh_dim)
        object.__setattr__(self, "options", tuple(options.items()))

    def __repr__(self):
        named = [f"mesh_dim={self.mesh_dim!r}"] if self.mesh_dim else []
        named += [f"{key}={value!r}" for key, value in self.options]
        return f"Style({', '.join([repr(self.kind), *named])})"

    def get(self, option, default):
        return dict(self.options).get(option, default)

    def replace(self, mesh_dim=None, **options):
        return Style(self.kind, self.mesh_dim if mesh_dim is None
                     else mesh_dim, **options)

    def build(self):
        options = {key: value if isinstance(value, int) else placement(value)
                   for key, value in self.options}
        if self.mesh_dim:
            return getattr(sp, self.kind)(mesh_dim=self.mesh_dim, **options)
        return getattr(parallel, self.kind)(**options)


def build_plan(plan):
    """With Styles -> as parallelize_module takes it."""
    if isinstance(plan, dict):
        return {key: build_plan(value) for key, value in plan.items()}
    if isinstance(plan, list):
        return [style.build() for style in plan]
    return plan.build() if isinstance(plan, Style) else plan


def matches(module, pattern, prefix=""):
    """FQNs: one glob a token of the pattern, against immediate children."""
    if pattern == "":
        return [prefix]
    token, _, rest = pattern.partition(".")
    found = []
    for name, child in module.named_children():
        if fnmatch.fnmatchcase(name, token):
            found += matches(child, rest, f"{prefix}.{name}".lstrip("."))
    return found


def assignments(module, plan, prefix=""):
    """(FQN, Style) in the plan's order."""
    for pattern, value in (plan or {}).items():
        for fqn in matches(module, pattern):
            full = ".".join(filter(None, (prefix, fqn)))
            if isinstance(value, dict):
                yield from assignments(module.get_submodule(fqn), value, full)
            elif value is not None:
                for style in value if isinstance(value, list) else [value]:
                    yield full, style


def plan_dim(mesh, styles):
    """The mesh dim of styles that name none."""
    if "tp" in mesh:
        return "tp"
    named = [dim for dim in mesh if dim in {s.mesh_dim for s in styles}]
    return named[0] if named else next(iter(mesh))


def cut_dim(style, module, name):
    """The tensor dim that a style cuts of a module's own parameter."""
    kind = style.kind
    if isinstance(module, nn.Linear):
        return {("ColwiseParallel", "weight"): 0,
                ("ColwiseParallel", "bias"): 0,
                ("RowwiseParallel", "weight"): 1}.get((kind, name))
    if isinstance(module, nn.Embedding):
        return {("ColwiseParallel", "weight"): 1,
                ("RowwiseParallel", "weight"): 0}.get((kind, name))
    return None


def expected_cuts(module, mesh, plan):
    """FQN -> (mesh dim, tensor dim), of every name of what is cut. Of a tied
    parameter the first style, in the plan's order, decides."""
    pairs = list(assignments(module, plan))
    default = plan_dim(mesh, [style for _, style in pairs])
    by_tensor, names = {}, dict(module.named_parameters(
        remove_duplicate=False))
    for fqn, style in pairs:
        if style.kind not in PLACING:
            continue
        owner = module.get_submodule(fqn)
        for name, parameter in owner.named_parameters(recurse=False):
            dim = cut_dim(style, owner, name)
            by_tensor.setdefault(
                id(parameter),
                None if dim is None else (style.mesh_dim or default, dim))
    return {name: by_tensor[id(p)] for name, p in names.items()
            if by_tensor.get(id(p))}


def wanted_otherwise(module, mesh, plan):
    """Of tied parameters, those that another name wants to lie elsewhere, and
    that may travel therefore: a list of tensors."""
    pairs = list(assignments(module, plan))
    default = plan_dim(mesh, [style for _, style in pairs])
    wishes = {}
    for fqn, style in pairs:
        if style.kind in PLACING:
            owner = module.get_submodule(fqn)
            for name, p in owner.named_parameters(recurse=False):
                wish = style.mesh_dim or default, cut_dim(style, owner, name)
                wishes.setdefault(id(p), (p, set()))[1].add(wish)
    return [p for p, wish in wishes.values() if len(wish) > 1]


def stored_cuts(cut, value, sharded, shard_dim=0):
    """How a parameter lies, cut by cut: as the plan has it, and within that
    along the mesh dims that are fully sharded, on dim `shard_dim`."""
    cuts = [cut] if cut else []
    return cuts + [(dim, shard_dim) for dim in sharded if value.dim()]


def placements_text(cuts, mesh):
    """As the report has it: [R, S(0)], or [S(0)#2, S(0)#1] where one tensor
    dim is cut in another order than the mesh's."""
    dims = {mesh_dim: getattr(cut, "dim", cut) for mesh_dim, cut in cuts}
    texts = {mesh_dim: str(cut) if isinstance(cut, Packed) else f"S({cut})"
             for mesh_dim, cut in cuts}
    by_dim = {}  # tensor dim -> mesh dims that cut it
    for mesh_dim, _ in cuts:
        by_dim.setdefault(dims[mesh_dim], []).append(mesh_dim)
    order = list(mesh)
    mixed = any(sorted(found, key=order.index) != found
                for found in by_dim.values())

    def one(mesh_dim):
        if mesh_dim not in dims:
            return "R"
        found = by_dim[dims[mesh_dim]]
        number = f"#{found.index(mesh_dim) + 1}" if mixed and (
            len(found) > 1) else ""
        return texts[mesh_dim] + number
    return "[" + ", ".join(map(one, mesh)) + "]"


def collectives_of(program_text):
    """(kind, mesh dim, ids of what goes in) of each, from a program's text."""
    found = []
    for line in program_text.splitlines():
        match = re.match(
            r"\s+(?:start )?(?:%\d+,? ?)+= (all_\w+|reduce_scatter)"
            r"\[([\w.]+)[^\]]*\] (.*)", line)
        if match:
            found.append((match[1], match[2],
                          [int(n) for n in re.findall(r"%(\d+)", match[3])]))
    return found
