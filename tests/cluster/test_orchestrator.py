"""docs/examples/orchestrator: a controller beside a cluster of processes."""

import contextlib
import copy
import importlib.util
import pathlib
import threading

import pytest
import torch

import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "docs" / "examples" / "orchestrator" / "controller.py"
SECONDS = 60
LINEAR = {"type": "torch.nn.Linear"}
WISH = {"deployment": {
    "mesh": {"dims": [{"name": "tp", "size": 2}]},
    "src_data_rank": 0,
    "seed": 3,
    "module": {
        "modules": [{"fqn": "", "type": "torch.nn.Sequential"},
                    {"fqn": "up", **LINEAR}, {"fqn": "down", **LINEAR}],
        "parameters": [
            {"fqn": f"{name}.weight", "requires_grad": True, "meta": True,
             "initializer": {"uniform": {"low": -1, "high": 1}},
             "type": {"dtype": "DTYPE_FLOAT32", "shape": shape}}
            for name, shape in (("up", [8, 4]), ("down", [4, 8]))]},
    "plan": {"entries": [
        {"pattern": "up", "value": {"style": {"colwise": {}}}},
        {"pattern": "down", "value": {"style": {"rowwise": {}}}}]}}}


def controller_module():
    spec = importlib.util.spec_from_file_location("controller", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def running(cluster, wishes):
    """A controller on a thread of its own; yields what it has said."""
    said, stop, errors = [], threading.Event(), []
    connection = sp.connect(cluster.address)
    controller = controller_module().Controller(
        connection, lambda: copy.deepcopy(wishes), said.append)

    def run():
        try:
            controller.run(stop.is_set)
        except Exception as error:  # for the test's own thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        cluster.drain(cluster.workers()[-1].name)  # an event ends its wait
        thread.join(SECONDS)
        connection.close()
    assert not thread.is_alive() and not errors, errors


def ready(cluster, count=1, avoid=()):
    """The deployments once `count` are there, all READY, none of `avoid`."""
    timer = threading.Timer(SECONDS, lambda: watch.close())
    timer.start()
    with cluster.watch("deployments") as watch:
        for _ in watch:
            there = cluster.deployments()
            if (len(there) == count and not {d.name for d in there} & set(avoid)
                    and all(d.state == pb.Deployment.STATE_READY
                            for d in there)):
                timer.cancel()
                return there
    raise AssertionError(f"not ready: {cluster.deployments()}")


def values(cluster, name, fqn):
    chunks = cluster.rpc.download(pb.DownloadTensorRequest(
        deployment=name, tensor=pb.TensorRef(parameter=fqn)), list)
    data = b"".join(each.chunk.data for each in chunks[1:])
    return torch.frombuffer(bytearray(data), dtype=torch.float32)


@pytest.fixture
def cluster():
    with sp.LocalCluster(workers=5, coordinator_args=(
            "--lease_ms=1000",)) as started:
        yield started


def other_plan():
    wish = copy.deepcopy(WISH)
    wish["deployment"]["plan"]["entries"] = [
        {"pattern": "up", "value": {"style": {"rowwise": {}}}}]
    return wish


def test_is_under_two_hundred_lines():
    assert len(SOURCE.read_text().splitlines()) < 200


def test_makes_what_is_wished_and_deletes_what_is_not(cluster):
    wishes = {"mlp": WISH}
    with running(cluster, wishes):
        (made,) = ready(cluster)
        assert made.labels["name"] == "mlp"
        del wishes["mlp"]
        cluster.drain(cluster.workers()[-1].name)  # a reason to look
        ready(cluster, count=0)


def test_a_lost_worker_is_replaced(cluster):
    with running(cluster, {"mlp": WISH}) as said:
        (first,) = ready(cluster)
        before = values(cluster, first.name, "up.weight")
        cluster.process(first.workers[1]).kill()
        with cluster.watch("deployments") as watch:
            for _ in watch:
                there = cluster.deployments()
                if there and there[0].uid != first.uid:
                    break
        (second,) = ready(cluster)
        assert first.workers[1] not in second.workers
        assert torch.equal(values(cluster, second.name, "up.weight"), before)
    assert any("is LOST" in line for line in said), said


def test_a_new_plan_is_rolled_out_beside_the_old_one(cluster):
    wishes = {"mlp": WISH}
    with running(cluster, wishes) as said:
        (old,) = ready(cluster)
        # What it has learned is not what it began with.
        changed = torch.arange(32, dtype=torch.float32)
        cluster.rpc.upload(lambda: iter((
            pb.UploadTensorRequest(header=pb.UploadTensorRequest.Header(
                deployment=old.name, upload="w",
                type=dict(dtype=pb_float32(), shape=[8, 4]))),
            *chunks_of(changed))))
        cluster.rpc.call("Step", pb.StepRequest(
            deployment=old.name, step=1, load_state=dict(
                entries=[dict(fqn="up.weight", upload="w")])))
        down = values(cluster, old.name, "down.weight")
        wishes["mlp"] = other_plan()
        cluster.drain(cluster.workers()[-1].name)  # a reason to look
        (new,) = ready(cluster, avoid=[old.name])
        assert torch.equal(values(cluster, new.name, "up.weight"), changed)
        assert torch.equal(values(cluster, new.name, "down.weight"), down)
        assert not set(new.workers) & set(old.workers), "beside it"
    assert any("replaced by" in line for line in said), said


def test_without_room_for_both_the_old_one_goes_first(cluster):
    for worker in cluster.workers()[3:]:
        cluster.drain(worker.name)
    wishes = {"mlp": WISH}
    with running(cluster, wishes) as said:
        (old,) = ready(cluster)
        wishes["mlp"] = other_plan()
        cluster.drain(cluster.workers()[2].name)  # a reason to look
        (new,) = ready(cluster, avoid=[old.name])
        assert set(new.workers) == set(old.workers)
    assert any("no room for both" in line for line in said), said


def pb_float32():
    from shardplane.v1 import types_pb2
    return types_pb2.DTYPE_FLOAT32


def chunks_of(tensor):
    from shardplane.tensors import chunks
    return [pb.UploadTensorRequest(chunk=chunk) for chunk in chunks(tensor)]
