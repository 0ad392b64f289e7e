"""The handle of a deployment: a module that runs elsewhere."""

import torch

from shardplane import tensors
from shardplane.errors import (FailedPreconditionError, NotFoundError, invalid,
                               unimplemented)
from shardplane.optimizers import to_proto_optimizer
from shardplane.programs import check_loss
from shardplane.report import Report, counts_by_phase
from shardplane.rpc import request_id
from shardplane.transfer import download, to_messages, upload
from shardplane.v1 import coordinator_pb2 as pb

_STEP_SECONDS = 600


class DeployedModule:
    """Made by `parallelize_module`; one thread at a time may use it."""

    def __init__(self, rpc, deployment, tree, programs, loss):
        self._rpc = rpc
        self._deployment = deployment
        self._tree = tree
        self._programs = programs
        self._loss = loss
        self._step = deployment.last_step
        self._closed = False
        self._last = None       # the Call that outputs and gradients are of
        self._report = Report(deployment.report)
        self._materialized = [
            c for c in deployment.report.collectives
            if c.phase == "materialize"]
        self._ran = []          # collectives of the last call
        self._has_gradients = False

    # ---------------------------------------------------------- what it is

    @property
    def name(self):
        return self._deployment.name

    @property
    def report(self):
        return self._report

    @property
    def last_step(self):
        """The number of the last step that took effect."""
        return self._step

    @property
    def num_ranks(self):
        return len(self._deployment.workers)

    def __repr__(self):
        return f"<DeployedModule {self.name} on {self.num_ranks} workers>"

    def comm_counts(self):
        """Phase -> kind of collective -> how often it ran (absent: 0)."""
        return counts_by_phase([*self._materialized, *self._ran])

    def comm_bytes(self):
        return counts_by_phase([*self._materialized, *self._ran], "bytes")

    # ------------------------------------------------------------- calling

    def __call__(self, *args, **kwargs):
        """Forward: the global outputs, in the module's own structure."""
        call = self._programs.call(args, kwargs)
        answer = self._with_program(call, self._forward)
        self._last, self._ran = call, list(answer.collectives)
        outputs = [self._output(i, output)
                   for i, output in enumerate(answer.outputs)]
        return call.program.exported.rebuild(outputs)

    def output_shards(self):
        """Of the last call: for each rank the list of its local outputs."""
        if self._last is None:
            raise _no_call("output_shards")
        outputs = range(self._last.program.exported.tensor_outputs)
        return [[self._download(pb.TensorRef(output=i), rank)
                 for i in outputs] for rank in self._ranks()]

    def step(self, *inputs, kwargs=None, targets=(), loss=None,
             optimizer=None, clip_norm=None):
        """Forward, backward and update as one numbered step; the loss."""
        if optimizer is None:
            raise invalid(
                "step: expected an optimizer, such as sp.SGD(lr=0.1), got: "
                "none; forward_backward computes gradients without an update",
                reason="NO_OPTIMIZER", field="optimizer")
        return self._train("step", inputs, kwargs, targets, loss, clip_norm,
                           to_proto_optimizer(optimizer))

    def forward_backward(self, *inputs, kwargs=None, targets=(), loss=None,
                         accumulate=False):
        """Gradients alone: they replace those there, or add to them."""
        return self._train("forward_backward", inputs, kwargs, targets, loss,
                           None, None, accumulate)

    def update(self, optimizer, clip_norm=None):
        """Applies the gradients that are there."""
        _refuse_clip_norm(clip_norm)
        if not self._has_gradients:
            raise _no_call("update")
        answer = self._act(update=pb.StepRequest.Update(
            optimizer=to_proto_optimizer(optimizer)))
        self._ran = list(answer.collectives)

    def train(self, batches, **options):
        del batches, options
        raise unimplemented("train")

    def reset_optimizer(self):
        self._act(reset_optimizer=pb.StepRequest.ResetOptimizer())

    # -------------------------------------------------------------- tensors

    def gradients(self):
        """FQN -> global gradient of the last backward; a tied weight under
        all its names. What the loss does not depend on is left out."""
        return self._by_name(
            lambda fqn: pb.TensorRef(gradient=fqn),
            [(name, p) for name, p in self._tree.module.named_parameters(
                remove_duplicate=False) if p.requires_grad], optional=True)

    def input_gradients(self):
        """One for each input tensor with requires_grad, in order."""
        if self._last is None:
            raise _no_call("input_gradients")
        return [self._download(pb.TensorRef(input_gradient=i))
                for i in self._last.requires_grad]

    def state_dict(self):
        """FQN -> global value, under the names of the module's own."""
        return self._by_name(
            lambda fqn: pb.TensorRef(parameter=fqn),
            [(name, value) for name, value in self._state_dict().items()])

    def load_state_dict(self, state_dict, strict=True):
        """New values, as one numbered step: all of them or none."""
        own = self._state_dict()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        if strict and (missing or unexpected):
            raise invalid(
                f"state_dict: expected the names of the module, got: missing "
                f"{missing}, unexpected {unexpected}", reason="STATE_DICT",
                field="state_dict")
        entries, seen = [], set()
        for name, tensor in state_dict.items():
            fqn = self._canonical(name) if name in own else None
            if fqn is None or fqn in seen:
                continue
            seen.add(fqn)
            entries.append(pb.StepRequest.LoadState.Entry(
                fqn=fqn, upload=self._upload_state(name, tensor, own[name])))
        self._act(load_state=pb.StepRequest.LoadState(entries=entries))

    def shards(self, fqn):
        """A parameter or buffer as it lies: one local tensor a rank."""
        ref = pb.TensorRef(parameter=self._tree.canonical(fqn) or fqn)
        return [self._download(ref, rank) for rank in self._ranks()]

    # ------------------------------------------------------------ life cycle

    def save(self, path):
        del path
        raise unimplemented("save")

    def reshard(self, mesh=None, plan=None):
        del mesh, plan
        raise unimplemented("reshard")

    def explain(self, fqn):
        del fqn
        raise unimplemented("explain")

    def close(self):
        """Ends the deployment; its workers are free again."""
        if not self._closed:
            self._closed = True
            self._rpc.call("DeleteDeployment", pb.DeleteDeploymentRequest(
                name=self.name, request_id=request_id(), allow_missing=True))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    # --------------------------------------------------------------- within

    def _ranks(self):
        return range(self.num_ranks)

    def _download(self, ref, rank=None):
        return download(self._rpc, self._deployment, ref, rank)

    def _messages(self, values, what):
        return to_messages(self._rpc, self._deployment, values, what)

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
        return self._rpc.call("Forward", pb.ForwardRequest(
            deployment=self.name, program=program, request_id=request_id(),
            epoch=self._deployment.epoch,
            inputs=self._messages(call.inputs, "input")), _STEP_SECONDS)

    def _output(self, index, output):
        if output.HasField("inline"):
            return tensors.from_bytes(output.spec.type, output.inline)
        return self._download(pb.TensorRef(output=index))

    def _train(self, method, inputs, kwargs, targets, loss, clip_norm,
               optimizer, accumulate=False):
        _refuse_clip_norm(clip_norm)
        loss = self._loss if loss is None else loss
        if loss is None:
            raise invalid(
                f'{method}: expected a loss ("sum", "mean" or a callable), '
                "got: none", reason="NO_LOSS", field="loss")
        check_loss(loss)
        if isinstance(targets, torch.Tensor):
            targets = (targets,)
        call = self._programs.call(inputs, kwargs or {}, loss, tuple(targets))

        def run(call, program):
            return self._act(train=pb.StepRequest.Train(
                program=program, optimizer=optimizer, accumulate=accumulate,
                inputs=self._messages(call.inputs, "input"),
                targets=self._messages(call.targets, "target")))

        answer = self._with_program(call, run)
        self._last, self._ran = call, list(answer.collectives)
        self._has_gradients = True
        return tensors.from_bytes(answer.loss.type, answer.loss.inline)

    def _act(self, **action):
        """One numbered action: retried under its number, so done once."""
        request = pb.StepRequest(
            deployment=self.name, step=self._step + 1,
            request_id=request_id(), epoch=self._deployment.epoch, **action)
        answer = self._rpc.call("Step", request, _STEP_SECONDS)
        self._step = answer.number
        return answer

    def _state_dict(self):
        # The module's own names and order; its values are not looked at.
        return self._tree.module.state_dict(keep_vars=True)

    def _canonical(self, name):
        return self._tree.canonical(name)

    def _by_name(self, make_ref, named, optional=False):
        """`named`: (name, ...); each tensor is downloaded once."""
        values, result = {}, {}
        for name, _ in named:
            fqn = self._canonical(name)
            if fqn not in values:
                try:
                    values[fqn] = self._download(make_ref(fqn))
                except NotFoundError:
                    if not optional:
                        raise
                    values[fqn] = None
            if values[fqn] is not None:
                result[name] = values[fqn]
        return result

    def _upload_state(self, name, tensor, like):
        if not isinstance(tensor, torch.Tensor) or (
                tensor.shape != like.shape):
            got = (list(tensor.shape) if isinstance(tensor, torch.Tensor)
                   else type(tensor).__name__)
            raise invalid(
                f"state_dict[{name!r}]: expected a tensor of shape "
                f"{list(like.shape)}, got: {got}", reason="STATE_DICT_SHAPE",
                field=f"state_dict[{name!r}]", fqn=name)
        return upload(self._rpc, self._deployment,
                      tensor.detach().to(like.dtype), f"parameter {name!r}")


def _refuse_clip_norm(clip_norm):
    if clip_norm is not None:
        raise unimplemented("clip_norm", f"got: {clip_norm!r}")


def _no_call(method):
    return FailedPreconditionError(
        f"{method}: expected a call (forward_backward, for gradients) before, "
        "got: none",
        {"reason": "NO_CALL"})
