"""What m.train needs of its handle: see training.Training."""

from shardplane.optimizers import to_proto_optimizer
from shardplane.step_wire import train_record
from shardplane.training import batch_arguments
from shardplane.v1 import coordinator_pb2 as pb


class TrainingSteps:
    """The steps of one m.train. A part of the handle, and so it uses what that
    shows to nobody else."""

    # pylint: disable=protected-access

    def __init__(self, module, loss, optimizer, clip_norm, takes_targets):
        self._module = module
        self._loss = loss
        self._clip_norm = clip_norm
        self._takes_targets = takes_targets
        self._optimizer_of = optimizer if callable(optimizer) else None
        self._optimizer = (None if callable(optimizer)
                           else to_proto_optimizer(optimizer))
        self._actions = {}  # program -> its action, encoded

    def begin(self):
        self._module._check_not_training()
        self._module._training = self
        return self._module.last_step + 1

    def end(self):
        self._module._training = None

    def open(self):
        return self._module._rpc.train()

    def call_of(self, batch):
        inputs, kwargs, targets = batch_arguments(batch, self._takes_targets)
        return self._module._programs.call(inputs, kwargs, self._loss, targets)

    def has_program(self, call):
        return bool(call.program.name)

    def make_program(self, call):
        self._module._programs.name_of(call.program)

    def forget_program(self, call):
        self._module._programs.forget(call.program)

    def record(self, call, number):
        return train_record(self._module._step_parts(
            call, self._action(call.program.name, number), number))

    def _action(self, program, number):
        if self._optimizer_of is not None:
            return self._encoded(
                program, to_proto_optimizer(self._optimizer_of(number)))
        if program not in self._actions:
            self._actions[program] = self._encoded(program, self._optimizer)
        return self._actions[program]

    def _encoded(self, program, optimizer):
        return pb.StepRequest.Train(
            program=program, optimizer=optimizer,
            clip_norm=self._clip_norm).SerializeToString()

    def applied(self, call, result):
        self._module._applied(call, result)

    def loss(self, result):
        return self._module._given(result)
