"""The tree of names of a torch module: its modules, parameters, aliases.

The tree is the original's `named_modules()`, not an export's: a module that
is registered under two names stands there once, under the first, and a tied
weight is one parameter with further names.
"""

import dataclasses
import os
import re

import torch

from shardplane.errors import invalid
from shardplane.tensors import type_of
from shardplane.v1 import types_pb2 as pb


def join(prefix, name):
    return f"{prefix}.{name}" if prefix and name else prefix or name


def class_name(cls):
    return f"{cls.__module__}.{cls.__qualname__}"


@dataclasses.dataclass
class ParameterInfo:
    fqn: str
    tensor: torch.Tensor
    buffer: bool
    alias_of: str  # "" for a first name
    persistent: bool = True  # in the module's state_dict
    stored: tuple = ()  # its names in the tree's weights, if it starts there

    @property
    def meta(self):
        """Without data to upload."""
        return bool(self.stored) or self.tensor.device.type == "meta"

    def meta_twin(self):
        twin = self.tensor.detach().to("meta")
        return twin if self.buffer else torch.nn.Parameter(
            twin, self.tensor.requires_grad)

    def to_proto(self):
        return pb.Parameter(
            fqn=self.fqn, type=type_of(self.tensor, f"parameter {self.fqn!r}"),
            requires_grad=self.tensor.requires_grad, buffer=self.buffer,
            alias_of=self.alias_of, meta=self.meta)


class ModuleTree:
    """A snapshot of the names; holds the module's tensors, copies none."""

    def __init__(self, module):
        self.module = module
        self.modules = list(module.named_modules())
        first = {id(m): fqn for fqn, m in self.modules}
        # Any name of a module -> its first one.
        self._module_names = {
            fqn: first[id(m)]
            for fqn, m in module.named_modules(remove_duplicate=False)}
        self.parameters = []
        self._by_tensor = {}
        self.weights = None
        for fqn, m in self.modules:
            self._add(fqn, m._parameters, buffer=False)
            self._add(fqn, m._buffers, buffer=True,
                      passing=m._non_persistent_buffers_set)
        self._fqns = {p.fqn for p in self.parameters}

    @property
    def has_attention(self):
        """An nn.MultiheadAttention somewhere."""
        return any(isinstance(module, torch.nn.MultiheadAttention)
                   for module in self.module.modules())

    def start_from(self, weights):
        """What a state_dict has starts from these Weights, not from here."""
        self.weights = weights
        names = {}
        for p in self.parameters:
            names.setdefault(p.alias_of or p.fqn, []).append(p.fqn)
        for p in self.parameters:
            if p.persistent:
                p.stored = tuple(map(weights.name, names[p.alias_of or p.fqn]))
            elif p.meta:
                raise invalid(
                    f"weights: expected values of buffer {p.fqn!r}, which is "
                    "not persistent, so that no file has it, got: one on the "
                    "meta device; give the module the buffer with its values",
                    reason="BUFFER_WITHOUT_DATA", field="weights", fqn=p.fqn)

    def _add(self, prefix, tensors, buffer, passing=()):
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            fqn = join(prefix, name)
            alias_of = self._by_tensor.setdefault(id(tensor), fqn)
            self.parameters.append(ParameterInfo(
                fqn, tensor, buffer, "" if alias_of == fqn else alias_of,
                persistent=name not in passing))

    def module_fqn(self, name):
        """The first name of the module that `name` (`a.b`, `a.b@1`) names."""
        return self._module_names.get(re.sub(r"@\d+", "", name))

    def parameter_fqn(self, name):
        """The name in the tree of a parameter or buffer, or None."""
        owner, _, leaf = re.sub(r"@\d+", "", name).rpartition(".")
        owner = self._module_names.get(owner)
        fqn = None if owner is None else join(owner, leaf)
        return fqn if fqn in self._fqns else None

    def canonical(self, name):
        """The first name of the tensor that `name` names, or None."""
        fqn = self.parameter_fqn(name)
        if fqn is None:
            return None
        tensor = next(p.tensor for p in self.parameters if p.fqn == fqn)
        return self._by_tensor[id(tensor)]

    def trainable(self):
        """All names of the parameters that have gradients."""
        return [name for name, p in self.module.named_parameters(
            remove_duplicate=False) if p.requires_grad]

    def state_types(self):
        """Name -> TensorType, in order of the module's own state_dict."""
        return {name: type_of(value, f"state_dict[{name!r}]")
                for name, value in self.module.state_dict(
                    keep_vars=True).items()}

    def training_modes(self):
        return tuple(m.training for _, m in self.modules)

    def _add_weights(self, message):
        message.weights = os.fspath(self.weights.path)
        for p, parameter in zip(self.parameters, message.parameters):
            if p.stored and self.weights.names is not None:
                files = parameter.initializer.files
                files.path = message.weights
                files.names.extend(dict.fromkeys(p.stored))

    def to_proto(self, graphs=None, constants=()):
        """`graphs`: FQN -> Graph; `constants`: (FQN, tensor)."""
        message = pb.Module()
        for fqn, m in self.modules:
            node = message.modules.add(
                fqn=fqn, type=class_name(type(m)), training=m.training,
                bases=[class_name(base) for base in type(m).__mro__[1:-1]])
            if graphs and fqn in graphs:
                node.graph.CopyFrom(graphs[fqn])
        message.parameters.extend(p.to_proto() for p in self.parameters)
        if self.weights is not None:
            self._add_weights(message)
        for fqn, tensor in constants:
            message.parameters.add(
                fqn=fqn, type=type_of(tensor, f"constant {fqn!r}"),
                buffer=True)
        return message
