"""FX graphs of an unflattened export -> Graph messages.

Calls name modules by their first FQN. A second call of a module that needs
another graph (`name@1`, with other shapes) is written out in its caller.
"""

import dataclasses
import operator

import torch

from shardplane.errors import invalid, unimplemented
from shardplane.graph_body import (
    Body, none, result_types, shape_of, to_argument)
from shardplane.module_call import Call, Items, Outputs, output_of
from shardplane.module_tree import join
from shardplane.tensors import type_of
from shardplane.v1 import types_pb2 as pb

# Checks of the exporter: every shape is known when a program is compiled.
_DROPPED = ("aten._assert_tensor_metadata.default",
            "aten._assert_scalar.default",
            "aten.sym_constrain_range_for_size.default")
# What only matters to the exporter: the value is the argument itself.
_SAME = ("aten.lift_fresh_copy.default", "aten.lift_fresh.default")
_RENAMED = {"aten.detach_.default": "aten.detach.default"}


@dataclasses.dataclass
class Root:
    """What else is known of the root's graph."""

    input_indices: list  # of the flat inputs: which are placeholders
    outputs: list        # per flat output: ("tensor", index), ("value", v)
    output_types: list   # of the tensors among them


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
        body = Body(reserved=[names[i] for i in indices])
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
        if isinstance(value, (Outputs, Items)):
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
        return Outputs(values)

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
            single = not isinstance(output_of(callee), (tuple, list))
            return values[0] if single else Outputs(values)
        self._note_shapes(callee_fqn, node)
        args, kwargs = call.arguments(args)
        result = body.add(pb.Node.OP_CALL_MODULE, node.name, callee_fqn,
                          args=args, kwargs=kwargs)
        return call.results(result, body)

    def _arrange(self, callee, name, node, env):
        signature = self._signatures.get(name)
        return Call(callee, signature,
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
        body = Body(reserved=call.placeholder_names)
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
        return present is None or shape_of(present) == shape_of(body.graph)

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
    body, env = Body(), {}
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
