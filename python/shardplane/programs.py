"""Programs of a torch module: exported at a signature's first use."""

import inspect
import types

import torch

from shardplane import tensors
from shardplane.errors import PlanTypeError, invalid, unimplemented
from shardplane.export import export, export_loss, flatten_call
from shardplane.program_store import Call, Program, ProgramStore, Recent
from shardplane.v1 import coordinator_pb2 as pb

_REDUCTIONS = {"sum": pb.Loss.REDUCTION_SUM, "mean": pb.Loss.REDUCTION_MEAN}


def _leaf_key(leaf):
    if isinstance(leaf, torch.Tensor):
        return ("tensor", tuple(leaf.shape), leaf.dtype)
    try:
        hash(leaf)
    except TypeError:
        return ("object", id(leaf))
    return (type(leaf), leaf)


def loss_key(loss):
    """Equal for one function made anew by each call of its enclosing one."""
    if isinstance(loss, types.FunctionType):
        cells = tuple(id(cell.cell_contents) for cell in loss.__closure__ or
                      ())
        defaults = tuple(map(id, loss.__defaults__ or ()))
        return (loss.__code__, cells, defaults, id(loss.__globals__))
    return id(loss) if callable(loss) else loss


def _input_spec(tensor, name, requires_grad):
    return pb.InputSpec(type=tensors.type_of(tensor, f"input {name!r}"),
                        name=name, requires_grad=requires_grad)


def takes_targets(loss):
    """Whether it cannot be called with an output alone."""
    if not callable(loss):
        return False
    try:
        inspect.signature(loss).bind(None)
    except (TypeError, ValueError):  # ValueError: it does not say
        return True
    return False


def check_loss(loss):
    if loss is None or callable(loss):
        return
    if not isinstance(loss, str):
        raise invalid(
            f'loss: expected "sum", "mean" or a callable, got: {loss!r} of '
            f"type {type(loss).__name__}", reason="LOSS_TYPE",
            cls=PlanTypeError, field="loss")
    if loss not in _REDUCTIONS:
        raise invalid(
            f'loss: expected "sum", "mean" or a callable, got: {loss!r}',
            reason="LOSS_UNKNOWN", field="loss")


def _check_reduction(loss, exported, targets):
    if exported.tensor_outputs != 1:
        raise invalid(
            f"loss {loss!r}: expected a module with one output, got: "
            f"{exported.tensor_outputs}; a callable takes several",
            reason="LOSS_OUTPUTS", field="loss")
    if targets:
        raise invalid(f"loss {loss!r}: expected no targets, got: "
                      f"{len(targets)}", reason="LOSS_TARGETS",
                      field="targets")


class Programs(ProgramStore):
    """Keeps what it has exported."""

    codec = tensors
    check_loss = staticmethod(check_loss)
    takes_targets = staticmethod(takes_targets)

    def __init__(self, rpc, tree, call_signatures):
        super().__init__(rpc)
        self._tree = tree
        self._call_signatures = call_signatures
        self._exports = Recent()
        self._plain = Recent()  # see _plain_key
        self._deployed = None   # the Exported that the deployment was made of

    def first(self, args, kwargs, loss, targets):
        """The program to plan with, before there is a deployment."""
        check_loss(loss)
        targets = () if targets is None else targets
        targets = (targets,) if isinstance(targets, torch.Tensor) else tuple(
            targets)
        if not targets and takes_targets(loss):
            loss = None  # nothing to call it with: forward only for now
        call = self.call(args, kwargs, loss, targets)
        self._deployed = call.program.exported
        self.constants = self._deployed.constants
        return call.program

    def call(self, args, kwargs, loss=None, targets=()):
        """The program of a call, and its tensors."""
        plain = self._plain_key(args, kwargs, loss, targets)
        key, grads = self._plain.get(plain, (None, None))
        if key not in self._programs:
            return self._any_call(args, kwargs, loss, targets, plain)
        self._programs.move_to_end(key)
        self._plain.move_to_end(plain)
        return self._bound_call(self._programs[key], args, grads, targets)

    def _plain_key(self, args, kwargs, loss, targets):
        """Of a call with nothing but dense tensors by position, which are its
        leaves: enough to know its program again, and quickly made. None for
        any other."""
        if kwargs or not all(
                isinstance(value, torch.Tensor) and
                value.layout is torch.strided for value in (*args, *targets)):
            return None
        return (tuple((a.shape, a.dtype, a.requires_grad) for a in args),
                tuple((t.shape, t.dtype) for t in targets),
                self._tree.training_modes(), loss_key(loss))

    def _any_call(self, args, kwargs, loss, targets, plain):
        leaves, spec, names = flatten_call(self._tree.module, args, kwargs)
        for name, leaf in zip(names, leaves):
            if isinstance(leaf, torch.Tensor) and leaf.layout != torch.strided:
                raise unimplemented(f"layout {leaf.layout}",
                                    f"of input {name!r}")
        for i, target in enumerate(targets):
            if not isinstance(target, torch.Tensor):
                raise invalid(
                    f"target {i}: expected a tensor, got: "
                    f"{type(target).__name__}", reason="TARGET_TYPE",
                    cls=PlanTypeError, field=f"targets[{i}]")
        shape_key = (str(spec), tuple(map(_leaf_key, leaves)),
                     self._tree.training_modes())
        grads = tuple(
            loss is not None and isinstance(leaf, torch.Tensor) and
            leaf.requires_grad for leaf in leaves)
        key = (shape_key, grads, loss_key(loss),
               tuple(map(_leaf_key, targets)))
        program = self._programs.get_or(key, lambda: self._sign(
            self._export(shape_key, args, kwargs), leaves, names, grads, loss,
            targets))
        if plain is not None:
            self._plain.pop(plain, None)
            self._plain.get_or(plain, lambda: (key, grads))
        return self._bound_call(program, leaves, grads, targets)

    def _bound_call(self, program, leaves, grads, targets):
        indices = program.exported.input_indices
        return Call(program, [leaves[i] for i in indices],
                    [*targets, *program.loss_constants],
                    [position for position, i in enumerate(indices)
                     if grads[i]])

    def _export(self, key, args, kwargs):
        return self._exports.get_or(key, lambda: export(
            self._tree, args, kwargs, call_signatures=self._call_signatures))

    def _sign(self, exported, leaves, names, grads, loss, targets):
        signature = pb.ProgramSignature(inputs=[
            _input_spec(leaves[i], names[i], grads[i])
            for i in exported.input_indices])
        constants = self._sign_loss(signature, exported, loss, targets)
        if self._deployment is not None and exported is not self._deployed:
            self._check_constants(exported)
            signature.module.CopyFrom(exported.module)
        return Program(exported, signature, loss, constants)

    def _sign_loss(self, signature, exported, loss, targets):
        """Adds the loss; gives the tensors that it closes over."""
        if loss is None:
            return []
        if isinstance(loss, str):
            _check_reduction(loss, exported, targets)
            signature.loss.reduction = _REDUCTIONS[loss]
            return []
        graph, constants = export_loss(loss, exported, targets)
        signature.loss.graph.CopyFrom(graph)
        for i, target in enumerate([*targets, *constants]):
            signature.targets.append(_input_spec(target, f"target_{i}", False))
        return constants

    def _check_constants(self, exported):
        """Placements, and so parameters, are fixed with the deployment."""
        known = dict(self.constants)
        for fqn, tensor in exported.constants:
            if fqn not in known or not _same(known[fqn], tensor):
                raise unimplemented(
                    "a constant that only a later input shape has",
                    f"{fqn!r}; give example_inputs of that shape when the "
                    "deployment is made, or register it as a buffer")


def _same(a, b):
    return (a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b))
