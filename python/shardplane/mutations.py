"""In-place operators of an exported graph, written without.

What is left in place is `aten.copy_` onto a buffer: the buffer's new value,
which reads that come later see (common/buffer_writes.h).
"""

import collections
import operator

import torch
from torch.export.graph_signature import OutputKind

from shardplane.errors import unimplemented

_COPY = torch.ops.aten.copy_.default
_TO = torch.ops.aten.to.dtype
# In place by its schema, and yet without effect on values.
_HARMLESS = (torch.ops.aten.detach_.default,)


def without_mutation(program):
    """The program with no operator in place but writes to whole buffers.

    Raises Unimplemented for a forward that changes a parameter or an input.
    """
    rewriter = _Rewriter(program)
    if not rewriter.has_mutation():
        return program
    if rewriter.is_simple():
        rewriter.rewrite()
        return program
    # A write to a part, or through another view: torch finds out what it means.
    decomposed = program.run_decompositions({})
    _refuse(decomposed.graph_signature)
    _write_buffers(decomposed)
    return decomposed


def _storage(node):
    value = node.meta.get("val")
    return (value.untyped_storage()._cdata
            if isinstance(value, torch.Tensor) else None)


def _mutates(node):
    """Whether a node writes to its first argument."""
    schema = getattr(node.target, "_schema", None)
    return (node.op == "call_function" and schema is not None and
            schema.is_mutable and node.target not in _HARMLESS)


def _has_mutation(module):
    return any(map(_mutates,
                   getattr(getattr(module, "graph", None), "nodes", ())))


def _functional(target):
    """aten.add_.Tensor -> aten.add.Tensor; None: there is none."""
    name, overload = target._schema.name, target._overloadname
    namespace, _, base = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), base.removesuffix("_"),
                     None)
    if not base.endswith("_") or overload not in getattr(
            packet, "overloads", list)():
        return None
    return getattr(packet, overload)


class _Rewriter:
    def __init__(self, program):
        self._program = program
        self._graph = program.graph_module.graph
        signature = program.graph_signature
        self._kinds = {
            **{n: "parameter" for n in signature.inputs_to_parameters},
            **{n: "buffer" for n in signature.inputs_to_buffers}}
        self._names = {**signature.inputs_to_parameters,
                       **signature.inputs_to_buffers}
        self._order = {n: i for i, n in enumerate(self._graph.nodes)}
        self._sharing = collections.defaultdict(list)  # by storage
        for node in self._graph.nodes:
            self._sharing[_storage(node)].append(node)

    def has_mutation(self):
        """Here or in the body of a higher-order operator."""
        return any(map(_has_mutation, self._program.graph_module.modules()))

    def is_simple(self):
        """Every write is to a whole tensor that has no other view."""
        own = self._program.graph_module
        bodies = any(_has_mutation(m) for m in own.modules() if m is not own)
        return not bodies and all(
            self._is_simple(n) for n in self._graph.nodes if _mutates(n))

    def _is_simple(self, node):
        target = _functional(node.target)
        if target is None or len(target._schema.returns) != 1:
            return False
        whole = self._whole(node.args[0])
        storage = _storage(node)
        if whole is None or storage is None:
            return False
        self._refuse(whole)
        # Views that were made before and are used after would not change.
        return not any(
            self._whole(other) is not whole and
            self._order[other] < self._order[node] and
            any(self._order[user] > self._order[node] for user in other.users)
            for other in self._sharing[storage])

    def _whole(self, node):
        """The placeholder or operator that a node is all of; None: a view."""
        while isinstance(node, torch.fx.Node) and (
                _mutates(node) or node.target in _HARMLESS):
            node = node.args[0]
        if not isinstance(node, torch.fx.Node) or _storage(node) is None:
            return None
        if node.op == "placeholder":
            return node
        if node.target is operator.getitem:
            return None
        storage = _storage(node)
        views = any(_storage(arg) == storage for arg in node.all_input_nodes)
        return None if views or node.op != "call_function" else node

    def _refuse(self, whole):
        if whole.op != "placeholder" or self._kinds.get(
                whole.name) == "buffer":
            return
        if self._kinds.get(whole.name) == "parameter":
            _refuse_parameter(self._names[whole.name])
        _refuse_input(whole.name)

    # ------------------------------------------------------------ rewriting

    def rewrite(self):
        for node in list(self._graph.nodes):
            if _mutates(node):
                self._replace(node)
        self._graph.lint()
        self._program.graph_module.recompile()

    def _replace(self, node):
        whole = self._whole(node.args[0])
        if node.target is _COPY and node.args[1] is whole:
            value = whole  # what the operators before have written
        else:
            value = self._insert(node, whole)
        if whole.op == "placeholder":
            node.replace_all_uses_with(whole)
        else:
            # Those before `node` keep what was there when they ran.
            order = self._order[node]
            for name in {whole, node.args[0], node}:
                if isinstance(name, torch.fx.Node):
                    name.replace_all_uses_with(
                        value, lambda user, v=value: user is not v and
                        self._order.get(user, order) > order)
        self._graph.erase_node(node)

    def _insert(self, node, whole):
        """The functional twin after `node`; of a buffer, its write too."""
        with self._graph.inserting_after(node):
            value = self._call(node, _functional(node.target), node.args,
                               node.kwargs)
        own = node.meta["val"].dtype
        last = value
        if whole.op == "placeholder":
            with self._graph.inserting_after(last):
                self._call(node, _COPY, (whole, last), {})
        elif value.meta["val"].dtype != own:
            with self._graph.inserting_after(last):
                last = self._call(node, _TO, (value, own), {})
        return last

    def _call(self, like, target, args, kwargs):
        call = self._graph.call_function(target, args, kwargs)
        call.meta = {k: v for k, v in like.meta.items() if k != "val"}
        call.meta["val"] = (like.meta["val"] if target is _COPY
                            else _result(target, args, kwargs))
        self._order[call] = self._order[like]
        return call


def _result(target, args, kwargs):
    """On the meta device: what the call gives."""
    def to_meta(arg):
        value = arg.meta["val"]
        if not isinstance(value, torch.Tensor):
            return value
        return torch.empty_strided(value.size(), value.stride(),
                                   dtype=value.dtype, device="meta")
    with torch.no_grad():
        return target(*torch.fx.map_arg(args, to_meta),
                      **torch.fx.map_arg(kwargs, to_meta))


# ------------------------------------------------------ decomposed programs


def _refuse(signature):
    for name in signature.parameters_to_mutate.values():
        _refuse_parameter(name)
    for name in signature.user_inputs_to_mutate.values():
        _refuse_input(name)


def _refuse_parameter(name):
    raise unimplemented("a forward that changes a parameter",
                        f"parameter {name!r}")


def _refuse_input(name):
    raise unimplemented("a forward that changes its input",
                        f"input {name!r}; let it change a copy")


def _write_buffers(program):
    """New values of buffers, which come as outputs, become writes to them."""
    signature = program.graph_signature
    graph = program.graph_module.graph
    buffers = {fqn: node for node in graph.nodes if node.op == "placeholder"
               for fqn in [signature.inputs_to_buffers.get(node.name)]}
    output = graph.output_node()
    order = {node: i for i, node in enumerate(graph.nodes)}
    kept = []
    for spec, value in zip(signature.output_specs, output.args[0]):
        if spec.kind is not OutputKind.BUFFER_MUTATION:
            kept.append((spec, value))
            continue
        buffer = buffers[spec.target]
        # After the last who wants what was there before.
        last = max([value, *(u for u in buffer.users if u is not output)],
                   key=order.__getitem__)
        with graph.inserting_after(last):
            copy = graph.call_function(_COPY, (buffer, value))
        copy.meta = dict(value.meta)
        order[copy] = order[last]
    output.args = (tuple(value for _, value in kept),)
    signature.output_specs[:] = [spec for spec, _ in kept]
    graph.lint()
    program.graph_module.recompile()
