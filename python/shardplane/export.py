"""A torch module -> graphs: torch.export, unflatten, and a walk over it."""

import dataclasses
import inspect
import warnings

import torch
from torch.utils import _pytree as pytree

from shardplane import tensors
from shardplane.errors import ShardplaneError, invalid
from shardplane.graph_writer import GraphWriter, write_loss
from shardplane.mutations import without_mutation
from shardplane.v1 import types_pb2 as pb


@dataclasses.dataclass
class Exported:
    """What one signature of a module exports to."""

    module: pb.Module
    constants: list      # (FQN, tensor): what the graphs hold beside the tree
    input_indices: list  # of the flat inputs that the root's graph takes
    input_names: list    # forward's names of those
    out_spec: pytree.TreeSpec
    output_types: list   # TensorTypes of the graph's outputs
    outputs: list        # per flat output: ("tensor", index) or ("value", v)

    def rebuild(self, tensors):
        """The module's own structure around the graph's outputs."""
        leaves = [tensors[value] if kind == "tensor" else value
                  for kind, value in self.outputs]
        return pytree.tree_unflatten(leaves, self.out_spec)

    @property
    def tensor_outputs(self):
        return len(self.output_types)


def flatten_call(module, args, kwargs):
    """Leaves, spec, and a name for each leaf: forward's parameter."""
    args, kwargs = in_order_of_forward(module, args, kwargs)
    register_dataclasses((args, kwargs))
    leaves, spec = pytree.tree_flatten((args, kwargs))
    names = []
    for name, value in bound_names(module, args, kwargs):
        count = len(pytree.tree_leaves(value))
        names += [name] if count == 1 else [
            f"{name}_{i}" for i in range(count)]
    return leaves, spec, names


def in_order_of_forward(module, args, kwargs):
    order = list(inspect.signature(module.forward).parameters)
    position = {name: i for i, name in enumerate(order)}
    return tuple(args), dict(sorted(
        kwargs.items(), key=lambda item: position.get(item[0], len(order))))


def bound_names(module, args, kwargs):
    """(name of forward's parameter, value), in order."""
    positional = []
    for name, p in inspect.signature(module.forward).parameters.items():
        if p.kind == p.VAR_POSITIONAL:
            positional += [f"{name}_{i}" for i in range(len(args))]
        elif p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            positional.append(name)
    names = [positional[i] if i < len(positional) else f"arg_{i}"
             for i in range(len(args))]
    return list(zip(names, args)) + list(kwargs.items())


def register_dataclasses(value):
    """Lets PyTorch's pytree look into dataclasses that nobody registered."""
    def visit(leaf):
        cls = type(leaf)
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            torch.export.register_dataclass(cls)
            pytree.tree_map(visit, leaf)
        return leaf
    pytree.tree_map(visit, value)


def export(tree, args, kwargs, *, call_signatures=False):
    """Exports `tree.module`, in the mode in which each submodule stands.

    `call_signatures`: also learn in what order each submodule takes its
    inputs and gives its outputs, for styles that count them.
    """
    module = tree.module
    args, kwargs = in_order_of_forward(module, args, kwargs)
    leaves, in_spec, names = flatten_call(module, args, kwargs)
    with _on_meta_if_needed(tree) as device:
        program = _export_program(tree, *_place((args, kwargs), device),
                                  call_signatures)
    signatures = {
        entry.fqn: entry.signature for entry in program.module_call_graph
        if entry.fqn and entry.signature is not None}
    for entry in program.module_call_graph:
        if entry.fqn:
            entry.signature = None  # unflatten must keep plain graphs
    writer = GraphWriter(tree, _unflatten(module, program), signatures)
    root = writer.write_root(
        names, [isinstance(leaf, torch.Tensor) for leaf in leaves])
    return Exported(
        module=tree.to_proto(writer.graphs, writer.constants),
        constants=writer.constants, input_indices=root.input_indices,
        input_names=[names[i] for i in root.input_indices],
        out_spec=program.call_spec.out_spec, outputs=root.outputs,
        output_types=root.output_types)


def _place(inputs, device):
    """Inputs as export is to see them: leaves, on the parameters' device."""
    def place(leaf):
        if not isinstance(leaf, torch.Tensor):
            return leaf
        placed = leaf.detach()
        placed = placed if device is None else placed.to(device)
        return placed.requires_grad_(leaf.requires_grad)
    return pytree.tree_map(place, inputs)


class _on_meta_if_needed:
    """Where some parameters are on the meta device, all are for the export.

    The module's own tensors come back at the end: nothing of it changes.
    """

    def __init__(self, tree):
        self._tree = tree
        devices = {p.tensor.device.type for p in tree.parameters}
        self._device = "meta" if "meta" in devices else None
        self._mixed = len(devices) > 1 and self._device is not None
        self._swap = None

    def __enter__(self):
        if self._mixed:
            from torch.nn.utils import stateless
            twins = {}
            for p in self._tree.parameters:
                twins[p.fqn] = twins[p.alias_of] if p.alias_of else (
                    p.meta_twin())
            self._swap = stateless._reparametrize_module(
                self._tree.module, twins, tie_weights=True)
            self._swap.__enter__()
        return self._device

    def __exit__(self, *error):
        if self._swap is not None:
            self._swap.__exit__(*error)


def _export_program(tree, args, kwargs, call_signatures):
    module = tree.module
    hook = module.register_forward_hook(
        lambda m, i, output: register_dataclasses(output))
    keep = tuple(fqn for fqn, _ in tree.modules if fqn and call_signatures)
    try:
        program = _capture(module, args, kwargs, keep)
    except ShardplaneError:
        raise
    except Exception as error:
        raise invalid(
            f"module {type(module).__name__}: torch.export cannot capture "
            f"its forward, got: {type(error).__name__}: {error}",
            reason="EXPORT_FAILED") from error
    finally:
        hook.remove()
    return program


def _unflatten(module, program):
    """The tree of the export; names its own limits in an error."""
    _complete_module_stacks(program)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.unflatten(program)
    except Exception as error:
        raise invalid(
            f"module {type(module).__name__}: torch.export.unflatten cannot "
            "find its modules again. A module that is called both inside and "
            "outside of torch.no_grad() is one cause: call it outside and "
            f"detach() the result; got: {type(error).__name__}: {error}",
            reason="EXPORT_FAILED") from error


def _complete_module_stacks(program):
    """Where decompositions leave a node with an empty stack of modules, which
    unflatten trips over, it is the root's."""
    stacks = [node.meta["nn_module_stack"] for node in program.graph.nodes
              if "nn_module_stack" in node.meta]
    roots = [stack for stack in stacks if stack and
             next(iter(stack.values()))[0] == ""]
    for node in program.graph.nodes:
        if roots and node.meta.get("nn_module_stack") == {}:
            key, value = next(iter(roots[0].items()))
            node.meta["nn_module_stack"] = {key: value}


def export_loss(loss, exported, targets):
    """A loss callable as a graph over the module's outputs, then targets,
    then the tensors it closes over: (Graph, those tensors).
    """
    outputs = [tensors.empty_of(t) for t in exported.output_types]
    count = len(outputs)

    class Loss(torch.nn.Module):
        def forward(self, *values):
            return loss(exported.rebuild(values[:count]), *values[count:])

    try:
        program = _capture(Loss(), (*outputs, *(t.detach() for t in targets)))
    except Exception as error:
        raise invalid(
            f"loss {getattr(loss, '__name__', loss)!r}: torch.export cannot "
            f"capture it, got: {type(error).__name__}: {error}",
            reason="EXPORT_FAILED", field="loss") from error
    return write_loss(program, count + len(targets))


def _capture(module, args, kwargs=None, keep=()):
    """An exported program without in-place operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return without_mutation(torch.export.export(
            module, args, kwargs, strict=False,
            preserve_module_call_signature=keep))
