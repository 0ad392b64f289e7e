"""The handle of a deployment: a module that runs elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from shardplane.errors import (FailedPreconditionError, NotFoundError, invalid,
                               unimplemented)
from shardplane.explanation import Explanation, explainer
from shardplane.hints import Loss, Optimizer, OptimizerOf, Tensor
from shardplane.optimizers import to_proto_optimizer
from shardplane.remote_tensors import RemoteTensors
from shardplane.report import Report, counts_by_phase
from shardplane.rpc import Rpc, request_id
from shardplane.step_timing import StepTiming
from shardplane.step_wire import step_parts
from shardplane.timeline import Timeline
from shardplane.training import Training
from shardplane.training_steps import TrainingSteps
from shardplane.transfer import to_messages, to_parts
from shardplane.v1 import coordinator_pb2 as pb

_STEP_SECONDS = 600


class DeployedModule:
    """Made by `parallelize_module`; one thread at a time may use it."""

    def __init__(self, rpc: Rpc, deployment: pb.Deployment, tree: Any,
                 programs: Any, loss: Loss | None) -> None:
        self._rpc = rpc
        self._deployment = deployment
        self._programs = programs
        self._codec = programs.codec  # tensors or arrays
        self._tensors = RemoteTensors(rpc, deployment, tree, programs.codec)
        self._loss = loss
        self._step = deployment.last_step
        self._closed = False
        self._last = None       # the Call that outputs and gradients are of
        self._report = Report(deployment.report,
                              explainer(rpc, name=deployment.name))
        self._materialized = [
            c for c in deployment.report.collectives
            if c.phase == "materialize"]
        self._ran = []          # collectives of the last call
        self._peaks = []        # bytes by rank, of the last call
        self._has_gradients = False
        self._gradient_norm = None
        self._timed = None      # the StepResult of the last step
        self._timeline = None   # of the last step that was asked for one
        self._training = None   # the TrainingSteps that are under way

    # ---------------------------------------------------------- what it is

    @property
    def name(self) -> str:
        """deployments/{d}"""
        return self._deployment.name

    @property
    def report(self) -> Report:
        """The Report of the plan."""
        return self._report

    @property
    def last_step(self) -> int:
        """The number of the last step that took effect."""
        return self._step

    @property
    def num_ranks(self) -> int:
        """How many workers it has."""
        return len(self._deployment.workers)

    def __repr__(self):
        return f"<DeployedModule {self.name} on {self.num_ranks} workers>"

    def comm_counts(self) -> dict[str, dict[str, int]]:
        """Phase -> kind of collective -> how often it ran (absent: 0)."""
        return counts_by_phase([*self._materialized, *self._ran])

    def comm_bytes(self) -> dict[str, dict[str, int]]:
        """Phase -> kind of collective -> its bytes."""
        return counts_by_phase([*self._materialized, *self._ran], "bytes")

    def program_report(self) -> Report:
        """The Report of the program that the last call ran: what was predicted
        of it."""
        if self._last is None:
            raise _no_call("program_report")
        program = self._rpc.call("GetProgram", pb.GetProgramRequest(
            name=self._programs.name_of(self._last.program)))
        return Report(program.report, self._report.explain)

    @property
    def peak_run_bytes(self) -> list[int]:
        """By rank, what tensors took at most in the last call beyond what was
        there before it: what the report predicts under that name, and less
        after a step of SGD without momentum, which need not make the gradients
        of large weights. 0 where the device does not say."""
        return list(self._peaks)

    @property
    def gradient_norm(self) -> float | None:
        """The global 2-norm of all gradients, before clipping, of the last
        step or update; None where that had no clip_norm. A replicated or tied
        parameter counts once."""
        return self._gradient_norm

    def last_timing(self) -> StepTiming | None:
        """Where the time of the last numbered step went: a StepTiming, None
        before the first."""
        return (None if self._timed is None
                else StepTiming.from_proto(self._timed))

    def last_timeline(self) -> Timeline | None:
        """What each rank did when, of the last `step` or `forward_backward`
        with `timeline=True`: a Timeline. None before the first."""
        return self._timeline

    def timeline(self, step: int | None = None) -> Timeline:
        """Where one of the last 64 training steps spent its time, on the
        coordinator and on each rank: a Timeline. `step`: its number; None is
        the last one. Every step is timed, whether it was asked for or not."""
        number = self._step if step is None else step
        return Timeline.from_step(self._rpc.call(
            "GetStepTimeline", pb.GetStepTimelineRequest(
                name=f"{self.name}/steps/{number}")))

    # ------------------------------------------------------------- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Forward: the global outputs, in the module's own structure.

        Where the module changes its buffers (a batch norm in training mode),
        it is a numbered step: all ranks change theirs, or none.
        """
        call = self._programs.call(args, kwargs)
        answer = self._with_program(call, self._forward)
        self._last, self._ran = call, list(answer.collectives)
        self._peaks = answer.peak_run_bytes
        return call.program.exported.rebuild(self._outputs(call, answer))

    def output_shards(self) -> list[list[Tensor]]:
        """Of the last call: for each rank the list of its local outputs."""
        if self._last is None:
            raise _no_call("output_shards")
        outputs = [self._tensors.of_ranks(pb.TensorRef(output=i)) for i in
                   range(self._last.program.exported.tensor_outputs)]
        return [[output[rank] for output in outputs]
                for rank in range(self.num_ranks)]

    def step(self, *inputs: Tensor, kwargs: dict | None = None,
             targets: Tensor | Sequence[Tensor] = (), loss: Loss | None = None,
             optimizer: Optimizer | None = None, clip_norm: float | None = None,
             timeline: bool = False) -> Tensor:
        """Forward, backward and update as one numbered step; the loss.

        With `clip_norm` the update sees all gradients scaled, so that their
        global 2-norm is at most that, as torch.nn.utils.clip_grad_norm_ has
        it; `gradient_norm` is then the norm before. `gradients()` stay as
        they are. With `timeline` the ranks tell what they do when, see
        `last_timeline`.
        """
        _check_optimizer("step", optimizer)
        return self._train("step", inputs, kwargs, targets, loss,
                           clip_norm=clip_norm, timeline=timeline,
                           optimizer=to_proto_optimizer(optimizer))

    def forward_backward(self, *inputs: Tensor, kwargs: dict | None = None,
                         targets: Tensor | Sequence[Tensor] = (),
                         loss: Loss | None = None, accumulate: bool = False,
                         timeline: bool = False) -> Tensor:
        """Gradients alone: they replace those there, or add to them;
        `timeline` as in step."""
        return self._train("forward_backward", inputs, kwargs, targets, loss,
                           accumulate=accumulate, timeline=timeline)

    def update(self, optimizer: Optimizer,
               clip_norm: float | None = None) -> None:
        """Applies the gradients that are there; `clip_norm` as in step."""
        if not self._has_gradients:
            raise _no_call("update")
        answer = self._act(update=pb.StepRequest.Update(
            optimizer=to_proto_optimizer(optimizer), clip_norm=clip_norm))
        self._note(answer)

    def train(self, batches: Iterable, *, loss: Loss | None = None,
              optimizer: Optimizer | OptimizerOf | None = None,
              clip_norm: float | None = None,
              has_targets: bool | None = None) -> Iterator[Tensor]:
        """Steps over `batches`, any iterable: an iterator of their losses, in
        order. Each is what `step` does, under a number of its own, but it is
        sent before the ones before it are over; so they cost little beside
        the workers' own time.

            for loss in m.train(loader, loss=cross_entropy,
                                optimizer=sp.SGD(lr=0.1)):

        A batch is what forward takes: a tensor, a tuple or list of arguments,
        or a dict of keyword arguments. Where the loss takes targets it is a
        pair of that and the targets, a tensor or a tuple of them.
        `has_targets` says so where the loss does not: where it is a callable
        whose targets have defaults. `optimizer` may be a function of the
        step's number, for values that change.

        Batches are read as they are needed, at most 32 ahead, in the caller's
        thread. Batches of another shape wait for a program of their own. An
        error comes after the losses before it: that of a step takes those
        behind it with it, and m.step or another m.train goes on from there.
        Whoever ends early (a break, or close() of the iterator) waits for the
        steps that are under way; `last_step` then says how many took effect.
        Meanwhile the handle may read, and takes no other step.
        """
        _check_optimizer("train", optimizer)
        loss = self._loss_or("train", loss)
        steps = TrainingSteps(
            self, loss, optimizer, clip_norm,
            self._programs.takes_targets(loss) if has_targets is None
            else has_targets)
        return Training(steps, batches, self._rpc.patience()).losses()

    def reset_optimizer(self) -> None:
        """Forgets the optimizer's state, as one numbered step."""
        self._act(reset_optimizer=pb.StepRequest.ResetOptimizer())

    # -------------------------------------------------------------- tensors

    def gradients(self) -> dict[str, Tensor]:
        """FQN -> global gradient of the last backward; a tied weight under
        all its names. What the loss does not depend on is left out."""
        return self._tensors.gradients()

    def input_gradients(self) -> list[Tensor | None]:
        """One for each input tensor with requires_grad, in order; None where
        the loss does not depend on it."""
        if self._last is None:
            raise _no_call("input_gradients")
        return self._tensors.download_gradients(
            [pb.TensorRef(input_gradient=i) for i in self._last.requires_grad])

    def state_dict(self) -> dict[str, Tensor]:
        """FQN -> global value, under the names of the module's own."""
        return self._tensors.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Tensor],
                        strict: bool = True) -> None:
        """New values, as one numbered step: all of them or none."""
        self._act(load_state=self._tensors.upload_state(state_dict, strict))

    def shards(self, fqn: str) -> list[Tensor]:
        """A parameter or buffer as it lies: one local tensor a rank."""
        return self._tensors.shards(fqn)

    # ------------------------------------------------------------ life cycle

    def save(self, path: str | os.PathLike) -> None:
        """Not in this release: UNIMPLEMENTED."""
        del path
        raise unimplemented("save")

    def explain(self, fqn: str) -> Explanation:
        """Why a module, parameter or buffer lies as it does, and each
        collective that it causes: an Explanation."""
        return self._report.explain(fqn)

    def reshard(self, mesh: Any = None, plan: Any = None) -> None:
        """Not in this release: UNIMPLEMENTED."""
        del mesh, plan
        raise unimplemented("reshard")

    def close(self) -> None:
        """Ends the deployment; its workers are free again."""
        if not self._closed:
            self._closed = True
            self._rpc.call("DeleteDeployment", pb.DeleteDeploymentRequest(
                name=self.name, request_id=request_id(), allow_missing=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --------------------------------------------------------------- within

    def _messages(self, values, what):
        return to_messages(self._rpc, self._deployment, values, what,
                           self._codec)

    def _with_program(self, call, run):
        """Runs `run`; once more where the program was dropped meanwhile."""
        for last_try in (False, True):
            name = self._programs.name_of(call.program)
            try:
                return run(call, name)
            except NotFoundError as error:
                if last_try or error.details.get("resource", {}).get(
                        "name") != name:
                    raise
                self._programs.forget(call.program)
        return None

    def _forward(self, call, program):
        if self._programs.changed_buffers(call.program):
            return self._act(train=pb.StepRequest.Train(
                program=program,
                inputs=self._messages(call.inputs, "input")))
        return self._rpc.call("Forward", pb.ForwardRequest(
            deployment=self.name, program=program, request_id=request_id(),
            epoch=self._deployment.epoch,
            inputs=self._messages(call.inputs, "input")), _STEP_SECONDS)

    def _outputs(self, call, answer):
        if self._programs.changed_buffers(call.program):
            return [self._tensors.download(pb.TensorRef(output=i))
                    for i in range(call.program.exported.tensor_outputs)]
        return [self._output(i, output)
                for i, output in enumerate(answer.outputs)]

    def _output(self, index, output):
        if output.HasField("inline"):
            return self._codec.from_bytes(output.spec.type, output.inline)
        return self._tensors.download(pb.TensorRef(output=index))

    def _train(self, method, inputs, kwargs, targets, loss, **options):
        loss = self._loss_or(method, loss)
        if self._codec.is_tensor(targets):
            targets = (targets,)
        call = self._programs.call(inputs, kwargs or {}, loss, tuple(targets))

        def run(call, program):
            self._check_not_training()
            train = pb.StepRequest.Train(program=program, **options)
            request = self._step_parts(call, train.SerializeToString(),
                                       self._step + 1, request_id())
            return self._rpc.step(b"".join(request), _STEP_SECONDS)

        answer = self._with_program(call, run)
        self._applied(call, answer)
        if answer.timelines:
            self._timeline = Timeline.from_proto(answer.timelines)
        return self._given(answer)

    def _loss_or(self, method, loss):
        loss = self._loss if loss is None else loss
        if loss is None:
            raise invalid(
                f'{method}: expected a loss ("sum", "mean" or a callable), '
                "got: none", reason="NO_LOSS", field="loss")
        self._programs.check_loss(loss)
        return loss

    def _step_parts(self, call, train, number, id_=""):
        """A training step, encoded; see step_wire."""
        head = pb.StepRequest(deployment=self.name, step=number,
                              request_id=id_, epoch=self._deployment.epoch)
        return step_parts(head.SerializeToString(), train, *to_parts(
            self._rpc, self._deployment, call.inputs, call.targets,
            self._codec))

    def _applied(self, call, answer):
        """A training step has taken effect."""
        self._step = answer.number
        self._last = call
        self._has_gradients = True

    def _given(self, answer):
        """The loss of a training step, which the handle now speaks of."""
        self._timed = answer
        self._note(answer)
        return self._codec.from_bytes(answer.loss.type, answer.loss.inline)

    def _act(self, **action):
        """One numbered action: retried under its number, so done once."""
        self._check_not_training()
        request = pb.StepRequest(
            deployment=self.name, step=self._step + 1,
            request_id=request_id(), epoch=self._deployment.epoch, **action)
        answer = self._rpc.call("Step", request, _STEP_SECONDS)
        self._step = answer.number
        self._timed = answer
        return answer

    def _check_not_training(self):
        if self._training is not None:
            raise FailedPreconditionError(
                "expected no train that is under way, got: one; exhaust its "
                "iterator or close it", {"reason": "TRAINING"})

    def _note(self, answer):
        """What the last action that used gradients has left."""
        self._ran = list(answer.collectives)
        self._peaks = answer.peak_run_bytes
        self._gradient_norm = (answer.gradient_norm if answer.HasField(
            "gradient_norm") else None)


def _no_call(method):
    return FailedPreconditionError(
        f"{method}: expected a call (forward_backward, for gradients) before, "
        "got: none",
        {"reason": "NO_CALL"})


def _check_optimizer(method, optimizer):
    if optimizer is None:
        raise invalid(
            f"{method}: expected an optimizer, such as sp.SGD(lr=0.1), got: "
            "none; forward_backward computes gradients without an update",
            reason="NO_OPTIMIZER", field="optimizer")
