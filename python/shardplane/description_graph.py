"""Graphs of a description: short nodes -> the Graph message.

    [{"name": "x", "op": "placeholder"},
     {"name": "h", "op": "call_module", "target": "up", "args": ["%x"]},
     {"name": "y", "op": "call_function", "target": "aten.add.Tensor",
      "args": ["%h", 1.0], "kwargs": {"alpha": 2}},
     {"op": "output", "args": ["%y"]}]
"""

from google.protobuf import json_format

from shardplane.arrays import DTYPES
from shardplane.description_errors import Bad, member
from shardplane.description_values import (
    dtype_name, entries, named, only, shape, text, to_argument)
from shardplane.v1 import types_pb2 as pb

_OPS = {
    "placeholder": pb.Node.OP_PLACEHOLDER,
    "get_attr": pb.Node.OP_GET_ATTR,
    "call_function": pb.Node.OP_CALL_FUNCTION,
    "call_module": pb.Node.OP_CALL_MODULE,
    "output": pb.Node.OP_OUTPUT,
}
_WITH_TARGET = (pb.Node.OP_GET_ATTR, pb.Node.OP_CALL_FUNCTION,
                pb.Node.OP_CALL_MODULE)
_NODE_KEYS = ("name", "op", "target", "args", "kwargs", "results")


def expand_graph(value, place, fqn):
    """(Graph, [(place, FQN of a called module)]); targets are below `fqn`.

    An object is the Graph message's own JSON form, with FQNs from the root.
    """
    if isinstance(value, dict):
        return _of_proto_form(value, place), []
    if not isinstance(value, (list, tuple)) or not value:
        raise Bad(place, "a list of nodes", repr(value))
    graph, names, calls = pb.Graph(), {}, []
    for i, node in enumerate(value):
        where = f"{place}[{i}]"
        message = _node(node, where, names, fqn)
        if message.name in names:
            raise Bad(member(where, "name"), "a name of its own",
                      repr(message.name))
        names[message.name] = None
        if message.op == pb.Node.OP_CALL_MODULE:
            calls.append((member(where, "target"), message.target))
        graph.nodes.append(message)
    if graph.nodes[-1].op != pb.Node.OP_OUTPUT:
        raise Bad(where, "an output as the last node",
                  repr(value[-1].get("op")))
    return graph, calls


def _of_proto_form(value, place):
    try:
        return json_format.ParseDict(value, pb.Graph())
    except json_format.ParseError as error:
        raise Bad(place, "a list of nodes, or the JSON form of "
                  "shardplane.v1.Graph", str(error)) from error


def _node(value, place, names, fqn):
    only(value, _NODE_KEYS, place, "a node")
    op = value.get("op")
    if not isinstance(op, str) or op not in _OPS:
        raise Bad(member(place, "op"), f"one of {', '.join(_OPS)}", repr(op))
    # Nobody refers to the output: it needs no name of the writer's.
    free = "output" if "output" not in names else f"output_{len(names)}"
    name = text(value.get("name", free if op == "output" else ""),
                member(place, "name"))
    if not name:
        raise Bad(member(place, "name"), "a name", "none")
    message = pb.Node(op=_OPS[op], name=name)
    message.target = _target(message.op, value, place, fqn)
    args = entries(value, "args", place, "arguments")
    if op == "output" and len(args) != 1:
        raise Bad(member(place, "args"), "one argument: a node, or a list of "
                  "several", f"{len(args)} arguments")
    message.args.extend(
        to_argument(arg, f"{member(place, 'args')}[{i}]", names)
        for i, arg in enumerate(args))
    where = member(place, "kwargs")
    for key, arg in named(value, "kwargs", place, "arguments").items():
        message.kwargs[key].CopyFrom(
            to_argument(arg, member(where, key), names))
    where = member(place, "results")
    message.results.extend(
        _type(result, f"{where}[{i}]") for i, result in enumerate(
            entries(value, "results", place, "tensor types")))
    return message


def _target(op, value, place, fqn):
    place = member(place, "target")
    target = text(value.get("target", ""), place)
    if (op in _WITH_TARGET) != bool(target):
        raise Bad(place, "a target" if op in _WITH_TARGET else "none",
                  repr(target))
    if op == pb.Node.OP_CALL_FUNCTION or not target or not fqn:
        return target
    return f"{fqn}.{target}"


def _type(value, place):
    only(value, ("dtype", "shape"), place, "a tensor type")
    for key in ("dtype", "shape"):
        if key not in value:
            raise Bad(place, f"a {key}", repr(value))
    return pb.TensorType(
        dtype=DTYPES[dtype_name(value, "dtype", place, "")],
        shape=shape(value, "shape", place))
