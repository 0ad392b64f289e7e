"""A description's deployment: its names, its programs, numpy in and out."""

import json
import os
from collections.abc import Mapping

import numpy as np

from shardplane import arrays
from shardplane.description import as_description
from shardplane.described_loss import (
    check_loss, check_targets, loss_to_proto, takes_targets)
from shardplane.errors import PlanTypeError, invalid
from shardplane.program_store import Call, Program, ProgramStore
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2


class DescribedSource:
    """What parallelize_module takes from a description."""

    count = 1

    def __init__(self, module, weights=None):
        self._description = as_description(module)
        self._weights = _path(weights)
        self.tree = DescribedTree()

    def programs(self, rpc, call_signatures):
        del call_signatures  # a description's graphs say how they are called
        return DescribedPrograms(rpc, self._description, self._weights)

    def to_proto(self):
        return _starting_from(self._weights, self._description.proto)

    def upload(self, rpc, deployment, constants, src_data_rank):
        """Nothing: the workers make all first values themselves."""
        del constants, src_data_rank
        self.tree.fill(rpc.call("GetDeployment", pb.GetDeploymentRequest(
            name=deployment.name)).module)


def _path(weights):
    if weights is None:
        return ""
    if weights.names is not None:
        raise invalid(
            "weights: expected a path, as a description says itself what "
            'files call its parameters ("init": {"files": …}), got: names',
            reason="WEIGHTS_NAMES", field="weights")
    return os.fspath(weights.path)


def _starting_from(path, module):
    """`module`, with these weights if there are any."""
    if not path:
        return module
    copy = types_pb2.Module()
    copy.CopyFrom(module)
    copy.weights = path
    return copy


class DescribedTree:
    """Names and types as the coordinator has them: it adds parameters that
    attributes imply."""

    has_attention = False  # its graphs say in what order they give

    def __init__(self):
        self._parameters = {}

    def fill(self, module):
        self._parameters = {p.fqn: p for p in module.parameters}

    def trainable(self):
        return [fqn for fqn, p in self._parameters.items() if p.requires_grad]

    def state_types(self):
        return {fqn: p.type for fqn, p in self._parameters.items()}

    def canonical(self, name):
        parameter = self._parameters.get(name)
        return parameter and (parameter.alias_of or parameter.fqn)


class _Outputs:
    """What the root's output node says."""

    def __init__(self, module):
        root = module.modules[0]
        self._structure = types_pb2.Argument(node="output")
        for node in root.graph.nodes:
            if node.op == types_pb2.Node.OP_OUTPUT and node.args:
                self._structure = node.args[0]
        self.tensor_outputs = sum(1 for _ in _leaves(self._structure))

    def rebuild(self, values):
        """An array; a tuple where the output node has a list."""
        remaining = iter(values)

        def build(argument):
            kind = argument.WhichOneof("kind")
            if kind == "list":
                return tuple(build(item) for item in argument.list.items)
            return next(remaining) if kind == "node" else None

        return build(self._structure)


def _leaves(argument):
    if argument.HasField("node"):
        yield argument.node
    for item in argument.list.items:
        yield from _leaves(item)


def _input_names(module):
    """Of forward's inputs, in order; a known type has one."""
    nodes = module.modules[0].graph.nodes
    if not nodes:
        return ["input"]
    return [n.name for n in nodes if n.op == types_pb2.Node.OP_PLACEHOLDER]


def _as_array(value, where):
    if arrays.is_tensor(value):
        return np.asarray(value)
    raise invalid(
        f"{where}: expected a numpy array, got: {type(value).__name__}",
        reason="INPUT_TYPE", cls=PlanTypeError, field=where)


class DescribedPrograms(ProgramStore):
    """One for each shape and dtype of the inputs, mode, and loss."""

    codec = arrays
    check_loss = staticmethod(check_loss)

    def __init__(self, rpc, description, weights=""):
        super().__init__(rpc)
        self._description = description
        self._weights = weights
        self._names = _input_names(description.proto)
        self._outputs = _Outputs(description.proto)
        self._deployed_modes = self._modes()

    def first(self, args, kwargs, loss, targets):
        """The program to plan with, before there is a deployment."""
        check_loss(loss)
        targets = () if targets is None else targets
        targets = (targets,) if arrays.is_tensor(targets) else tuple(targets)
        if not targets and takes_targets(loss, self._outputs.tensor_outputs):
            loss = None  # nothing to compare with: forward only for now
        return self.call(args, kwargs, loss, targets).program

    def takes_targets(self, loss):
        return takes_targets(loss, self._outputs.tensor_outputs)

    def call(self, args, kwargs, loss=None, targets=()):
        """The program of a call, and its arrays."""
        inputs = [_as_array(value, f"input {name!r}") for name, value in
                  zip(self._names, self._in_order(args, kwargs))]
        targets = [_as_array(value, f"target {i}")
                   for i, value in enumerate(targets)]
        key = (_types(inputs), _types(targets), self._modes(),
               _loss_key(loss))
        program = self._programs.get_or(
            key, lambda: self._sign(inputs, loss, targets))
        return Call(program, inputs, targets, [])

    def _in_order(self, args, kwargs):
        missing = [n for n in self._names[len(args):] if n not in kwargs]
        unknown = [n for n in kwargs if n not in self._names[len(args):]]
        if len(args) > len(self._names) or missing or unknown:
            raise invalid(
                f"expected the inputs {', '.join(self._names) or '(none)'}, "
                f"got: {len(args)} by position"
                + "".join(f", {name!r} by name" for name in kwargs),
                reason="INPUTS", field="inputs")
        return [*args, *(kwargs[n] for n in self._names[len(args):])]

    def _modes(self):
        return tuple(m.training for m in self._description.proto.modules)

    def _sign(self, inputs, loss, targets):
        signature = pb.ProgramSignature(inputs=[
            pb.InputSpec(type=arrays.type_of(value, f"input {name!r}"),
                         name=name)
            for name, value in zip(self._names, inputs)])
        if loss is not None:
            message = loss_to_proto(loss)
            check_targets(loss, message, self._outputs.tensor_outputs,
                          len(targets))
            signature.loss.CopyFrom(message)
            signature.targets.extend(
                pb.InputSpec(type=arrays.type_of(value, f"target {i}"),
                             name=f"target_{i}")
                for i, value in enumerate(targets))
        module = _starting_from(self._weights, self._description.proto)
        if self._deployment is not None and (
                self._modes() != self._deployed_modes):
            signature.module.CopyFrom(module)
        exported = _Exported(module, self._outputs)
        return Program(exported, signature, loss, [])


class _Exported:
    """A program's module, and how its outputs are put together."""

    def __init__(self, module, outputs):
        self.module = module
        self.rebuild = outputs.rebuild
        self.tensor_outputs = outputs.tensor_outputs


def _types(values):
    return tuple((value.shape, value.dtype.name) for value in values)


def _loss_key(loss):
    return json.dumps(loss, sort_keys=True) if isinstance(
        loss, Mapping) else loss
