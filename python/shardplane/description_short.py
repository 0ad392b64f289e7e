"""The short form of a description -> the Module message.

    {"type": "Sequential", "children": {
        "up": {"type": "Linear", "in_features": 8, "out_features": 32},
        "act": {"type": "GELU"},
        "down": {"type": "Linear", "in_features": 32, "out_features": 8}}}
"""

import dataclasses

from shardplane.arrays import DTYPES
from shardplane.description_errors import Bad, member
from shardplane.description_graph import expand_graph
from shardplane.description_values import (
    dtype_name, entries, flag, named, only, shape, text, to_argument)
from shardplane.v1 import types_pb2 as pb

_KEYS = ("type", "children", "graph", "parameters", "training", "dtype",
         "bases")
_PARAMETER_KEYS = ("shape", "dtype", "requires_grad", "buffer", "alias_of",
                   "init")
# Of parameters with a gradient, where nobody says it.
_DIFFERENTIABLE = ("float32", "float64", "float16", "bfloat16", "complex64",
                   "complex128")


def expand(source):
    """`source`: the root's object. Raises Bad."""
    expander = _Expander()
    if isinstance(source, dict) and "weights" in source:
        source = dict(source)
        expander.message.weights = _path(source.pop("weights"), "$.weights")
    expander.module(source, "$", "", _Inherited())
    expander.check_calls()
    return expander.message


@dataclasses.dataclass(frozen=True)
class _Inherited:
    """What a module has from those around it."""

    training: bool = True
    dtype: str = ""  # "": nobody says


class _Expander:
    def __init__(self):
        self.message = pb.Module()
        self._calls = []  # (place, FQN of a module that must exist)

    def module(self, value, place, fqn, inherited):
        if not isinstance(value, dict):
            raise Bad(place, "an object that describes a module", repr(value))
        if "type" not in value:
            raise Bad(place, 'a "type", such as "Linear"',
                      f"the keys {', '.join(map(str, value)) or '(none)'}")
        inherited = _Inherited(
            flag(value, "training", place, inherited.training),
            dtype_name(value, "dtype", place, inherited.dtype))
        bases = member(place, "bases")
        node = self.message.modules.add(
            fqn=fqn, type=text(value["type"], member(place, "type")),
            training=inherited.training,
            bases=[text(base, f"{bases}[{i}]") for i, base in enumerate(
                entries(value, "bases", place, "class names"))])
        if "graph" in value:
            self._graph(node, value, place)
        else:
            _add_attributes(node, value, place, inherited.dtype)
        where = member(place, "parameters")
        for name, parameter in named(value, "parameters", place,
                                     "parameters").items():
            self.message.parameters.append(_parameter(
                parameter, member(where, name), join(fqn, name),
                inherited.dtype))
        for name, child, where in _children(value, place):
            self.module(child, where, join(fqn, name), inherited)

    def _graph(self, node, value, place):
        for name in value:
            if name not in _KEYS:
                raise Bad(member(place, name), f"one of {', '.join(_KEYS)} in "
                          "a module with a graph", repr(name))
        graph, calls = expand_graph(value["graph"], member(place, "graph"),
                                    node.fqn)
        node.graph.CopyFrom(graph)
        self._calls += calls

    def check_calls(self):
        fqns = {module.fqn for module in self.message.modules}
        for place, fqn in self._calls:
            if fqn not in fqns:
                raise Bad(place, "the name of a module below this one",
                          repr(fqn))


def _add_attributes(node, value, place, dtype):
    """Keywords of torch.nn's constructor; the coordinator knows them."""
    for name, attribute in value.items():
        if name not in _KEYS:
            node.attributes[name].CopyFrom(
                to_argument(attribute, member(place, name)))
    if dtype:
        node.attributes["dtype"].dtype = DTYPES[dtype]


def _children(value, place):
    """(name, child, its place); a list names them "0", "1", ..."""
    children = value.get("children", {})
    place = member(place, "children")
    if isinstance(children, (list, tuple)):
        return [(str(i), child, f"{place}[{i}]")
                for i, child in enumerate(children)]
    if not isinstance(children, dict):
        raise Bad(place, "an object of modules by name, or a list of them",
                  repr(children))
    for name in children:
        if not isinstance(name, str) or not name or "." in name:
            raise Bad(place, "names without a dot", repr(name))
    return [(name, child, member(place, name))
            for name, child in children.items()]


def _parameter(value, place, fqn, dtype):
    only(value, _PARAMETER_KEYS, place, "a parameter")
    buffer = flag(value, "buffer", place, False)
    dtype = dtype_name(value, "dtype", place, dtype) or "float32"
    message = pb.Parameter(
        fqn=fqn, buffer=buffer, meta=True,
        alias_of=text(value.get("alias_of", ""), member(place, "alias_of")),
        requires_grad=flag(value, "requires_grad", place,
                           not buffer and dtype in _DIFFERENTIABLE))
    if "shape" in value:
        message.type.dtype = DTYPES[dtype]
        message.type.shape.extend(shape(value, "shape", place))
    elif "dtype" in value:
        raise Bad(member(place, "dtype"), "a shape beside it", "none")
    if "init" in value:
        message.initializer.CopyFrom(
            _initializer(value["init"], member(place, "init")))
    return message


def _initializer(value, place):
    message = pb.Initializer()
    if isinstance(value, str) and value in ("zeros", "ones"):
        getattr(message, value).SetInParent()
        return message
    if isinstance(value, dict) and len(value) == 1:
        ((kind, numbers),) = value.items()
        if isinstance(numbers, (list, tuple)) and len(numbers) == 2 and all(
                isinstance(n, (int, float)) for n in numbers):
            if kind == "uniform":
                message.uniform.low, message.uniform.high = numbers
                return message
            if kind == "normal":
                message.normal.mean, message.normal.std = numbers
                return message
        if kind == "files" and isinstance(numbers, dict):
            return _files(numbers, member(place, kind))
    raise Bad(place, '"zeros", "ones", {"uniform": [low, high]}, {"normal": '
              '[mean, std]} or {"files": {"path": …}}', repr(value))


def _path(value, place):
    if value == "":
        raise Bad(place, "a path of safetensors files", "''")
    return text(value, place)


def _files(value, place):
    only(value, ("path", "names"), place, "files")
    message = pb.Initializer()
    message.files.path = _path(value.get("path", ""), member(place, "path"))
    names = member(place, "names")
    message.files.names.extend(
        text(name, f"{names}[{i}]") for i, name in enumerate(
            entries(value, "names", place, "names of a tensor")))
    return message


def join(prefix, name):
    return f"{prefix}.{name}" if prefix else name
