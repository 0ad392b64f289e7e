"""A coordinator and workers on this machine, as processes of their own."""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import Self

from shardplane.connection import Calls, Connection
from shardplane.processes import Launcher, Process, ReadyWatch
from shardplane.rpc import Rpc

_START_SECONDS = 60
_STOP_SECONDS = 10
# What NCCL asks for where several ranks have one GPU, unless it is set already:
# to say so, not to expect a switch between them, and few blocks a kernel, so
# that the ranks' kernels, which wait for each other, find room side by side.
_SHARED_GPU = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0",
               "NCCL_MAX_CTAS": "4"}


def _binary(name, *path):
    folder = os.environ.get("SHARDPLANE_BIN_DIR")
    if not folder:
        raise RuntimeError(
            f"SHARDPLANE_BIN_DIR must name the folder of {name}: run under "
            "`./shardplane python`, or set it")
    binary = os.path.join(folder, *path)
    if not os.access(binary, os.X_OK):
        raise RuntimeError(f"expected {name} at {binary}, got: no such file")
    return binary


class LocalCluster(Calls):
    """`with sp.LocalCluster(workers=4) as cluster:`

    Also a connection: `parallelize_module`, `workers()`, `watch()` and so on.
    `device`: where tensors live. "cpu"; "cuda": a GPU for each worker, from the
    first on; "cuda:N": that one for all workers, which takes NCCL 2.30 or
    `collectives` (docs/gpu.md). `collectives`: what carries them; "auto",
    between CPUs shared memory where it can be and between GPUs NCCL; or "shm",
    "gloo", between GPUs through the host's memory. `coordinator_args`,
    `worker_args`: further flags of the daemons.
    """

    def __init__(self, workers: int = 4, *, device: str = "cpu",
                 collectives: str = "auto",
                 coordinator_args: Sequence[str] = (),
                 worker_args: Sequence[str] = ()) -> None:
        self._device = device
        self._worker_args = tuple(worker_args)
        if collectives != "auto":  # which is the worker's default
            self._worker_args += (f"--collectives={collectives}",)
        self._folder = tempfile.mkdtemp(prefix="shardplane-")
        self._launcher = Launcher(self._folder)
        self._watch = ReadyWatch(self._folder)
        self._count = 0
        self.processes = []
        self._connection = None
        atexit.register(self.close)
        try:
            self.coordinator = self._launcher.start("coordinator", [
                _binary("the coordinator", "coordinator",
                        "shardplane_coordinator"),
                "--listen=127.0.0.1:0", "--http_listen=127.0.0.1:0",
                *coordinator_args])
            self.processes.append(self.coordinator)
            self._watch.wait([self.coordinator], _START_SECONDS)
            self._connection = Connection(self.coordinator.address)
            self.add_workers(workers)
        except BaseException:
            self.close()
            raise

    def add_workers(self, count: int) -> list[Process]:
        """Starts further workers; returns once they have registered."""
        started = []
        for _ in range(count):
            name = f"worker-{self._count}"
            device = self._device
            if device == "cuda":
                device = f"cuda:{self._count}"
            self._count += 1
            process = self._launcher.start(name, [
                _binary("the worker", "worker", "shardplane_worker"),
                f"--coordinator={self.address}", "--listen=127.0.0.1:0",
                "--http_listen=127.0.0.1:0", f"--id={name}",
                f"--device={device}", *self._worker_args],
                _SHARED_GPU if self._device.startswith("cuda:") else {})
            started.append(process)
            self.processes.append(process)
        self._watch.wait(started, _START_SECONDS)
        return started

    @property
    def address(self) -> str:
        """HOST:PORT of the coordinator."""
        return self.coordinator.address

    @property
    def rpc(self) -> Rpc:
        """What calls go through."""
        return self._connection.rpc

    def process(self, worker: str) -> Process:
        """The process of `workers/{id}` or of a bare id."""
        name = worker.rpartition("/")[2]
        return next(p for p in self.processes if p.name == name)

    def scrape_targets(self) -> list[dict]:
        """The processes as Prometheus' file_sd takes them: where their metrics
        are, and the labels that rules and dashboards tell them apart by."""
        return [{"targets": [process.http_address],
                 "labels": {"namespace": "local", "pod": process.name,
                            "component": process.name.partition("-")[0]}}
                for process in self.processes]

    def close(self) -> None:
        """Ends the processes that it started: workers first, then the
        coordinator, each with time to drain."""
        atexit.unregister(self.close)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for group in (self.processes[1:], self.processes[:1]):
            for process in group:
                process.terminate()
            for process in group:
                process.join(_STOP_SECONDS)
        self.processes = []
        if self._launcher is not None:
            self._launcher.close()
            self._watch.close()
            self._launcher = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _say_where(cluster, scrape_targets):
    print(f"coordinator  {cluster.address}  "
          f"(status page http://{cluster.coordinator.http_address}/)",
          flush=True)
    for process in cluster.processes[1:]:
        print(f"{process.name}     {process.address}  "
              f"(metrics http://{process.http_address}/metrics)", flush=True)
    if scrape_targets:
        with open(scrape_targets, "w", encoding="utf-8") as file:
            json.dump(cluster.scrape_targets(), file, indent=1)
    print(f'In Python: sp.connect("{cluster.address}"). '
          "Ctrl-C ends it.", flush=True)


def _up(options):
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with LocalCluster(workers=options.workers, device=options.device,
                          collectives=options.collectives,
                          coordinator_args=options.coordinator_arg,
                          worker_args=options.worker_arg) as cluster:
            _say_where(cluster, options.scrape_targets)
            signal.pause()
    except KeyboardInterrupt:  # at any moment, also while it starts
        print("\nstopped", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="shardplane.local_cluster")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a cluster and print where")
    up.add_argument("--workers", type=int, default=4)
    up.add_argument("--device", default="cpu", metavar="cpu|cuda|cuda:N",
                    help="cuda: a GPU for each worker; cuda:N: that one for all")
    up.add_argument("--collectives", default="auto",
                    choices=("auto", "shm", "gloo"),
                    help="what carries them between CPUs; auto: shared memory "
                         "where it can be")
    for daemon in ("coordinator", "worker"):
        up.add_argument(f"--{daemon}_arg", action="append", default=[],
                        metavar="--FLAG=VALUE",
                        help="a further flag; may be repeated")
    up.add_argument("--scrape_targets", metavar="FILE",
                    help="write where the metrics are, for "
                         "deploy/prometheus/prometheus.yml")
    options = parser.parse_args(arguments)
    try:
        _up(options)
    except (RuntimeError, TimeoutError) as error:  # it did not start: why
        sys.exit(str(error))


if __name__ == "__main__":
    main()
