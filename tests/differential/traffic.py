"""An upper bound on the bytes that a case may move, from its plan and from the
sizes of its activations, worked out beside a run of the unsharded module.

For each mesh dim the run follows what the plan says of each value:

    None    whole on every rank
    "S(d)"  cut along tensor dim d
    "C"     cut somewhere
    "?"     cut, or a partial sum

and counts a value's bytes where a style or an operator may have to move it.
Parameters are never among them in the forward pass, nor, where the plan cuts
them, in the backward pass: a program that gathers weights, or what stays cut
between a colwise and a rowwise linear, moves more than this.
"""

import contextlib
import dataclasses

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tests.differential.styles import (
    PLACING, assignments, expected_cuts, plan_dim, wanted_otherwise)

POINTWISE = {
    "abs", "add", "and", "clamp", "clone", "contiguous", "cos", "div",
    "double", "dropout", "exp", "gelu", "gt", "lt", "masked_fill", "mul",
    "neg", "pow", "relu", "rsqrt", "rsub", "sigmoid", "silu", "sin",
    "softplus", "sqrt", "sub", "tanh", "to", "truediv", "where"}
# They need no other rank's part: a sum over a cut dim is a partial sum.
FREE = {"sum", "mean"}
SOFTMAX = {"softmax", "log_softmax", "cross_entropy"}


@dataclasses.dataclass
class Bound:
    forward: int = 0
    backward: int = 0

    def __add__(self, other):
        return Bound(self.forward + other.forward,
                     self.backward + other.backward)


def padded(tensor, ranks):
    """As if its least favourable dim were cut into equal chunks."""
    most = max([-(-size // ranks) * ranks / size
                for size in tensor.shape if size] or [1])
    return round(tensor.numel() * tensor.element_size() * most)


def bound(case):
    """Of one training step, on one rank."""
    module = case.module()
    styles = list(assignments(module, case.plan))
    default = plan_dim(case.mesh, [style for _, style in styles])
    dims = {style.mesh_dim or default for _, style in styles}
    dims = [dim for dim in case.mesh if dim in dims and case.mesh[dim] > 1]
    total = Bound()
    for dim in dims:
        own = [(fqn, style) for fqn, style in styles
               if (style.mesh_dim or default) == dim]
        follower = Follower(case, dim, own)
        if follower.run().claimed:  # the input is handed out in parts
            follower = Follower(case, dim, own, "C").run()
        total += follower.total()
    batches = [dim for dim, _ in case.data_parallel if case.mesh[dim] > 1]
    for dim in batches:
        total += of_a_batch(case, dim)
    if case.recompute:
        total += Bound(0, total.forward)
    if case.reshard:
        total += Bound(0, 2 * kept_bytes(case))
    # Along two dims: what one has cut may have to make way for the other.
    return total + total if len(dims) + len(batches) > 1 else total


def kept_bytes(case):
    """What PyTorch's autograd keeps of the whole beside parameters, each
    tensor once. Gathered again in equal parts it is less than twice that."""
    module = case.module()
    fixed = {t.data_ptr() for t in [*module.parameters(), *module.buffers()]}
    kept = {}

    def pack(tensor):
        if tensor.data_ptr() not in fixed:
            kept[tensor.data_ptr(), tensor.shape] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        case.loss_of(module(case.input()), case.targets())
    return sum(tensor.nbytes for tensor in kept.values())


def of_a_batch(case, dim):
    """Inputs and targets are cut along dim 0, but one row is not; parameters
    that are cut along `dim` are gathered once, and where there are several
    units again for the backward pass."""
    state = None if case.batch == 1 else "S(0)"
    follower = Follower(case, dim, [], state, of_targets=state)
    gathered = sum(padded(p, case.mesh[dim])
                   for p in follower.module.parameters()
                   ) if dim in case.sharded else 0
    again = gathered if case.unit_bytes == 0 else 0
    return follower.run().total() + Bound(gathered, again)


class Follower(TorchFunctionMode):
    """Of one mesh dim: what its styles make of each value."""

    def __init__(self, case, dim, styles, of_input=None, of_targets=None):
        super().__init__()
        self.case, self.ranks, self.styles = case, case.mesh[dim], styles
        self.module = case.module()
        cuts = expected_cuts(self.module, case.mesh, case.plan)
        self.cut = {id(p) for name, p in self.module.named_parameters(
            remove_duplicate=False) if cuts.get(name, ("",))[0] == dim}
        self.fixed = {id(t) for t in [*self.module.parameters(),
                                      *self.module.buffers()]}
        self.of_input, self.of_targets = of_input, of_targets
        self.claimed = self.moved_back = False
        self.states = dict.fromkeys(self.cut, "C")
        self.kept, self.roots = [], set()
        self.moved = Bound()
        self.quiet = 0

    def total(self):
        whole = sum(padded(p, self.ranks) for p in self.module.parameters()
                    if p.requires_grad and id(p) not in self.cut)
        tied = sum(padded(p, self.ranks) for p in wanted_otherwise(
            self.module, self.case.mesh, self.case.plan))
        shared = sum(padded(p, self.ranks) for block in self.module.modules()
                     if getattr(block, "heads", (0, self.ranks))[1] <
                     self.ranks
                     for p in block.parameters() if id(p) in self.cut)
        return self.moved + Bound(tied, whole + tied + shared)

    def run(self):
        for fqn, style in self.styles:
            child = self.module.get_submodule(fqn)
            child.register_forward_pre_hook(
                lambda module, inputs, style=style: self.enter(
                    module, style, inputs))
            child.register_forward_hook(
                lambda module, _, output, style=style: self.leave(
                    module, style, output))
        x, targets = self.case.input(), self.case.targets()
        self.kept += [x, *targets]
        self.roots.add(id(x))
        self.states[id(x)] = self.of_input
        for target in targets:
            self.states[id(target)] = self.of_targets
        with torch.no_grad(), self:
            output = self.module(x)
            self.case.loss_of(output, targets)
        return self

    # ------------------------------------------------------------- values

    def state(self, tensor):
        return self.states.get(id(tensor))

    def bytes(self, *tensors):
        return sum(padded(t, self.ranks) for t in tensors)

    def note(self, forward=0, backward=0):
        self.moved += Bound(forward, backward)

    @contextlib.contextmanager
    def aside(self):
        self.quiet += 1
        yield
        self.quiet -= 1

    def moved_to(self, x, layout):
        """The value under another state, as a style asks for it."""
        with self.aside():
            last = x.dim() - 1
            twin = torch.ops.aten.alias(x)
        state = layout.replace("-1", str(last))
        state = {"R": None, "P": "?"}.get(state, state)
        if state != self.state(x):
            forward = self.bytes(x) if self.state(x) is not None else 0
            self.note(forward, self.bytes(x))
        self.kept.append(twin)
        self.states[id(twin)] = state
        if id(x) in self.roots:
            self.roots.add(id(twin))
        return twin

    # ------------------------------------------------------------- styles

    def enter(self, module, style, inputs):
        x = inputs[0]
        claim = style.get("input_layouts", {
            "SequenceParallel": "S", "RowwiseParallel": "S"}.get(
                style.kind, "R"))
        if claim != "R" and id(x) in self.roots:
            self.claimed = True
        if style.kind == "ColwiseParallel":
            x = self.moved_to(x, "R")
            self.note(backward=self.bytes(x))
            self.quiet += 1
        elif style.kind == "RowwiseParallel":
            x = self.moved_to(
                x, "S(-1)" if isinstance(module, nn.Linear) else "R")
            self.quiet += 1
        elif style.kind == "SequenceParallel":
            x = self.moved_to(x, f"S({style.get('sequence_dim', 1)})")
        elif "Input" in style.kind:
            # After a placing style of the same module: it is moved back.
            self.moved_back = bool(self.quiet)
            if self.moved_back:
                self.note(self.bytes(x), self.bytes(x))
            x = self.moved_to(x, style.get("desired_input_layouts", "R"))
        return (x,)

    def leave(self, module, style, output):
        if self.moved_back and style.kind in PLACING:
            self.note(self.bytes(output), self.bytes(output))
            self.moved_back = False
        if style.kind == "ColwiseParallel":
            self.quiet -= 1
            self.states[id(output)] = f"S({output.dim() - 1})"
            layout = style.get("output_layouts", "S(-1)")
        elif style.kind == "RowwiseParallel":
            self.quiet -= 1
            self.states[id(output)] = "?"
            layout = style.get("output_layouts", "R")
        elif "Output" in style.kind:
            layout = style.get("desired_output_layouts", "R")
        else:
            return output
        self.kept.append(output)
        return self.moved_to(output, layout)

    # ---------------------------------------------------------- operators

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        outputs = [t for t in (result if isinstance(result, (tuple, list))
                               else [result]) if isinstance(t, torch.Tensor)]
        if self.quiet or not outputs:
            return result
        operands = list(_tensors([args, kwargs or {}]))
        self.kept += outputs
        cut = [t for t in operands if self.state(t) is not None]
        if cut:
            name = _name(func)
            if name in SOFTMAX:
                name = self.softmax(name, *args, **(kwargs or {}))
            state = self.follow(name, args, operands, cut, outputs)
            for output in outputs:
                self.states[id(output)] = state
        return result

    def follow(self, name, args, operands, cut, outputs):
        """The state of an operator's results; counts what it may move."""
        if name in POINTWISE:
            return self.pointwise(operands, cut, outputs[0])
        kept = self.kept_cut(name, args, operands, cut, outputs[0])
        if kept is not None:
            return kept
        activations = [t for t in operands if id(t) not in self.fixed]
        if name not in FREE:
            self.note(forward=self.bytes(*(
                t for t in cut if id(t) not in self.fixed)))
        if name in SOFTMAX:
            rows = cut[0].numel() // max(cut[0].shape[-1], 1)
            self.note(forward=4 * 8 * rows)  # maxima and sums of its rows
        self.note(backward=self.bytes(*activations, *outputs))
        return "?"

    def softmax(self, name, x, dim=None, **_):
        """Pointwise where another dim is cut than that of the sums."""
        state = self.state(x)
        apart = (name != "cross_entropy" and state not in (None, "?", "C")
                 and state != f"S({dim % x.dim()})")
        return "exp" if apart else name

    def pointwise(self, operands, cut, output):
        partial = [t for t in cut if self.state(t) == "?"]
        self.note(self.bytes(*partial), self.bytes(*partial))
        self.note(backward=self.bytes(*(
            t for t in operands if t not in in_(cut) and t.dim()
            and id(t) not in self.fixed)))
        if partial:
            others = [t for t in cut if t not in in_(partial)]
            self.note(self.bytes(*others), self.bytes(*others))
            return "?"
        # Counted from the last dim, where operands of fewer dims begin.
        places = {self.state(t) if self.state(t) == "C"
                  else (int(self.state(t)[2:-1]) - t.dim(), t.shape[
                      int(self.state(t)[2:-1])]) for t in cut}
        if len(places) == 1 and (places != {"C"} or len(cut) == 1):
            (place,) = places
            return place if place == "C" else f"S({output.dim() + place[0]})"
        self.note(self.bytes(*cut), self.bytes(*cut))
        return "C"

    def kept_cut(self, name, args, operands, cut, output):
        """Operators that work on each part alone: the results' state."""
        x = args[0] if args and isinstance(args[0], torch.Tensor) else cut[0]
        state = self.state(x)
        if state in (None, "C", "?"):
            return None
        dim = int(state[2:-1])
        if name in ("transpose", "mT", "t"):
            first, second = (args[1:3] if name == "transpose"
                             else (x.dim() - 2, x.dim() - 1))
            order = list(range(x.dim()))
            order[first], order[second] = order[second], order[first]
            return f"S({order.index(dim)})"
        if name in ("view", "reshape", "flatten", "unflatten"):
            return self.viewed(x, dim, output)
        if name in ("layer_norm", "rms_norm") and dim < x.dim() - 1:
            return state
        if name == "linear" and dim < x.dim() - 1 and id(
                args[1]) not in self.cut:
            return state
        if name in ("matmul", "bmm", "scaled_dot_product_attention") and (
                dim < x.dim() - 2 and all(
                    self.state(t) == state and t.shape[dim] == x.shape[dim]
                    for t in operands[:3])):
            return state
        return None

    def viewed(self, x, dim, output):
        """A dim that goes over whole, or split or joined at its front where
        the parts meet its edges."""
        before = x.shape[:dim]
        if list(output.shape[:dim]) != list(before) or dim >= output.dim():
            return None
        old, new = x.shape[dim], output.shape[dim]
        small, large = min(old, new), max(old, new)
        whole = old == new or (large % max(small, 1) == 0
                               and small % self.ranks == 0)
        return f"S({dim})" if whole else None


class in_(list):
    """Membership by identity: `t not in in_(...)` compares no elements."""

    def __contains__(self, item):
        return any(item is other for other in self)


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _name(func):
    name = getattr(func, "__name__", "").strip("_")
    if name == "get":  # of a property: x.mT
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    for prefix in ("r", "i"):
        if name.startswith(prefix) and name[1:] in POINTWISE:
            return name[1:]
    return {"div": "truediv", "true_divide": "truediv"}.get(name, name)
