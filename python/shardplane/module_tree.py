"""The tree of names of a torch module: its modules, parameters, aliases.

The tree is the original's `named_modules()`, not an export's: a module that
is registered under two names stands there once, under the first, and a tied
weight is one parameter with further names.
"""

import dataclasses
import re

import torch

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

    def meta_twin(self):
        twin = self.tensor.detach().to("meta")
        return twin if self.buffer else torch.nn.Parameter(
            twin, self.tensor.requires_grad)

    def to_proto(self):
        return pb.Parameter(
            fqn=self.fqn, type=type_of(self.tensor, f"parameter {self.fqn!r}"),
            requires_grad=self.tensor.requires_grad, buffer=self.buffer,
            alias_of=self.alias_of, meta=self.tensor.device.type == "meta")


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
        for fqn, m in self.modules:
            self._add(fqn, m._parameters, buffer=False)
            self._add(fqn, m._buffers, buffer=True)
        self._fqns = {p.fqn for p in self.parameters}

    @property
    def has_attention(self):
        """An nn.MultiheadAttention somewhere."""
        return any(isinstance(module, torch.nn.MultiheadAttention)
                   for module in self.module.modules())

    def _add(self, prefix, tensors, buffer):
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            fqn = join(prefix, name)
            alias_of = self._by_tensor.setdefault(id(tensor), fqn)
            self.parameters.append(ParameterInfo(
                fqn, tensor, buffer, "" if alias_of == fqn else alias_of))

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
        for fqn, tensor in constants:
            message.parameters.add(
                fqn=fqn, type=type_of(tensor, f"constant {fqn!r}"),
                buffer=True)
        return message
