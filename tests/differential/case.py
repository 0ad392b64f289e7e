"""A case: everything that a differential test needs, as one value. Its repr is
source: `Case(...)` in a test of its own is the same case again."""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

import shardplane as sp
from tests.differential.blocks import BLOCKS, Sizes
from tests.differential.styles import build_plan

LR = 0.05


def square(y, target):
    return ((y - target) * (y - target)).mean()


def cross_entropy(y, target):
    return F.cross_entropy(y.flatten(0, 1), target.flatten())


def smoothed(y, target):
    return F.cross_entropy(y.transpose(1, 2), target, reduction="sum",
                           label_smoothing=0.1, ignore_index=1) / 4


def mse(y, target):
    return F.mse_loss(y, target)


def bce(y, target):
    return F.binary_cross_entropy_with_logits(y, torch.sigmoid(target))


# The plainest first. What the target is: nothing, like the output, or classes.
LOSSES = {"mean": "", "sum": "", "square": "like", "mse": "like",
          "bce": "like", "cross_entropy": "classes", "smoothed": "classes"}
_CALLABLES = {f.__name__: f for f in (square, cross_entropy, smoothed, mse,
                                      bce)}
OPTIMIZERS = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
    # eps: what is zero but for rounding must not be magnified.
    "adam": ("Adam", {"eps": 1e-3}),
    "adamw": ("AdamW", {"eps": 1e-3, "weight_decay": 0.1}),
}


class Net(nn.Module):
    def __init__(self, case):
        super().__init__()
        sizes = Sizes(case.batch, case.sequence, case.width)
        if case.vocabulary:
            self.tok = nn.Embedding(case.vocabulary, case.width)
        self.blocks = nn.ModuleDict({
            name: BLOCKS[kind](sizes, **options)
            for name, (kind, options) in case.blocks.items()})
        if case.head:
            self.head = nn.Linear(case.width, case.head, bias=False)

    def forward(self, x):
        if hasattr(self, "tok"):
            x = self.tok(x)
        for block in self.blocks.values():
            x = block(x)
        return self.head(x) if hasattr(self, "head") else x


@dataclasses.dataclass(frozen=True)
class Case:
    """`blocks`: name -> (kind, options). `plan`: as parallelize_module takes
    it, with Styles. `vocabulary`: of ids as input; 0: floats. `head`: columns
    of a last linear; 0: none. `frozen`: FQNs; `tied`: pairs of modules, the
    second of which takes the first's weight. `data_parallel`: pairs of mesh
    dim and kind. `unit_bytes`: as parallelize_module takes it; 0: each block
    is a unit, which gathers and scatters for itself. `recompute`: patterns.
    `reshard`: mesh dim and tensor dim of an InputReshard of the whole.
    `chunks`: by costs for which products are made in pieces wherever they can
    be."""

    mesh: dict
    blocks: dict
    plan: dict
    batch: int = 2
    sequence: int = 3
    width: int = 4
    vocabulary: int = 0
    head: int = 0
    loss: str = "sum"
    optimizer: str = "sgd"
    clip: float = 0.0
    frozen: tuple = ()
    tied: tuple = ()
    input_gradient: bool = False
    src_data_rank: int | None = 0
    data_parallel: tuple = ()
    unit_bytes: int | None = None
    recompute: tuple = ()
    reshard: tuple = ()
    chunks: bool = False
    seed: int = 0

    def __repr__(self):
        lines = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default or field.name == "seed":
                lines.append(f"    {field.name}={_source(value)},")
        return "\n".join(["Case(", *lines, ")"])

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)

    def module(self):
        torch.manual_seed(self.seed)
        net = Net(self).double()
        modules = dict(net.named_modules())
        for first, second in self.tied:
            modules[second].weight = modules[first].weight
        for name, parameter in net.named_parameters(remove_duplicate=False):
            if name in self.frozen:
                parameter.requires_grad_(False)
        return net

    def input(self):
        generator = torch.Generator().manual_seed(self.seed + 1)
        if self.vocabulary:
            return torch.randint(self.vocabulary, (self.batch, self.sequence),
                                 generator=generator)
        x = torch.rand(self.batch, self.sequence, self.width,
                       dtype=torch.float64, generator=generator) - 0.4
        return x.requires_grad_(self.input_gradient)

    def targets(self):
        generator = torch.Generator().manual_seed(self.seed + 2)
        columns = self.head or self.width
        shape = (self.batch, self.sequence)
        if LOSSES[self.loss] == "classes":
            return (torch.randint(columns, shape, generator=generator),)
        if LOSSES[self.loss] == "like":
            return (torch.rand(*shape, columns, dtype=torch.float64,
                               generator=generator),)
        return ()

    def loss_function(self):
        """As step takes it."""
        return _CALLABLES.get(self.loss, self.loss)

    def loss_of(self, output, targets):
        if self.loss in _CALLABLES:
            return _CALLABLES[self.loss](output, *targets)
        return getattr(output, self.loss)()

    def torch_optimizer(self, module):
        name, options = OPTIMIZERS[self.optimizer]
        return getattr(torch.optim, name)(
            [p for p in module.parameters() if p.requires_grad], lr=LR,
            **options)

    def own_optimizer(self):
        name, options = OPTIMIZERS[self.optimizer]
        return getattr(sp, name)(lr=LR, **options)

    @property
    def sharded(self):
        """The mesh dims that are fully sharded, in the mesh's order."""
        kinds = dict(self.data_parallel)
        return [dim for dim in self.mesh if kinds.get(dim) == "fully_shard"]

    def build_plan(self):
        plan = build_plan(self.plan)
        if not self.reshard:
            return plan
        mesh_dim, dim = self.reshard
        style = sp.InputReshard(dim, mesh_dim=mesh_dim)
        own = plan.get("", [])
        return {**plan, "": [*(own if isinstance(own, list) else [own]),
                             style]}


def _source(value, indent=8):
    """repr, with an entry of a dict on each line."""
    if not isinstance(value, dict) or len(repr(value)) < 50:
        return repr(value)
    entries = "".join(f"\n{' ' * indent}{key!r}: {_source(item, indent + 4)},"
                      for key, item in value.items())
    return f"{{{entries}\n{' ' * (indent - 4)}}}"
