"""Traces of steps that a worker with --profiling takes."""

import contextlib
import json
import threading
import urllib.error
import urllib.request

import pytest
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.models import MLPModule, rand

PLAN = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}


def get(worker, path):
    with urllib.request.urlopen(f"http://{worker.http_address}{path}",
                                timeout=60) as page:
        return page.headers.get_content_type(), json.load(page)


def code_of(worker, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        get(worker, path)
    return error.value.code


def test_a_trace_of_steps_that_go_on():
    with sp.LocalCluster(workers=2, worker_args=["--profiling"]) as cluster:
        with cluster.parallelize_module(MLPModule(), {"tp": 2}, PLAN) as m:
            traces = []
            asks = threading.Thread(target=lambda: traces.append(
                get(cluster.processes[1], "/profile?steps=2")))
            asks.start()
            while asks.is_alive():
                m.step(rand(4, 10), loss="sum", optimizer=sp.SGD(lr=0.1))
        ((kind, trace),) = traces
        assert kind == "application/json"
        operators = [event["name"] for event in trace["traceEvents"]
                     if event.get("cat") == "cpu_op"]
        assert operators.count("aten::linear") == 2 * 2  # of steps, of layers
        assert code_of(cluster.processes[2],
                       "/profile?steps=1&seconds=1") == 504


def test_a_worker_ends_though_somebody_waits():
    with sp.LocalCluster(workers=1, worker_args=["--profiling"]) as cluster:
        worker = cluster.processes[1]
        ending = threading.Event()

        def ask():
            while not ending.is_set():
                # The server may close before it has answered.
                with contextlib.suppress(OSError):
                    get(worker, "/profile")

        asks = threading.Thread(target=ask)
        asks.start()
        while code_of(worker, "/profile?steps=0") != 503:
            pass  # until the other one waits
        ending.set()
        worker.terminate()
        assert worker.popen.wait(30) == 0
        asks.join()


def test_workers_without_the_flag_have_none(cluster):
    assert code_of(cluster.processes[1], "/profile") == 404
