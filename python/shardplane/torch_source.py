"""What parallelize_module takes from torch modules."""

import torch

from shardplane import tensors
from shardplane.errors import PlanTypeError, invalid
from shardplane.module_tree import ModuleTree
from shardplane.programs import Programs
from shardplane.transfer import upload_parameters


class TorchSource:
    """One module, or one a rank: their names, their data, their programs."""

    def __init__(self, module, weights=None):
        modules = list(module) if isinstance(module, (list, tuple)) else [
            module]
        if not modules or not all(
                isinstance(m, torch.nn.Module) for m in modules):
            raise invalid(
                "module: expected a torch.nn.Module or a list of them, one a "
                "rank, or a description (a path, a dict), got: "
                f"{type(module).__name__}", reason="MODULE_TYPE",
                cls=PlanTypeError, field="module")
        self._trees = [ModuleTree(m) for m in modules]
        if weights is not None:
            for tree in self._trees:
                tree.start_from(weights)
        self.tree = self._trees[0]
        self.count = len(modules)
        parameters = [p.to_proto() for p in self.tree.parameters]
        for rank, tree in enumerate(self._trees[1:], 1):
            if [p.to_proto() for p in tree.parameters] != parameters:
                raise invalid(
                    f"module of rank {rank}: expected the parameters of rank "
                    "0's by name, shape and dtype, got: others",
                    reason="MODULE_MISMATCH", field="module")

    def programs(self, rpc, call_signatures):
        return Programs(rpc, self.tree, call_signatures)

    def to_proto(self):
        return self.tree.to_proto()

    def upload(self, rpc, deployment, constants, src_data_rank):
        """Source data: all of one rank's, or each rank's own."""
        if self.count == 1:
            sources = [(self.tree, None)]
        elif src_data_rank is not None:
            sources = [(self._trees[src_data_rank], None)]
        else:
            sources = [(tree, rank) for rank, tree in enumerate(self._trees)]
        values = [(p.fqn, p.tensor, rank) for tree, rank in sources
                  for p in tree.parameters if not p.alias_of and not p.meta]
        values += [(fqn, tensor, None) for fqn, tensor in constants]
        upload_parameters(rpc, deployment, values, tensors)
