"""A deployment against an unsharded copy of its module."""

import contextlib
import dataclasses
import re
from copy import deepcopy

import torch

import shardplane as sp

LR = 0.25
PHASES = ("materialize", "forward", "backward", "optimizer")


EXACT = 1e-10  # float64: equal but for the order of sums


def assert_close(actual, expected, what=""):
    """To rounding, in the dtype at hand."""
    wide = expected.dtype in (torch.float64, torch.complex128)
    tolerance = {"rtol": EXACT, "atol": EXACT} if wide else {}
    torch.testing.assert_close(
        actual, expected.detach(), **tolerance,
        msg=lambda text: f"{what}: {text}")


def chunk(tensor, dim, ranks):
    """What each rank holds, as torch.chunk cuts; late ranks may be empty."""
    pieces = list(torch.chunk(tensor.detach(), ranks, dim))
    while len(pieces) < ranks:
        pieces.append(tensor.detach().narrow(dim, 0, 0))
    return pieces


@dataclasses.dataclass(frozen=True)
class Packed:
    """A cut of each block by itself. `blocks`: (size, unit, replicas), the
    last two 1 where they are left out."""

    dim: int
    blocks: tuple

    def __str__(self):
        def text(size, unit=1, replicas=1):
            return (f"{size // unit}*{unit}" if unit > 1 else f"{size}") + (
                f"/{replicas}" if replicas > 1 else "")
        return (f"S({self.dim}: "
                f"{', '.join(text(*block) for block in self.blocks)})")

    @classmethod
    def parse(cls, text):
        """Of a placement's text; None: it is not packed."""
        match = re.fullmatch(r"S\((\d+): ([^)]+)\)(#\d)?", text)
        if match is None:
            return None

        def block(text):
            count, unit, replicas = re.fullmatch(
                r"(\d+)(?:\*(\d+))?(?:/(\d+))?", text).groups()
            return (int(count) * int(unit or 1), int(unit or 1),
                    int(replicas or 1))
        return cls(int(match[1]), tuple(map(block, match[2].split(", "))))

    def pieces(self, value, ranks):
        """What each rank has: of each block whole units, as torch.chunk cuts
        these; groups of `replicas` neighbours have the same."""
        def piece(rank):
            parts, begin = [], 0
            for block in self.blocks:
                size, unit, replicas = (*block, 1, 1)[:3]
                units = list(range(begin, begin + size, unit))
                each = -(-len(units) // (ranks // replicas))
                mine = units[rank // replicas * each:][:each]
                parts += [value.narrow(self.dim, at, unit) for at in mine]
                begin += size
            assert begin == value.shape[self.dim]
            return torch.cat(parts or [value.narrow(self.dim, 0, 0)],
                             self.dim)
        return [piece(rank) for rank in range(ranks)]


def shards(value, cut, ranks):
    """`cut`: a tensor dim, or Packed."""
    value = value.detach()
    if isinstance(cut, Packed):
        return cut.pieces(value, ranks)
    return chunk(value, cut, ranks)


def coordinates(mesh):
    """Of each rank: mesh dim -> index; the last dim varies fastest."""
    ranks = [{}]
    for dim, size in mesh.items():
        ranks = [rank | {dim: i} for rank in ranks for i in range(size)]
    return ranks


def piece(value, cuts, at, mesh):
    """What is left to the rank at these coordinates. `cuts`: (mesh dim, tensor
    dim or Packed), one after the other."""
    value = value.detach()
    for mesh_dim, cut in cuts:
        value = shards(value, cut, mesh[mesh_dim])[at[mesh_dim]]
    return value


def padded_bytes(tensor, dim, ranks):
    """A tensor gathered or scattered along `dim`, shards padded alike."""
    size = tensor.shape[dim]
    rest = tensor.numel() // max(size, 1)
    return -(-size // ranks) * ranks * rest * tensor.element_size()


def check_parameters(m, reference, what):
    state = m.state_dict()
    expected = reference.state_dict()
    assert list(state) == list(expected), what
    for name, value in expected.items():
        assert_close(state[name], value, f"{what} {name}")


def check_gradients(m, reference):
    gradients = m.gradients()
    expected = {name: p.grad for name, p in reference.named_parameters(
        remove_duplicate=False) if p.grad is not None}
    assert sorted(gradients) == sorted(expected)
    for name, value in expected.items():
        assert_close(gradients[name], value, f"gradient {name}")


def check_shards(m, reference, cuts):
    """`cuts`: FQN -> tensor dim or Packed; every other parameter is whole
    anywhere."""
    ranks = m.num_ranks
    for name, value in reference.named_parameters():
        actual = m.shards(name)
        assert len(actual) == ranks
        if name in cuts:
            expected = shards(value, cuts[name], ranks)
            if ranks > 1 and not isinstance(cuts[name], Packed) and (
                    value.shape[cuts[name]] > 1):
                assert all(shard.numel() < value.numel()
                           for shard in actual), f"{name} is not cut"
        else:
            expected = [value] * ranks
        for rank, (shard, piece) in enumerate(zip(actual, expected)):
            assert_close(shard, piece, f"{name} on rank {rank}")


def check_placements(report, reference, cuts):
    """The report's word on what is cut how."""
    for name, _ in reference.named_parameters():
        cut = cuts.get(name, "R")
        text = f"S({cut})" if isinstance(cut, int) else str(cut)
        assert report.placements[name] == f"[{text}]", name


def total(counts, phases=PHASES):
    return sum(sum(counts[phase].values()) for phase in phases)


def assert_counts(m, **expected):
    """`assert_counts(m, forward={"all_reduce": 1}, backward={})`."""
    counts = m.comm_counts()
    for phase, kinds in expected.items():
        assert dict(counts[phase]) == kinds, f"{phase}: {counts}"


def assert_predicted(m):
    """What the last call ran is what the report of its program says, kind by
    kind, and what its modules cause adds up to that."""
    report, ran = m.program_report(), m.comm_counts()
    moved = m.comm_bytes()
    for phase in ("forward", "backward"):
        assert dict(ran[phase]) == dict(report.collectives[phase]), phase
        assert dict(moved[phase]) == dict(report.collective_bytes[phase])
        rows = [row for row in report.module_collectives
                if row.phase == phase]
        assert sum(row.count for row in rows) == sum(ran[phase].values())
        assert sum(row.bytes for row in rows) == sum(moved[phase].values())
        assert all(row.why for row in rows)


def assert_at_most(m, **expected):
    """No kind runs more often than said; what is not named never runs."""
    counts = m.comm_counts()
    for phase, kinds in expected.items():
        for kind, count in counts[phase].items():
            assert count <= kinds.get(kind, 0), f"{phase}: {counts}"


def assert_no_more(m, **expected):
    """No more collectives in a phase than said, of whatever kind."""
    counts = m.comm_counts()
    for phase, kinds in expected.items():
        assert total(counts, [phase]) <= sum(kinds.values()), (
            f"{phase}: {counts}")


def assert_bytes(m, **bounds):
    """Upper bounds on the bytes moved in a phase, on one rank."""
    moved = m.comm_bytes()
    for phase, bound in bounds.items():
        assert sum(moved[phase].values()) <= bound, f"{phase}: {moved}"


@dataclasses.dataclass
class Case:
    """A module under a plan beside its unsharded copy."""

    m: object
    reference: torch.nn.Module
    cuts: dict

    def check_start(self):
        check_placements(self.m.report, self.reference, self.cuts)
        check_parameters(self.m, self.reference, "at the start:")
        check_shards(self.m, self.reference, self.cuts)

    def check_forward(self, x):
        expected = self.reference(x.detach())
        assert_close(self.m(x), expected, "forward")
        assert_predicted(self.m)
        return expected

    def check_backward(self, x, loss="sum"):
        """Gradients of parameters and input; the parameters stay."""
        self.reference.zero_grad()
        twin = x.detach().clone().requires_grad_(x.requires_grad)
        expected = getattr(self.reference(twin), loss)()
        expected.backward()
        assert_close(self.m.forward_backward(x, loss=loss), expected, "loss")
        assert_predicted(self.m)
        check_gradients(self.m, self.reference)
        if x.requires_grad:
            (gradient,) = self.m.input_gradients()
            assert_close(gradient, twin.grad, "input gradient")

    def check_step(self, x, loss="sum"):
        optimizer = torch.optim.SGD(self.reference.parameters(), lr=LR)
        optimizer.zero_grad()
        expected = getattr(self.reference(x.detach()), loss)()
        expected.backward()
        optimizer.step()
        actual = self.m.step(x.detach(), loss=loss, optimizer=sp.SGD(lr=LR))
        assert_close(actual, expected, "loss")
        assert_predicted(self.m)
        assert actual.dim() == 0
        check_gradients(self.m, self.reference)
        check_parameters(self.m, self.reference, "after the step:")
        check_shards(self.m, self.reference, self.cuts)

    def check_adam_steps(self, x, target, loss, steps=3, lr=1e-2):
        """`loss` of (output, target): each step's, and at the end gradients
        and parameters."""
        trainable = [p for p in self.reference.parameters()
                     if p.requires_grad]
        optimizer = torch.optim.Adam(trainable, lr=lr)
        for step in range(steps):
            optimizer.zero_grad()
            expected = loss(self.reference(x), target)
            expected.backward()
            actual = self.m.step(x, targets=(target,), loss=loss,
                                 optimizer=sp.Adam(lr=lr))
            assert_close(actual, expected, f"loss of step {step}")
            assert_predicted(self.m)
            optimizer.step()
        check_gradients(self.m, self.reference)
        check_parameters(self.m, self.reference, f"after {steps} steps:")
        check_shards(self.m, self.reference, self.cuts)

    def check_all(self, x):
        """Parameters, forward, gradients, parameters after SGD."""
        self.check_start()
        self.check_forward(x)
        if any(p.requires_grad for p in self.reference.parameters()):
            self.check_step(x)


@contextlib.contextmanager
def parallelized(cluster, module, mesh, plan, *, cuts=None, x=None,
                 **options):
    """A Case; `x`: example input."""
    reference = deepcopy(module)
    before = {name: value.clone()
              for name, value in module.state_dict().items()}
    if x is not None:
        options["example_inputs"] = (x,)
    with cluster.parallelize_module(module, mesh, plan, **options) as m:
        yield Case(m, reference, cuts or {})
    for name, value in module.state_dict().items():  # it is never changed
        assert torch.equal(value, before[name]), name
