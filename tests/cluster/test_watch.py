"""Watches, operations, events, timelines and draining, from Python."""

import threading

import pytest
import torch

import shardplane as sp
from shardplane.tensors import inline
from shardplane.v1 import coordinator_pb2 as pb
from tests.models import MLPModule, rand

PLAN = {"net1": sp.ColwiseParallel(), "net2": sp.RowwiseParallel()}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def told(watch, wanted, limit=200):
    """Events up to the first that `wanted` says yes to."""
    seen = []
    for event in watch:
        seen.append(event)
        if wanted(event):
            return seen
        assert len(seen) < limit
    raise AssertionError("the watch has ended")


def is_bookmark(event):
    return event.type == pb.WatchEvent.TYPE_BOOKMARK


@pytest.fixture(scope="module")
def cluster():
    with sp.LocalCluster(workers=3, coordinator_args=(
            "--lease_ms=2000",)) as started:
        yield started


@pytest.fixture
def deployed(cluster):
    x = rand(4, 10)
    with cluster.parallelize_module(MLPModule(), {"tp": 2}, PLAN,
                                    example_inputs=(x,), loss="sum") as m:
        yield m, x


def test_a_deployments_life_in_a_watch(cluster):
    x = rand(4, 10)
    with cluster.watch("deployments", "operations") as watch:
        told(watch, is_bookmark)
        with cluster.parallelize_module(MLPModule(), {"tp": 2}, {}, loss="sum",
                                        example_inputs=(x,)) as m:
            ready = told(watch, lambda e: e.deployment.state
                         == pb.Deployment.STATE_READY)
            assert ready[-1].deployment.name == m.name
            done = [e.operation for e in ready if e.HasField("operation")]
            m.step(x, optimizer=sp.SGD(lr=0.1))
            stepped = told(watch, lambda e: e.deployment.last_step == 1)
            done += [e.operation for e in stepped if e.HasField("operation")]
            assert {o.resource for o in done} == {m.name}
        gone = told(watch, lambda e: e.type == pb.WatchEvent.TYPE_DELETED)
        assert gone[-1].deployment.name == m.name
    operation = cluster.wait_operation(done[-1].name)
    assert operation.state == pb.Operation.STATE_SUCCEEDED
    assert operation.percent == 100
    size = sum(p.numel() * p.element_size() for p in MLPModule().parameters())
    assert operation.bytes_done == operation.bytes_total == 2 * size
    reasons = [e.reason for e in cluster.events(m.name)]
    assert reasons == ["DEPLOYMENT_FORMED", "DEPLOYMENT_MATERIALIZING",
                       "DEPLOYMENT_READY", "DEPLOYMENT_DELETED"]


def test_a_watch_goes_on_where_it_was(cluster):
    with cluster.watch("deployments") as watch:
        told(watch, is_bookmark)
        version = watch.version
    x = rand(4, 10)
    with cluster.parallelize_module(MLPModule(), {"tp": 2}, {},
                                    example_inputs=(x,)) as m:
        with cluster.watch("deployments", resume_version=version) as watch:
            seen = told(watch, is_bookmark)
            assert [e.deployment.name for e in seen[:-1]] == [m.name]
            assert seen[0].type == pb.WatchEvent.TYPE_ADDED
    with pytest.raises(sp.ShardplaneError) as error:
        next(cluster.watch(resume_version="1-1"))
    assert error.value.code == "OUT_OF_RANGE"


def test_close_ends_a_watch_on_another_thread(cluster):
    watch = cluster.watch("workers")
    told(watch, is_bookmark)
    ended = threading.Event()

    def read():
        for _ in watch:
            pass
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    watch.close()
    assert ended.wait(30)
    thread.join()


def test_every_step_is_timed(cluster, deployed):
    m, x = deployed
    losses = list(m.train([x] * 3, optimizer=sp.SGD(lr=0.1)))
    for number in 1, 2, 3:
        timeline = m.timeline(number)
        assert [rank.worker for rank in timeline.ranks] == list(
            cluster.rpc.call("GetDeployment", pb.GetDeploymentRequest(
                name=m.name)).workers)
        assert [part for part, _, _ in timeline.coordinator] == [
            "queue", "dispatch", "ranks"]
        for rank in timeline.ranks:
            assert [part for part, _, _ in rank.phases] == [
                "queue", "run", "agree", "optimizer"]
            assert all(seconds >= 0 for _, _, seconds in rank.phases)
            sums = [s for s in rank.spans if s.kind == "collective"]
            assert {s.name for s in sums} == {"all_reduce[tp]"}
            assert all(0 <= s.waited <= s.seconds for s in sums)
        # Somebody is the last to come, and waits for nobody.
        for first, second in zip(*(
                [s for s in rank.spans if s.kind == "collective"]
                for rank in timeline.ranks)):
            assert min(first.waited, second.waited) == 0
    trace = m.timeline().chrome_trace()
    named = {e["args"]["name"] for e in trace["traceEvents"]
             if e["name"] == "process_name"}
    assert "coordinator" in named and len(named) == 3
    assert str(m.timeline())
    listed = cluster.steps(m.name)
    assert [s.number for s in listed] == [1, 2, 3]
    assert [torch.frombuffer(bytearray(s.loss.inline), dtype=torch.float64)
            for s in listed] == losses
    assert not listed[0].collectives
    assert [s.number for s in cluster.steps(m.name, after=2)] == [3]
    with pytest.raises(sp.NotFoundError):
        m.timeline(9)


def test_a_trace_is_passed_on(cluster, deployed):
    m, x = deployed
    m.step(x, optimizer=sp.SGD(lr=0.1))  # makes the program
    program = cluster.rpc.call("GetDeployment", pb.GetDeploymentRequest(
        name=m.name)).programs[0]
    cluster.rpc.stub.Step(pb.StepRequest(
        deployment=m.name, step=2, train=pb.StepRequest.Train(
            program=program, inputs=[inline(x, "x")])),
        metadata=(("traceparent", TRACE),), timeout=60)
    assert cluster.step_timeline(f"{m.name}/steps/2").traceparent == TRACE
    assert cluster.step_timeline(f"{m.name}/steps/1").traceparent == ""


def test_drained_workers_get_no_gang(cluster):
    names = [w.name for w in cluster.workers()]
    drained = cluster.drain(names[0])
    assert drained.state == pb.WorkerNode.STATE_DRAINING
    try:
        with pytest.raises(sp.FailedPreconditionError):
            cluster.parallelize_module(MLPModule(), {"tp": 3}, {},
                                       example_inputs=(rand(4, 10),))
    finally:
        assert cluster.drain(names[0], undo=True).state == \
            pb.WorkerNode.STATE_READY


def test_what_is_over_is_not_cancelled(cluster, deployed):
    m, _ = deployed
    operation = next(o for o in cluster.operations() if o.resource == m.name)
    again = cluster.cancel_operation(operation.name)
    assert again.state == pb.Operation.STATE_SUCCEEDED
    with pytest.raises(sp.NotFoundError):
        cluster.cancel_operation("operations/none")


def test_a_lost_worker_is_told(cluster):
    extra = cluster.add_workers(1)[0]
    with cluster.watch("workers", "events") as watch:
        told(watch, is_bookmark)
        extra.kill()
        seen = told(watch, lambda e: e.event.reason == "WORKER_LOST")
        name = f"workers/{extra.name}"
        assert seen[-1].event.resource == name
        assert any(e.worker.name == name
                   and e.worker.state == pb.WorkerNode.STATE_LOST
                   for e in seen)
