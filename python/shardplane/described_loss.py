"""Losses of descriptions: by name, or as a graph over outputs and targets."""

from collections.abc import Mapping

from shardplane.description_errors import Bad, located
from shardplane.description_graph import expand_graph
from shardplane.errors import PlanTypeError, invalid
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2

_REDUCTIONS = {"sum": pb.Loss.REDUCTION_SUM, "mean": pb.Loss.REDUCTION_MEAN}

# Classes are the last dim of the output, ids are given for all others. The
# views change nothing where there is one other.
_CROSS_ENTROPY = [
    {"name": "output", "op": "placeholder"},
    {"name": "target", "op": "placeholder"},
    {"name": "rows", "op": "call_function",
     "target": "aten.flatten.using_ints", "args": ["%output", 0, -2]},
    {"name": "ids", "op": "call_function",
     "target": "aten.flatten.using_ints", "args": ["%target", 0, -1]},
    {"name": "loss", "op": "call_function",
     "target": "aten.cross_entropy_loss.default", "args": ["%rows", "%ids"]},
    {"op": "output", "args": ["%loss"]},
]
_GRAPHS = {"cross_entropy": _CROSS_ENTROPY}
_EXPECTED = ", ".join(f'"{name}"' for name in (*_REDUCTIONS, *_GRAPHS)) + (
    ' or {"graph": [...]}')
_ALLOWED = (types_pb2.Node.OP_PLACEHOLDER, types_pb2.Node.OP_CALL_FUNCTION,
            types_pb2.Node.OP_OUTPUT)


def check_loss(loss):
    """Its form; a graph is looked into where it is used."""
    if loss is None or (isinstance(loss, Mapping) and list(loss) == ["graph"]):
        return
    if not isinstance(loss, (str, Mapping)):
        raise invalid(
            f"loss: expected {_EXPECTED}, as the module is a description, "
            f"got: {loss!r} of type {type(loss).__name__}",
            reason="LOSS_TYPE", cls=PlanTypeError, field="loss")
    if isinstance(loss, Mapping) or (
            loss not in _REDUCTIONS and loss not in _GRAPHS):
        raise invalid(f"loss: expected {_EXPECTED}, got: {loss!r}",
                      reason="LOSS_UNKNOWN", field="loss")


def loss_to_proto(loss):
    if isinstance(loss, str) and loss in _REDUCTIONS:
        return pb.Loss(reduction=_REDUCTIONS[loss])
    nodes = _GRAPHS[loss] if isinstance(loss, str) else loss["graph"]
    with located("loss"):
        graph, _ = expand_graph(nodes, "$.graph", "")
        for i, node in enumerate(graph.nodes):
            if node.op not in _ALLOWED:
                raise Bad(f"$.graph[{i}].op",
                          "a placeholder, a call_function or the output",
                          types_pb2.Node.Op.Name(node.op))
    return pb.Loss(graph=graph)


def _placeholders(message):
    return sum(1 for node in message.graph.nodes
               if node.op == types_pb2.Node.OP_PLACEHOLDER)


def takes_targets(loss, outputs):
    """Whether the loss needs more than a module's `outputs` tensors."""
    return loss is not None and _placeholders(loss_to_proto(loss)) > outputs


def check_targets(loss, message, outputs, targets):
    """`message`: of that loss."""
    if message.HasField("graph"):
        expected = _placeholders(message) - outputs
        if expected != targets:
            raise invalid(
                f"loss: expected {expected} targets, as it takes "
                f"{_placeholders(message)} tensors and the module has "
                f"{outputs} outputs, got: {targets}", reason="LOSS_TARGETS",
                field="targets")
        return
    if outputs != 1:
        raise invalid(
            f"loss {loss!r}: expected a module with one output, got: "
            f"{outputs}; a graph takes several", reason="LOSS_OUTPUTS",
            field="loss")
    if targets:
        raise invalid(f"loss {loss!r}: expected no targets, got: {targets}",
                      reason="LOSS_TARGETS", field="targets")
