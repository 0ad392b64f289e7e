"""Programs of a deployment: one for each signature that a call has."""

import collections
import dataclasses

from shardplane.rpc import request_id
from shardplane.v1 import coordinator_pb2 as pb

_KEPT = 64  # least recently used signatures are forgotten


@dataclasses.dataclass
class Program:
    """A signature, and the program that the coordinator has for it."""

    exported: object      # has `rebuild`, `tensor_outputs` and `output_types`
    signature: pb.ProgramSignature
    loss: object          # kept: its key may hold an id
    loss_constants: list
    name: str = ""
    changed_buffers: object = None  # FQNs; None: not known yet


@dataclasses.dataclass
class Call:
    """The tensors of one call, in the program's order."""

    program: Program
    inputs: list
    targets: list
    requires_grad: list  # indices of the inputs that do


class Recent(collections.OrderedDict):
    """Keeps what was used last."""

    def get_or(self, key, make):
        value = self.get(key)
        if value is None:
            value = self[key] = make()
            while len(self) > _KEPT:
                self.popitem(last=False)
        self.move_to_end(key)
        return value


class ProgramStore:
    """What is the same for torch modules and for descriptions."""

    def __init__(self, rpc):
        self._rpc = rpc
        self._programs = Recent()
        self._deployment = None
        self.constants = []  # (FQN, tensor): what graphs hold beside the tree

    def bind(self, deployment, first):
        self._deployment = deployment
        if first is not None and deployment.programs:
            first.name = deployment.programs[0]

    def name_of(self, program):
        """Creates the program where the coordinator does not have it yet."""
        if not program.name:
            answer = self._rpc.call("CreateProgram", pb.CreateProgramRequest(
                parent=self._deployment.name, signature=program.signature,
                request_id=request_id()), timeout=300)
            program.name = answer.name
            program.changed_buffers = tuple(answer.changed_buffers)
        return program.name

    def changed_buffers(self, program):
        """FQNs of the buffers that each run changes; with any, a forward is
        a step."""
        if program.changed_buffers is None:
            program.changed_buffers = tuple(self._rpc.call(
                "GetProgram", pb.GetProgramRequest(
                    name=self.name_of(program))).changed_buffers)
        return program.changed_buffers

    def forget(self, program):
        """The coordinator has dropped it: the next call makes it anew."""
        program.name = ""
