"""Random cases: a seed alone says which."""

import random

import torch
from torch import nn

from tests.differential.blocks import BLOCKS
from tests.differential.case import LOSSES, OPTIMIZERS, Case
from tests.differential.styles import (
    Style, assignments, matches, plan_dim)

# Up to four ranks in one to three dims; the plan's is tp, else what the styles
# name.
MESHES = [{"tp": 2}, {"tp": 3}, {"tp": 4}, {"tp": 2}, {"tp": 4}, {"tp": 1},
          {"dp": 2, "tp": 2}, {"tp": 2, "dp": 2}, {"a": 2, "tp": 1, "b": 2},
          {"a": 1, "tp": 3, "b": 1}, {"a": 1, "tp": 2, "b": 2},
          {"only": 3}, {"x": 2, "tp": 2}, {"x": 2, "y": 2},
          {"x": 2, "tp": 1, "y": 2}]
# Dims that styles may name beside the plan's.
NAMED = {"x", "y"}
# What a usual plan cuts by column; the rest, by row.
WIDENING = {"q", "k", "v", "qkv", "up", "gate", "both", "left", "a"}


def random_case(seed):
    """Successive seeds take the meshes and the kinds of blocks in turn, so
    that some dozens have had each."""
    rng = random.Random(seed)
    mesh = MESHES[seed % len(MESHES)]
    kinds = list(BLOCKS)
    case = Case(
        mesh=mesh, blocks=random_blocks(rng, kinds[seed % len(kinds)]),
        plan={}, seed=seed,
        batch=rng.choice([1, 2, 3, 4, 5]),
        sequence=rng.choice([1, 2, 3, 5, 6, 7]),
        width=rng.choice([3, 4, 5, 7, 8, 12, 17]),
        vocabulary=rng.choice([0, 0, 0, 3, 5, 8, 11]),
        head=rng.choice([0, 0, 3, 7, 8]), loss=rng.choice(list(LOSSES)),
        optimizer=rng.choice(list(OPTIMIZERS)),
        clip=rng.choice([0.0, 0.0, 0.0, 0.1]),
        src_data_rank=rng.choice([0, 0, None, 1]))
    case = case.replace(
        input_gradient=not case.vocabulary and rng.random() < 0.5)
    case = case.replace(tied=random_ties(rng, case))
    case = case.replace(frozen=random_frozen(rng, case))
    case = case.replace(plan=random_plan(rng, case))
    case = case.replace(data_parallel=random_data_parallel(rng, case))
    if case.data_parallel:
        case = case.replace(unit_bytes=rng.choice([0, 0, None]))
    if rng.random() < 0.25:
        name = rng.choice(["*", *case.blocks])
        case = case.replace(recompute=(f"blocks.{name}",))
    case = case.replace(reshard=random_reshard(rng, case))
    case = case.replace(chunks=rng.random() < 0.5)
    if case.src_data_rank == 1 and mesh.get("tp", 2) == 1:
        case = case.replace(src_data_rank=0)
    return case


def random_reshard(rng, case):
    dims = [dim for dim in case.mesh if dim not in dict(case.data_parallel)]
    if not dims or rng.random() < 0.6:
        return ()
    return rng.choice(dims), rng.choice([0, 1, -1])


def random_blocks(rng, one):
    kinds = [one] + rng.choices(list(BLOCKS), k=rng.choice([0, 0, 1, 1, 2, 3]))
    rng.shuffle(kinds)
    return {f"b{i}": (kind, {
        option: rng.choice(values)
        for option, values in BLOCKS[kind].CHOICES.items()})
        for i, kind in enumerate(kinds)}


def random_ties(rng, case):
    """A head and its embedding; else two modules of like weights."""
    weights = {name: tuple(child.weight.shape)
               for name, child in case.module().named_modules()
               if isinstance(child, (nn.Linear, nn.Embedding))}
    pairs = [(a, b) for a in weights for b in weights
             if a != b and weights[a] == weights[b]]
    if "tok" in weights and "head" in weights and pairs:
        pairs += 3 * [pair for pair in pairs if pair == ("tok", "head")]
    return (rng.choice(pairs),) if pairs and rng.random() < 0.25 else ()


def random_frozen(rng, case):
    names = [name for name, _ in case.module().named_parameters()]
    share = rng.choice([0.0, 0.0, 0.2, 0.5])
    return tuple(name for name in names if rng.random() < share)


def ranks_of(case):
    """FQN -> the fewest dims of its inputs and of its outputs."""
    module, found = case.module(), {}
    for name, child in module.named_modules():
        def note(_, inputs, output, name=name):
            known = found.get(name, (9, 9))
            found[name] = (min(known[0], inputs[0].dim()),
                           min(known[1], output.dim()))
        child.register_forward_hook(note)
    with torch.no_grad():
        module(case.input())
    return found


class PlanMaker:
    def __init__(self, rng, case):
        self.rng = rng
        self.module = case.module()
        self.ranks = ranks_of(case)
        self.named = [dim for dim in case.mesh if dim in NAMED]
        self.must_name = self.named and "tp" not in case.mesh
        # The usual plan; None: any.
        self.between = None if self.must_name else rng.choice(
            [None, None, "R", "S(1)"])
        self.styled = set()
        self.plan = {}

    def layout(self, dims, partial=False):
        choices = ["R", "R", "S(-1)"] + [f"S({d})" for d in range(dims)]
        return self.rng.choice(choices + ["P"] * partial)

    def mesh_dim(self):
        if self.must_name or (self.named and self.rng.random() < 0.4):
            return self.rng.choice(self.named)
        return ""

    def dims(self, names):
        """The fewest dims of inputs and outputs of all these modules."""
        ranks = [self.ranks.get(name, (2, 2)) for name in names]
        return min(r[0] for r in ranks), min(r[1] for r in ranks)

    def linear(self, names):
        inputs, outputs = self.dims(names)
        options = {}
        if self.rng.random() < 0.4:
            options["input_layouts"] = self.layout(inputs)
        if self.rng.random() < 0.5:
            options["output_layouts"] = self.layout(outputs, partial=True)
        return Style(self.rng.choice(["ColwiseParallel", "RowwiseParallel"]),
                     self.mesh_dim(), **options)

    def usual(self, names):
        """As plans for transformers have it, between cuts of the sequence or
        of nothing."""
        name, cut = names[0], self.between
        last = name.rpartition(".")[2]
        if last in WIDENING or name.endswith("layers.0"):
            return Style("ColwiseParallel", **(
                {} if last in ("q", "k", "v") else {"input_layouts": cut}))
        if name == "tok":
            return Style("RowwiseParallel", input_layouts="R",
                         output_layouts=cut)
        if name == "head":
            return Style("ColwiseParallel", input_layouts=cut,
                         output_layouts=self.rng.choice(["S(-1)", "R"]))
        if last == "pos":
            return Style("RowwiseParallel", input_layouts="R", output_layouts=(
                "R" if cut == "R" else "S(0)"))
        return Style("RowwiseParallel", output_layouts=cut)

    def sequence(self, names):
        return Style("SequenceParallel", self.mesh_dim(),
                     sequence_dim=self.rng.randrange(self.dims(names)[0]))

    def prepare(self, names):
        inputs, outputs = self.dims(names)
        into = {"input_layouts": self.layout(inputs),
                "desired_input_layouts": self.layout(inputs, partial=True)}
        out = {"output_layouts": self.layout(outputs, partial=True),
               "desired_output_layouts": self.layout(outputs, partial=True)}
        kind = self.rng.choice(["Input", "Output", "InputOutput"])
        options = {"Input": into, "Output": out, "InputOutput": into | out}
        return Style("PrepareModule" + kind, self.mesh_dim(), **options[kind])

    def placing(self, names):
        usual = self.between and self.rng.random() < 0.85 and (
            self.dims(names)[1] > 1)
        if all(isinstance(self.module.get_submodule(name),
                          (nn.Linear, nn.Embedding)) for name in names):
            return self.usual(names) if usual else self.linear(names)
        if usual:
            return Style("SequenceParallel") if self.between != "R" else None
        return self.sequence(names)

    def widened(self, name):
        """A pattern for the module and maybe others."""
        tokens = name.split(".")
        at = self.rng.randrange(len(tokens))
        token = tokens[at]
        tokens[at] = self.rng.choice(
            ["*", token[:1] + "*", "?" * len(token), f"[{token[0]}]*"])
        return ".".join(tokens)

    def add(self, pattern, value):
        """As a flat key, or nested at one of its dots."""
        cuts = pattern.count(".")
        if cuts and self.rng.random() < 0.25:
            tokens = pattern.split(".")
            at = self.rng.randint(1, cuts)
            outer, inner = ".".join(tokens[:at]), ".".join(tokens[at:])
            if isinstance(self.plan.setdefault(outer, {}), dict):
                self.plan[outer].setdefault(inner, value)
            return
        self.plan.setdefault(pattern, value)

    def add_placing(self, name):
        """A style of parameters; further styles with it at times."""
        pattern, names = name, [name]
        if self.rng.random() < 0.3:
            pattern = self.widened(name)
            names = matches(self.module, pattern)
            if self.styled & set(names) or "" in names or any(
                    not list(self.module.get_submodule(n).parameters(
                        recurse=False)) for n in names):
                return
        self.styled |= set(names)
        value = style = self.placing(names)
        if style and self.rng.random() < 0.15:
            value = [style, self.prepare(names)]
        self.add(pattern, value)

    def make(self):
        leaves = [name for name, child in self.module.named_modules()
                  if name and not list(child.children()) and (
                      list(child.parameters()) or isinstance(
                          child, nn.Dropout))]
        share = self.rng.choice([0.5, 0.8, 1.0])
        for name in leaves:
            if name not in self.styled and self.rng.random() < share:
                self.add_placing(name)
        for name in self.ranks:
            if self.rng.random() < 0.08:
                self.add(name, self.prepare([name]))
        if self.rng.random() < 0.1:
            self.add("blocks.*.nowhere", Style("ColwiseParallel",
                                               self.mesh_dim()))
        if self.rng.random() < 0.1:
            self.add("blocks.b0", None)
        return self.plan


def random_plan(rng, case):
    return PlanMaker(rng, case).make()


def random_data_parallel(rng, case):
    """Of mesh dims that no style works on."""
    styles = [style for _, style in assignments(case.module(), case.plan)]
    default = plan_dim(case.mesh, styles)
    taken = {default} | {style.mesh_dim for style in styles}
    kinds = [None, "replicate", "fully_shard", "fully_shard"]
    pairs = [(dim, rng.choice(kinds)) for dim in case.mesh if dim not in taken]
    return tuple(pair for pair in pairs if pair[1])
