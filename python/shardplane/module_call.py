"""How a call of a module is written, and what stands for its results."""

from shardplane.graph_body import to_argument
from shardplane.v1 import types_pb2 as pb


class Outputs:
    """Several values that stand for one node's tuple."""

    def __init__(self, values):
        self._values = values

    def get(self, index, body):
        del body
        return self._values[index]


class Items:
    """A call whose outputs are ordered otherwise than its users think."""

    def __init__(self, result, order):
        self._result = result
        self._order = order

    def get(self, index, body):
        return _item(self._result, self._order[index], body)


def _item(result, index, body):
    return body.add(pb.Node.OP_CALL_FUNCTION, f"{result.node}_item",
                    "getitem", args=[result, pb.Argument(int_value=index)])


def output_of(module):
    return next(n.args[0] for n in module.graph.nodes if n.op == "output")


class Call:
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
        output = output_of(callee)
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
        return Items(result, self._order)
