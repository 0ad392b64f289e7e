"""PyTorch's side: processes that wait for commands, so that their steps can
alternate with somebody else's."""

import contextlib
import multiprocessing
import os
import tempfile
import time
import traceback

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, init_device_mesh
from torch.distributed.tensor.parallel import (loss_parallel,
                                               parallelize_module)

from measure.cases import CASES, Attention, Transformer
from measure.local_parts import LocalTrainer

_SECONDS = 1800  # for any one command; compiling on a busy machine takes long


class Trainer:
    """One case in one process: a rank's share, or all of it without mesh."""

    def __init__(self, case, mesh, compiled):
        self._case = case
        self._batch = case.batch()
        module = case.module()
        if mesh is not None:
            parallelize_module(module, mesh, case.plan(module))
            for part in module.modules():
                if isinstance(part, Attention):
                    # Attention on CPUs works on local tensors alone, and
                    # those are this rank's heads.
                    part.heads //= mesh.size()
        if compiled:
            compile_module(module)
        self._module = module
        self._loss_parallel = mesh is not None and case.loss_parallel
        self._optimizer = getattr(torch.optim, case.optimizer)(
            module.parameters(), **case.options, **case.torch_options)

    def step(self):
        """Forward, backward, update; the loss."""
        inputs, targets = self._batch
        self._optimizer.zero_grad()
        with loss_parallel() if self._loss_parallel else (
                contextlib.nullcontext()):
            loss = self._case.loss(self._module(*inputs), *targets)
            loss.backward()
        self._optimizer.step()
        if isinstance(loss, DTensor):
            loss = loss.to_local()  # Replicate
        return loss.item()


def compile_module(module):
    """Blocks one by one, which are alike and so are compiled once."""
    if isinstance(module, Transformer):
        for layer in module.layers:
            layer.compile()
    else:
        module.compile()


class Rank:
    """What a child process does."""

    def __init__(self, rank, ranks, store):
        torch.set_num_threads(1)
        self._ranks, self._mesh = ranks, None
        self._trainers = {}
        if ranks is not None:
            dist.init_process_group("gloo", init_method=f"file://{store}",
                                    rank=rank, world_size=ranks)
            self._mesh = init_device_mesh("cpu", (ranks,),
                                          mesh_dim_names=("tp",))

    def prepare(self, case, variant, steps):
        """(seconds of the first step, losses of `steps` steps)."""
        if variant == "local":
            trainer = LocalTrainer(case, self._ranks)
        else:
            trainer = Trainer(CASES[case], self._mesh, variant == "compile")
        start = time.perf_counter()
        losses = [trainer.step()]
        first = time.perf_counter() - start
        losses += [trainer.step() for _ in range(steps - 1)]
        self._trainers[variant] = trainer
        return first, losses

    def run(self, variant, steps):
        """(seconds, last loss); each loss is read before the next step."""
        trainer = self._trainers[variant]
        if self._mesh is not None:
            dist.barrier()
        start = time.perf_counter()
        for _ in range(steps):
            loss = trainer.step()
        return time.perf_counter() - start, loss

    def forget(self):
        self._trainers.clear()
        torch.compiler.reset()
        return None


def _serve(rank, ranks, store, pipe):
    try:
        worker = Rank(rank, ranks, store)
        pipe.send(("ready", None))
        while True:
            method, arguments = pipe.recv()
            pipe.send(("done", getattr(worker, method)(*arguments)))
    except EOFError:  # the parent has gone, or wants no more
        pass
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
    # Without a good-bye to its peers, which may be gone.
    os._exit(0)


class TorchRanks:
    """`ranks` processes with DTensor over Gloo, or one with plain PyTorch
    (`ranks` None). One thread of torch each."""

    def __init__(self, ranks):
        # A clean process imports torch once, and these are its forks.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed.tensor.parallel"])
        self._folder = tempfile.TemporaryDirectory(prefix="shardplane-bench-")
        store = os.path.join(self._folder.name, "store")
        self._pipes, self._processes = [], []
        for rank in range(ranks or 1):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, daemon=True,
                                      args=(rank, ranks, store, theirs))
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)
        self._answers()

    def prepare(self, case, variant, steps):
        answers = self._call("prepare", case, variant, steps)
        return max(first for first, _ in answers), answers[0][1]

    def run(self, variant, steps):
        """(seconds of the slowest rank, last loss)."""
        answers = self._call("run", variant, steps)
        return max(seconds for seconds, _ in answers), answers[0][1]

    def forget(self):
        self._call("forget")

    def close(self):
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
        self._folder.cleanup()

    def _call(self, method, *arguments):
        for pipe in self._pipes:
            pipe.send((method, arguments))
        return self._answers()

    def _answers(self):
        """Of all ranks; the first failure ends them all."""
        answers = {}
        end = time.monotonic() + _SECONDS
        while len(answers) < len(self._pipes):
            waiting = [p for p in self._pipes if p not in answers]
            ready = multiprocessing.connection.wait(
                waiting, max(end - time.monotonic(), 0))
            if not ready:
                raise TimeoutError(
                    f"PyTorch: expected an answer within {_SECONDS} s, got: "
                    f"none of {len(waiting)} of {len(self._pipes)} ranks")
            for pipe in ready:
                kind, answer = pipe.recv()
                if kind == "failed":
                    raise RuntimeError(f"PyTorch failed:\n{answer}")
                answers[pipe] = answer
        return [answers[pipe] for pipe in self._pipes]
