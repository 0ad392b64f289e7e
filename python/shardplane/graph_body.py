"""Messages of one graph: nodes under unique names, arguments, results."""

import torch

from shardplane.errors import unimplemented
from shardplane.tensors import dtype_to_proto, type_of
from shardplane.v1 import types_pb2 as pb


def none():
    argument = pb.Argument()
    argument.none.SetInParent()  # "None" is no attribute name in Python
    return argument


def ref(name):
    return pb.Argument(node=name)


class Body:
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


def shape_of(graph):
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
