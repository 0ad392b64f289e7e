"""One case on a cluster, beside the same module unsharded, to 1e-10."""

import re
import traceback
import warnings
from copy import deepcopy

import torch

from tests.differential.styles import (
    assignments, collectives_of, expected_cuts, placements_text, plan_dim,
    stored_cuts, wanted_otherwise)
from tests.differential.traffic import bound
from tests.parity import (
    Packed, assert_close, check_gradients, check_parameters, coordinates,
    piece)

STEPS = 2
CHUNKS = {"us_per_mib": 1000, "beside": 1}


def _whole_heads(module, blocks, ranks):
    head = module.head_dim
    return all((unit % head == 0 or -(-size // ranks) % head == 0)
               and replicas in (1, ranks // (size // head))
               for size, unit, replicas in blocks)


def _two_halves(_, blocks, ranks):
    del ranks
    return [block[1:] for block in blocks] == [(1, 1), (1, 1)]


def _whole_rows(module, blocks, ranks):
    """Of an outer product that was flattened."""
    del ranks
    return [block[1:] for block in blocks] == [(module.hidden, 1)]


def _whole_groups(module, blocks, ranks):
    """Of a dim that is viewed as groups and elements."""
    del ranks
    return [(size, replicas) for size, _, replicas in blocks] == [
        (unit * module.groups, 1) for _, unit, _ in blocks[:1]]


# Kinds of blocks whose weights may be packed: whether theirs are as they should
# be, by (module, blocks of the cut, ranks).
_PACKED_BY = {"Attention": _whole_heads, "Gated": _two_halves,
              "Outer": _whole_rows, "Views": _whole_groups}


class Failure(AssertionError):
    """`kind` says what failed, in a few words that stay when a case gets
    smaller; `program` is the text of the program, if there was one."""

    def __init__(self, case, stage, error, program=""):
        self.case, self.stage, self.error = case, stage, error
        self.program = program
        super().__init__(self.text())

    @property
    def kind(self):
        # Figures and names come and go with the sizes.
        details = getattr(self.error, "details", {})
        op = details.get("metadata", {}).get("op", "")
        return " ".join(filter(None, [
            f"{self.stage}:", type(self.error).__name__,
            details.get("reason", ""), op]))

    def text(self):
        where = "".join(traceback.format_exception_only(self.error)).strip()
        return "\n\n".join(filter(None, [
            f"seed {self.case.seed} failed: {self.kind}", where,
            repr(self.case), self.program]))


class Check:
    """`check.stage` is what is being compared."""

    def __init__(self, cluster, case):
        self.cluster, self.case = cluster, case
        self.stage, self.program = "building", ""
        self.m = None

    def run(self):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                self.compare()
        except Exception as error:
            raise Failure(self.case, self.stage, error,
                          self.program) from error

    def compare(self):
        case = self.case
        self.reference = case.module()
        self.cuts = expected_cuts(self.reference, case.mesh, case.plan)
        x, targets = case.input(), case.targets()
        # On a copy: a forward may change buffers.
        trains = case.loss_of(deepcopy(self.reference)(x),
                              targets).requires_grad
        self.stage = "compiling"
        loss = {"loss": case.loss_function(),
                "example_targets": targets} if trains else {}
        with self.cluster.parallelize_module(
                case.module(), case.mesh, case.build_plan(),
                example_inputs=(x,), src_data_rank=case.src_data_rank,
                data_parallel=dict(case.data_parallel) or None,
                unit_bytes=case.unit_bytes, recompute=case.recompute,
                link_costs=CHUNKS if case.chunks else None,
                seed=case.seed, **loss) as self.m:
            self.program = self.m.report.program_text
            self.start()
            self.stage = "forward"
            assert_close(self.m(x.detach()), self.reference(x), "output")
            if trains:
                self.train(x, targets)

    def start(self):
        self.stage = "placements"
        placements = self.m.report.placements
        for name, value in self.reference.named_parameters(
                remove_duplicate=False):
            if name in self.cuts:
                self.cuts[name] = self.packed(name, value, placements[name])
            expected = placements_text(self.stored(name, value),
                                       self.case.mesh)
            assert placements[name] == expected, (
                f"{name} is {placements[name]}, expected {expected}")
        self.stage = "start"
        check_parameters(self.m, self.reference, "at the start:")
        self.shards("shards")

    def packed(self, name, value, text):
        """The plan's cut of a parameter, in the blocks that the report has of
        it: of a few kinds of blocks alone, along the same dim, all of it, in
        whole heads, rows or groups, and less than all of it on each rank that
        does not share the only head."""
        mesh_dim, dim = self.cuts[name]
        own = re.findall(r"\w\([^)]*\)(?:#\d)?|R", text)
        packed = Packed.parse(own[list(self.case.mesh).index(mesh_dim)])
        if packed is None:
            return mesh_dim, dim
        module = self.reference.get_submodule(
            name.rpartition(".")[0].rpartition(".")[0])
        kind = type(module).__name__
        assert kind in _PACKED_BY, f"{name} is {text}"
        assert packed.dim == dim, f"{name} is {text}"
        assert sum(size for size, _, _ in packed.blocks) == value.shape[dim]
        ranks = self.case.mesh[mesh_dim]
        assert _PACKED_BY[kind](module, packed.blocks, ranks), (
            f"{name} is {text}")
        return mesh_dim, packed

    def stored(self, name, value):
        return stored_cuts(self.cuts.get(name), value, self.case.sharded)

    def shards(self, stage):
        """What lies on each rank is what the plan says, and no more."""
        self.stage = stage
        ranks = coordinates(self.case.mesh)
        for name, value in self.reference.named_parameters():
            shards = self.m.shards(name)
            assert len(shards) == len(ranks)
            cuts = self.stored(name, value)
            for at, shard in zip(ranks, shards):
                assert_close(shard, piece(value, cuts, at, self.case.mesh),
                             f"{name} at {at}")

    def train(self, x, targets):
        case = self.case
        if not any(p.requires_grad for p in self.reference.parameters()):
            self.input_alone(x, targets)
            return
        torch_optimizer = case.torch_optimizer(self.reference)
        self.stage = "loss"
        for step in range(STEPS):
            twin = x.detach().clone().requires_grad_(x.requires_grad)
            torch_optimizer.zero_grad()
            expected = case.loss_of(self.reference(twin), targets)
            expected.backward()
            actual = self.m.step(
                x, targets=targets, loss=case.loss_function(),
                optimizer=case.own_optimizer(),
                clip_norm=case.clip or None)
            assert_close(actual, expected, "loss")
            if not step:
                self.first_step(twin)
                self.stage = "loss of a later step"
            if case.clip:
                torch.nn.utils.clip_grad_norm_(
                    self.reference.parameters(), case.clip)
            torch_optimizer.step()
        self.stage = "parameters after steps"
        check_parameters(self.m, self.reference, "after the steps:")
        self.shards("shards after steps")

    def input_alone(self, x, targets):
        """All parameters are frozen: nothing to update."""
        self.stage = "loss"
        twin = x.detach().clone().requires_grad_()
        expected = self.case.loss_of(self.reference(twin), targets)
        expected.backward()
        assert_close(self.m.forward_backward(x, targets=targets), expected,
                     "loss")
        self.first_step(twin)

    def first_step(self, twin):
        self.stage = "gradients"
        check_gradients(self.m, self.reference)
        if twin.requires_grad:
            self.stage = "input gradient"
            (gradient,) = self.m.input_gradients()
            assert (gradient is None) == (twin.grad is None)
            if gradient is not None:
                assert_close(gradient, twin.grad, "input gradient")
        self.stage = "collectives"
        self.collectives()
        self.stage = "bytes"
        check_bytes(self.m.comm_bytes(), bound(self.case))

    def collectives(self):
        """As predicted; along the mesh dims of styles alone; no weights, but
        where two dims' styles ask for one factor in another order."""
        counts, predicted = self.m.comm_counts(), self.m.report.collectives
        for phase in ("forward", "backward"):
            assert counts[phase] == predicted[phase], (
                f"{phase}: predicted {predicted[phase]}, ran {counts[phase]}")
        pairs = list(assignments(self.reference, self.case.plan))
        default = plan_dim(self.case.mesh, [style for _, style in pairs])
        active = {style.mesh_dim or default for _, style in pairs}
        active |= dict(self.case.data_parallel).keys()
        active |= set(self.case.reshard[:1])
        parameters = parameter_values(self.program)
        tied = wanted_otherwise(self.reference, self.case.mesh,
                                self.case.plan)
        may_travel = {name for name, p in self.reference.named_parameters(
            remove_duplicate=False) if any(p is other for other in tied)}
        for kind, dim, inputs in collectives_of(self.program):
            assert dim in active, f"{kind} along {dim}, where nothing is cut"
            if dim in self.case.sharded:
                continue  # there weights are gathered
            for value in inputs if len(active) == 1 else []:
                name = parameters.get(value)
                assert name is None or name in may_travel, (
                    f"{name} travels: {kind} along {dim}")


def parameter_values(program):
    """Id of a value -> FQN of the parameter that it is."""
    part = program.partition("parameters\n")[2].partition("\ninputs")[0]
    return {int(number): name for number, name in re.findall(
        r"^\s+%(\d+): \S+\[[^\]]*\] \[[^\]]*\] ([\w.]+)", part, re.MULTILINE)}


def check_bytes(moved, limit):
    for phase in ("forward", "backward"):
        total = sum(moved[phase].values())
        most = getattr(limit, phase)
        assert total <= most, (
            f"{phase} moved {total} bytes, expected at most {most}: "
            f"{dict(moved[phase])}")


def check(cluster, case):
    """Raises a Failure."""
    Check(cluster, case).run()
