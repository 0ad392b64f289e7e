"""FX graphs of an unflattened export -> Graph messages.

Calls name modules by their first FQN. A second call of a module that needs
another graph (`name@1`, with other shapes) is written out in its caller.
"""

import dataclasses
import operator

import torch

from shardplane.errors import invalid, unimplemented
from shardplane.module_tree import join
from shardplane.tensors import dtype_to_proto, type_of
from shardplane.v1 import types_pb2 as pb

# Checks of the exporter: every shape is known when a program is compiled.
_DROPPED = ("aten._assert_tensor_metadata.default",
            "aten._assert_scalar.default",
            "aten.sym_constrain_range_for_size.default")
# What only matters to the exporter: the value is the argument itself.
_SAME = ("aten.lift_fresh_copy.default", "aten.lift_fresh.default")
_RENAMED = {"aten.detach_.default": "aten.detach.default"}


def none():
    argument = pb.Argument()
    argument.none.SetInParent()  # "None" is no attribute name in Python
    return argument


def ref(name):
    return pb.Argument(node=name)


@dataclasses.dataclass
class Root:
    """What else is known of the root's graph."""

    input_indices: list  # of the flat inputs: which are placeholders
    outputs: list        # per flat output: ("tensor", index), ("value", v)
    output_types: list   # of the tensors among them


class _Body:
    """One graph under construction; names are unique in it."""

    def __init__(self, reserved=()):
        self.graph = pb.Graph()
        self._names = set(reserved)

    def unique(self, name):
        base, count = name, 0
        while name in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name

    def add(self, op, name, target="", args=(), kwargs=None, results=(),
            reserved=False):
        name = name if reserved else self.unique(name)
        node = self.graph.nodes.add(op=op, name=name, target=target,
                                    args=args, results=results)
        for key, value in (kwargs or {}).items():
            node.kwargs[key].CopyFrom(value)
        return ref(name)


def result_types(value, where):
    values = value if isinstance(value, (tuple, list)) else [value]
    if not all(isinstance(v, torch.Tensor) for v in values):
        return []
    return [type_of(v, where) for v in values]


def to_argument(value, env, where):
    """`env`: FX node -> Argument."""
    if isinstance(value, torch.fx.Node):
        return env[value]
    if value is None:
        return none()
    if isinstance(value, bool):
        return pb.Argument(bool_value=value)
    if isinstance(value, int):
        return pb.Argument(int_value=value)
    if isinstance(value, float):
        return pb.Argument(float_value=value)
    if isinstance(value, str):
        return pb.Argument(string_value=value)
    if isinstance(value, torch.dtype):
        return pb.Argument(dtype=dtype_to_proto(value, where))
    if isinstance(value, torch.device):
        # Meta is where a module was described, not where it runs.
        text = "cpu" if value.type == "meta" else str(value)
        return pb.Argument(string_value=text)
    if isinstance(value, (torch.memory_format, torch.layout)):
        return pb.Argument(string_value=str(value))
    if isinstance(value, (tuple, list)):
        return pb.Argument(list=pb.Argument.List(
            items=[to_argument(v, env, where) for v in value]))
    if isinstance(value, torch.Generator):
        raise unimplemented("a random generator of its own", f"in {where}")
    raise unimplemented(f"an argument of type {type(value).__name__}",
                        f"{value!r} in {where}")


class GraphWriter:
    """Writes the graphs that the root reaches, each once."""

    def __init__(self, tree, unflattened, signatures):
        self._tree = tree
        self._unflattened = unflattened
        self._signatures = signatures
        self.graphs = {}        # FQN -> Graph
        self.constants = []     # (FQN, tensor)
        self._constant_names = {}
        self._shapes = {}       # FQN -> input types of its first call
        self._written = {}      # FQN -> the exporter's module

    def write_root(self, names, is_tensor):
        """`names`, `is_tensor`: of the flat inputs."""
        root = self._unflattened
        placeholders = [n for n in root.graph.nodes if n.op == "placeholder"]
        indices = [i for i, tensor in enumerate(is_tensor) if tensor]
        if len(placeholders) == len(is_tensor):
            placeholders = [placeholders[i] for i in indices]
        if len(placeholders) != len(indices):
            raise invalid(
                f"the export takes {len(placeholders)} inputs, got: "
                f"{len(indices)} tensors", reason="EXPORT_FAILED")
        body = _Body(reserved=[names[i] for i in indices])
        env = {}
        for index, node in zip(indices, placeholders):
            env[node] = body.add(pb.Node.OP_PLACEHOLDER, names[index],
                                 results=self._types(node, ""), reserved=True)
        value = self._emit(root, "", "", body, env)
        leaves = value if isinstance(value, (tuple, list)) else [value]
        outputs, tensors, types = [], [], []
        for leaf in leaves:
            if isinstance(leaf, torch.fx.Node):
                outputs.append(("tensor", len(tensors)))
                tensors.append(env[leaf])
                types += self._types(leaf, "")
            else:
                outputs.append(("value", leaf))
        self._finish(body, tensors[0] if len(tensors) == 1 else tensors)
        self.graphs[""] = body.graph
        return Root(indices, outputs, types)

    def _finish(self, body, value):
        if isinstance(value, list):
            value = pb.Argument(list=pb.Argument.List(items=value))
        body.add(pb.Node.OP_OUTPUT, "output", args=[value])

    def _types(self, node, where):
        return result_types(node.meta.get("val"), f"module {where!r}")

    # ------------------------------------------------------------- bodies

    def _emit(self, module, name, fqn, body, env):
        """Writes all nodes but placeholders and output; gives the output.

        `name`: of the module in the export; `fqn`: whose graph this is, for
        errors.
        """
        for node in module.graph.nodes:
            if node.op == "placeholder":
                continue
            if node.op == "output":
                return node.args[0]
            env[node] = getattr(self, f"_{node.op}")(node, module, name, fqn,
                                                     body, env)
        return None

    def _get_attr(self, node, module, name, fqn, body, env):
        value = operator.attrgetter(node.target)(module)
        if isinstance(value, torch.nn.Module):
            return value  # the body of a higher-order operator
        path = join(name, node.target)
        target = self._tree.parameter_fqn(path) or self._constant(path, value)
        return body.add(pb.Node.OP_GET_ATTR, node.name, target,
                        results=[type_of(value, f"{target!r}")])

    def _constant(self, path, value):
        """The name of a tensor that is no parameter or buffer."""
        for known, tensor in self.constants:
            if tensor is value or (tensor.dtype == value.dtype and
                                   tensor.shape == value.shape and
                                   tensor.device.type != "meta" and
                                   value.device.type != "meta" and
                                   torch.equal(tensor, value)):
                return known
        owner, _, leaf = path.rpartition(".")
        owner = self._tree.module_fqn(owner)
        fqn = join(owner, leaf) if owner is not None else leaf
        taken = {known for known, _ in self.constants}
        base, count = fqn, 0
        while fqn in taken or self._tree.parameter_fqn(fqn):
            count += 1
            fqn = f"{base}_{count}"
        self.constants.append((fqn, value.detach()))
        return fqn

    def _call_function(self, node, module, name, fqn, body, env):
        where = f"module {fqn!r}"
        if node.target is operator.getitem:
            return self._getitem(node, fqn, body, env)
        target = str(node.target)
        if target == "wrap_with_set_grad_enabled":
            return self._set_grad_enabled(node, name, fqn, body, env)
        if target in _DROPPED:
            return none()
        if target in _SAME:
            return env[node.args[0]]
        if not isinstance(node.target, torch._ops.OpOverload):
            raise unimplemented(f"operator {target}", f"in {where}")
        return body.add(
            pb.Node.OP_CALL_FUNCTION, node.name, _RENAMED.get(target, target),
            args=[to_argument(a, env, where) for a in node.args],
            kwargs={k: to_argument(v, env, where)
                    for k, v in node.kwargs.items()},
            results=self._types(node, fqn))

    def _getitem(self, node, fqn, body, env):
        source, index = node.args
        value = env[source]
        if isinstance(value, (_Outputs, _Items)):
            return value.get(index, body)
        return body.add(pb.Node.OP_CALL_FUNCTION, node.name, "getitem",
                        args=[value, pb.Argument(int_value=index)],
                        results=self._types(node, fqn))

    def _set_grad_enabled(self, node, name, fqn, body, env):
        """The body stands in place; without grad, its results are detached."""
        enabled, inner, *args = node.args
        inner = env[inner]
        values = self._inline(inner, name, fqn, body,
                              [env[arg] for arg in args])
        if not enabled:
            values = [body.add(pb.Node.OP_CALL_FUNCTION, f"{node.name}_detach",
                               "aten.detach.default", args=[value])
                      for value in values]
        return _Outputs(values)

    def _inline(self, module, name, fqn, body, arguments):
        env = {}
        placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
        env.update(zip(placeholders, arguments))
        output = self._emit(module, name, fqn, body, env)
        leaves = output if isinstance(output, (tuple, list)) else [output]
        return [to_argument(leaf, env, f"module {fqn!r}") for leaf in leaves]

    # -------------------------------------------------------------- calls

    def _call_module(self, node, module, name, fqn, body, env):
        callee_name = join(name, node.target)
        callee = module.get_submodule(node.target)
        callee_fqn = self._tree.module_fqn(callee_name)
        args = [env[arg] for arg in node.args]
        call = self._arrange(callee, callee_name, node, env)
        if callee_fqn is None or not self._write(callee, callee_name,
                                                 callee_fqn, call):
            values = self._inline(callee, callee_name, callee_fqn or fqn,
                                  body, args)
            single = not isinstance(_output_of(callee), (tuple, list))
            return values[0] if single else _Outputs(values)
        self._note_shapes(callee_fqn, node)
        args, kwargs = call.arguments(args)
        result = body.add(pb.Node.OP_CALL_MODULE, node.name, callee_fqn,
                          args=args, kwargs=kwargs)
        return call.results(result, body)

    def _arrange(self, callee, name, node, env):
        signature = self._signatures.get(name)
        return _Call(callee, signature,
                     *self._forward_names(name, signature),
                     {n.name: value for n, value in env.items()
                      if isinstance(value, pb.Argument)})

    def _forward_names(self, name, signature):
        """Forward's name for each input, and how many go by position."""
        if signature is None:
            return [], 0
        from shardplane.export import bound_names
        original = self._tree.module.get_submodule(
            self._tree.module_fqn(name))
        args, kwargs = signature.in_spec.children()
        keywords = list(kwargs.context or ())
        names = [n for n, _ in bound_names(
            original, [None] * args.num_children, dict.fromkeys(keywords))]
        if len(names) != len(signature.inputs):
            # Structured inputs have several leaves: only the order counts.
            return [], len(signature.inputs)
        return names, len(names) - len(keywords)

    def _write(self, callee, name, fqn, call):
        """Writes the callee's graph, or checks that it is the one there."""
        if self._written.setdefault(fqn, callee) is callee and (
                fqn in self.graphs):
            return True
        body = _Body(reserved=call.placeholder_names)
        env = {}
        for ph_name, node in call.placeholders:
            value = body.add(pb.Node.OP_PLACEHOLDER, ph_name, reserved=True,
                             results=self._types(node, fqn) if node else ())
            if node is not None:
                env[node] = value
        present = self.graphs.get(fqn)
        if present is None:
            self.graphs[fqn] = body.graph  # before its children's
        output = self._emit(callee, name, fqn, body, env)
        self._finish(body, call.outputs(output, env, f"module {fqn!r}"))
        return present is None or _shape_of(present) == _shape_of(body.graph)

    def _note_shapes(self, fqn, node):
        """Two calls with other shapes: what was recorded holds for one."""
        types = [self._types(arg, fqn) for arg in node.args
                 if isinstance(arg, torch.fx.Node)]
        if self._shapes.setdefault(fqn, types) == types:
            return
        for name, graph in self.graphs.items():
            if name == fqn or name.startswith(f"{fqn}."):
                for n in graph.nodes:
                    del n.results[:]


class _Outputs:
    """Several values that stand for one node's tuple."""

    def __init__(self, values):
        self._values = values

    def get(self, index, body):
        del body
        return self._values[index]


class _Items:
    """A call whose outputs are ordered otherwise than its users think."""

    def __init__(self, result, order):
        self._result = result
        self._order = order

    def get(self, index, body):
        return _item(self._result, self._order[index], body)


def _item(result, index, body):
    return body.add(pb.Node.OP_CALL_FUNCTION, f"{result.node}_item",
                    "getitem", args=[result, pb.Argument(int_value=index)])


def _output_of(module):
    return next(n.args[0] for n in module.graph.nodes if n.op == "output")


def _shape_of(graph):
    """A graph without its names and results, for comparison."""
    numbers = {node.name: f"%{i}" for i, node in enumerate(graph.nodes)}
    twin = pb.Graph()
    twin.CopyFrom(graph)

    def rename(argument):
        if argument.HasField("node"):
            argument.node = numbers[argument.node]
        for item in argument.list.items:
            rename(item)

    for node in twin.nodes:
        node.name = numbers[node.name]
        del node.results[:]
        for argument in [*node.args, *node.kwargs.values()]:
            rename(argument)
    return twin.SerializeToString(deterministic=True)


class _Call:
    """How one call of a module is written.

    Without a signature: as the exporter has it, inputs in its own order.
    With one: inputs in forward's order under forward's names, and outputs as
    forward returns them, so that layouts by position or name find theirs.
    """

    def __init__(self, callee, signature, names, positional, visible):
        self._nodes = [n for n in callee.graph.nodes if n.op == "placeholder"]
        self._order = None
        self._wanted = None
        self._old_outputs = None
        if signature is None:
            self.placeholders = [(n.name, n) for n in self._nodes]
            self._sources = list(range(len(self._nodes)))
            self._keywords = set()
        else:
            self._keywords = set(names[positional:])
            self._arrange_inputs(signature, names, visible)
            self._arrange_outputs(signature, callee)
        self.placeholder_names = [name for name, _ in self.placeholders]

    def _arrange_inputs(self, signature, names, visible):
        position = {n.name: i for i, n in enumerate(self._nodes)}
        self.placeholders, self._sources, used = [], [], set()
        for i, argument in enumerate(signature.inputs):
            source = getattr(argument, "name", None)
            name = names[i] if names else source
            if type(argument).__name__ != "TensorArgument":
                continue
            if source in position:
                first = source not in used
                used.add(source)
                self._sources.append(position[source])
                self.placeholders.append(
                    (name, self._nodes[position[source]] if first else None))
            elif source in visible:  # taken by forward, used by nothing
                self._sources.append(visible[source])
                self.placeholders.append((name, None))
        for node in self._nodes:
            if node.name not in used:
                # Reached from within, not passed: by name, as it has no
                # position among forward's inputs.
                name = f"captured_{node.name}"
                self._keywords.add(name)
                self._sources.append(position[node.name])
                self.placeholders.append((name, node))

    def _arrange_outputs(self, signature, callee):
        wanted = [getattr(o, "name", None) for o in signature.outputs]
        if len(wanted) < 2:
            return
        output = _output_of(callee)
        self._single = not isinstance(output, (tuple, list))
        present = [output] if self._single else list(output)
        names = [getattr(n, "name", None) for n in present]
        if any(name not in wanted for name in names):
            return  # passed through under another name: as the exporter has it
        self._wanted = [present[names.index(name)] if name in names else None
                        for name in wanted]
        self._order = [wanted.index(name) for name in names]

    def arguments(self, args):
        """(by position, by name)"""
        positional, named = [], {}
        for name, source in zip(self.placeholder_names, self._sources):
            value = args[source] if isinstance(source, int) else source
            if name in self._keywords:
                named[name] = value
            else:
                positional.append(value)
        return positional, named

    def outputs(self, output, env, where):
        if self._wanted is not None:
            output = self._wanted
        if isinstance(output, (tuple, list)):
            return [to_argument(value, env, where) for value in output]
        return to_argument(output, env, where)

    def results(self, result, body):
        if self._order is None:
            return result
        if self._single:
            return _item(result, self._order[0], body)
        return _Items(result, self._order)


def write_loss(program, inputs):
    """The flat graph of a loss whose last inputs are its constants.

    Returns (Graph, constants).
    """
    signature = program.graph_signature
    values = {**program.state_dict, **program.constants}
    lifted = {**signature.inputs_to_parameters, **signature.inputs_to_buffers,
              **signature.inputs_to_lifted_tensor_constants}
    nodes = list(program.graph.nodes)
    placeholders = [n for n in nodes if n.op == "placeholder"]
    users = [n for n in placeholders if n.name not in lifted]
    if len(users) != inputs:
        raise invalid(f"loss: expected {inputs} tensors, got: {len(users)}",
                      reason="EXPORT_FAILED", field="loss")
    held = [n for n in placeholders if n.name in lifted]
    body, env = _Body(), {}
    for node in users + held:
        env[node] = body.add(
            pb.Node.OP_PLACEHOLDER, node.name,
            results=result_types(node.meta.get("val"), "the loss"))
    writer = GraphWriter(_NoTree(), program.graph_module, {})
    output = writer._emit(program.graph_module, "", "loss", body, env)
    leaves = output if isinstance(output, (tuple, list)) else [output]
    if len(leaves) != 1 or not isinstance(leaves[0], torch.fx.Node):
        raise invalid(f"loss: expected one 0-dim tensor, got: {output}",
                      reason="INVALID_LOSS", field="loss")
    value = leaves[0].meta["val"]
    if value.dim() != 0:
        raise invalid("loss: expected one 0-dim tensor, got: shape "
                      f"{list(value.shape)}", reason="INVALID_LOSS",
                      field="loss")
    writer._finish(body, env[leaves[0]])
    return body.graph, [values[lifted[n.name]].detach() for n in held]


class _NoTree:
    """A loss stands outside the module: it has no names of its own."""

    def parameter_fqn(self, name):
        del name

    def module_fqn(self, name):
        del name
