"""Sides of `bench gpu`, each in a process of its own: its memory is its own,
and what goes wrong in it ends nobody else."""

import contextlib
import dataclasses
import faulthandler
import importlib
import multiprocessing
import os
import signal
import time
import traceback

from measure.gpu_models import Shape

_CLOSE_SECONDS = 20  # a cluster's processes have time to drain


@dataclasses.dataclass(frozen=True)
class Job:
    """What a side shall train."""

    shape: Shape
    state: str   # file with the parameters to begin with
    device: str  # "cpu", "cuda:0"
    optimizer: dict  # keywords of AdamW
    compile_mode: str | None = None
    coordinator_args: tuple = ()
    worker_args: tuple = ()


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A side that has taken its first steps."""

    first: float   # seconds until the first step's loss, compilation included
    losses: list


@dataclasses.dataclass(frozen=True)
class Ran:
    """Some steps of a side."""

    seconds: float
    host_share: float  # of it, when the host did not wait for the device
    worker_share: float | None = None  # processor time of the worker over it


class SideFailed(Exception):
    """With what the side said."""


def _serve(module, name, job, pipe):
    # Where it stands, should it not answer in time.
    faulthandler.register(signal.SIGUSR1)
    side = None
    try:
        side = getattr(importlib.import_module(module), name)(job)
        while True:
            method, arguments = pipe.recv()
            pipe.send(("done", getattr(side, method)(*arguments)))
    except EOFError:  # the parent has gone, or wants no more
        pass
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
    finally:
        if side is not None:
            with contextlib.suppress(Exception):
                side.close()
        # Without the destructors of a device that may be broken.
        os._exit(0)


class SideProcess:
    """An object in a child process, `name(job)` of a `module`, whose methods
    `call` calls there; it has a `close`. It is made at once; whatever fails is
    a SideFailed, after which there is nothing to call."""

    def __init__(self, module, name, job):
        # A clean process imports torch once, and these are its forks.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "measure.gpu_models"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, daemon=True, args=(module, name, job, theirs))
        self._process.start()
        theirs.close()

    def call(self, method, *arguments, seconds):
        """What it returns; within so many seconds, or the child is ended."""
        seconds = max(seconds, 0)
        # One that has failed before has left its answer, and takes no more.
        with contextlib.suppress(OSError):
            self._pipe.send((method, arguments))
        try:
            if not self._pipe.poll(seconds):
                self._end_hanging()
                raise SideFailed(f"{method}: no answer within {seconds:.0f} s")
            kind, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(_CLOSE_SECONDS)
            raise SideFailed(f"{method}: the process ended with code "
                             f"{self._process.exitcode}") from error
        if kind == "failed":
            raise SideFailed(answer)
        return answer

    def _end_hanging(self):
        os.kill(self._process.pid, signal.SIGUSR1)
        time.sleep(1)  # for its stacks
        self._process.kill()

    def end(self):
        """It begins to close."""
        self._pipe.close()

    def close(self):
        self.end()
        self._process.join(_CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
