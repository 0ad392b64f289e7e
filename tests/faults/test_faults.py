"""What goes wrong gets its code, names the culprit, and harms nobody else."""

import os
import signal
import subprocess
import sys
import uuid

import grpc
import pytest
import torch
from torch.distributed.tensor.parallel import (
    ColwiseParallel, ParallelStyle, RowwiseParallel)

import shardplane as sp
from shardplane.errors import from_rpc
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2
from tests.models import MLPModule, linear, rand
from tests.parity import assert_close, parallelized

PAIR = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
PAIR_CUTS = {"net1.weight": 0, "net1.bias": 0, "net2.weight": 1}


def check_works(cluster, workers=4):
    """The cluster takes a deployment over all workers and trains it."""
    x = rand(6, 10)
    with parallelized(cluster, MLPModule(), {"tp": workers}, PAIR,
                      cuts=PAIR_CUTS, x=x) as case:
        case.check_all(x)


@pytest.fixture
def deployed(cluster):
    with cluster.parallelize_module(
            MLPModule(), {"tp": 2}, PAIR, example_inputs=(rand(6, 10),),
            loss="sum") as m:
        yield m


# ------------------------------------------------------------------- plans


@pytest.mark.parametrize("plan, culprit", [
    ("colwise", "colwise"), (7, "int"), ({"net1": "colwise"}, "net1"),
    ({"net1": [ColwiseParallel(), "x"]}, "net1"), ({3: None}, "3"),
    ({"net1": {"weight": 1.5}}, "net1.weight")])
def test_plan_of_a_wrong_type(cluster, plan, culprit):
    with pytest.raises(sp.ShardplaneError, match=culprit) as raised:
        cluster.parallelize_module(MLPModule(), {"tp": 4}, plan)
    assert isinstance(raised.value, TypeError)
    assert raised.value.code == "INVALID_ARGUMENT"
    check_works(cluster)


class DiagonalParallel(ParallelStyle):
    def _apply(self, module, device_mesh):
        return module


def test_unknown_style(cluster):
    with pytest.raises(sp.UnimplementedError,
                       match="DiagonalParallel") as raised:
        cluster.parallelize_module(
            MLPModule(), {"tp": 4}, {"net1": DiagonalParallel(), "net2": None})
    assert raised.value.code == "UNIMPLEMENTED"
    assert "net1" in str(raised.value) + str(raised.value.details)
    check_works(cluster)


def test_two_styles_on_one_module(cluster):
    with pytest.raises(sp.InvalidArgumentError) as raised:
        cluster.parallelize_module(
            MLPModule(), {"tp": 4},
            {"net1": ColwiseParallel(), "net*": RowwiseParallel()})
    assert "net1" in raised.value.message and "net*" in raised.value.message
    assert cluster.deployments() == []


def test_strict_makes_a_warning_an_error(cluster):
    with pytest.raises(sp.InvalidArgumentError, match="net3"):
        cluster.parallelize_module(MLPModule(), {"tp": 4},
                                   {"net3": ColwiseParallel()}, strict=True)
    check_works(cluster)


# ------------------------------------------------------------------- meshes


def test_mesh_larger_than_the_workers(cluster):
    with pytest.raises(sp.FailedPreconditionError) as raised:
        cluster.parallelize_module(MLPModule(), {"tp": 5}, PAIR)
    assert "5" in raised.value.message and "4" in raised.value.message
    assert raised.value.details["precondition_violations"]
    report = cluster.parallelize_module(MLPModule(), {"tp": 5}, PAIR,
                                        validate_only=True)
    assert report.placements["net1.weight"] == "[S(0)]"
    check_works(cluster)


@pytest.mark.parametrize("mesh", [{"tp": 0}, {"tp": -1}, {}])
def test_bad_mesh(cluster, mesh):
    with pytest.raises(ValueError) as raised:
        cluster.parallelize_module(MLPModule(), mesh, PAIR)
    assert raised.value.code == "INVALID_ARGUMENT"


def test_source_rank_outside_the_mesh(cluster):
    with pytest.raises(sp.InvalidArgumentError, match="4"):
        cluster.parallelize_module(MLPModule(), {"tp": 4}, PAIR,
                                   src_data_rank=4)
    check_works(cluster)


# ------------------------------------------------------------------ tensors


def forward_request(m, tensor_type, data):
    program = m._programs.call((rand(6, 10),), {}).program
    return pb.ForwardRequest(
        deployment=m.name, program=m._programs.name_of(program),
        request_id=str(uuid.uuid4()),
        inputs=[types_pb2.Tensor(type=tensor_type, inline=data)])


@pytest.mark.parametrize("dtype, shape, size", [
    (types_pb2.DTYPE_FLOAT64, [6, 11], 528),
    (types_pb2.DTYPE_FLOAT32, [6, 10], 240),
    (types_pb2.DTYPE_FLOAT64, [6, 10], 479),
], ids=["shape", "dtype", "bytes"])
def test_tensor_that_does_not_fit(deployed, cluster, dtype, shape, size):
    request = forward_request(
        deployed, types_pb2.TensorType(dtype=dtype, shape=shape),
        bytes(size))
    with pytest.raises(sp.InvalidArgumentError) as raised:
        cluster.rpc.call("Forward", request)
    assert "input" in str(raised.value)
    x = rand(6, 10)
    assert_close(deployed(x), MLPModule()(x))


def test_input_that_the_module_does_not_take(deployed):
    with pytest.raises(sp.InvalidArgumentError):
        deployed(rand(6, 11))
    x = rand(6, 10)
    assert_close(deployed(x), MLPModule()(x))


def test_state_dict_of_another_shape(deployed):
    state = MLPModule().state_dict()
    state["net1.weight"] = torch.zeros(3, 3)
    with pytest.raises(ValueError, match="net1.weight"):
        deployed.load_state_dict(state)
    with pytest.raises(ValueError, match="net9"):
        deployed.load_state_dict({"net9": torch.zeros(1)})
    assert_close(deployed.state_dict()["net1.weight"],
                 MLPModule().net1.weight)


# -------------------------------------------------------------------- steps


def step_request(m, number, **changes):
    call = m._programs.call((rand(6, 10),), {}, "sum")
    program = m._programs.name_of(call.program)
    request = pb.StepRequest(
        deployment=m.name, step=number, request_id=str(uuid.uuid4()),
        train=pb.StepRequest.Train(
            program=program, inputs=m._messages(call.inputs, "input"),
            optimizer=sp.SGD(lr=0.25).to_proto()))
    for name, value in changes.items():
        setattr(request, name, value)
    return request


def test_step_of_a_deployment_that_is_not_there(deployed, cluster):
    request = step_request(deployed, 1, deployment="deployments/nowhere")
    request.train.program = "deployments/nowhere/programs/p"
    with pytest.raises(sp.NotFoundError, match="deployments/nowhere") as e:
        cluster.rpc.call("Step", request)
    assert e.value.details["resource"]["name"] == "deployments/nowhere"
    deployed.close()
    with pytest.raises(sp.ShardplaneError) as raised:
        deployed.step(rand(6, 10), optimizer=sp.SGD(lr=0.1))
    assert raised.value.code in ("NOT_FOUND", "FAILED_PRECONDITION")
    assert deployed.name in str(raised.value)
    check_works(cluster)


@pytest.mark.parametrize("number", [0, 2, 9])
def test_step_number_out_of_turn(deployed, cluster, number):
    with pytest.raises(sp.AbortedError) as raised:
        cluster.rpc.call("Step", step_request(deployed, number))
    assert raised.value.details["metadata"]["expected"] == "1"
    assert deployed.step(rand(6, 10), optimizer=sp.SGD(lr=0.25)).dim() == 0


def test_step_is_done_once(deployed, cluster):
    """The same number and content: the recorded answer. Other content:
    refused. So the parameters are those after one step."""
    first = cluster.rpc.call("Step", step_request(deployed, 1))
    again = cluster.rpc.call("Step", step_request(deployed, 1))
    assert again.number == first.number == 1
    assert again.loss == first.loss
    other = step_request(deployed, 1)
    other.train.optimizer.sgd.lr = 0.5
    with pytest.raises(sp.AbortedError) as raised:
        cluster.rpc.call("Step", other)
    assert raised.value.details["metadata"]["expected"] == "2"
    reference = MLPModule()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.25)
    reference(rand(6, 10)).sum().backward()
    optimizer.step()
    for name, value in deployed.state_dict().items():
        assert_close(value, reference.state_dict()[name], name)


def test_step_of_an_old_epoch(deployed, cluster):
    epoch = deployed._deployment.epoch + 1000
    with pytest.raises(sp.AbortedError, match="epoch"):
        cluster.rpc.call("Step", step_request(deployed, 1, epoch=epoch))


def test_step_without_loss_or_optimizer(cluster):
    with cluster.parallelize_module(MLPModule(), {"tp": 2}, PAIR) as m:
        with pytest.raises(ValueError, match="loss"):
            m.step(rand(6, 10), optimizer=sp.SGD(lr=0.1))
        with pytest.raises(ValueError, match="forward_backward"):
            m.step(rand(6, 10), loss="sum")
        with pytest.raises(sp.FailedPreconditionError):
            m.update(sp.SGD(lr=0.1))  # there are no gradients
        m.step(rand(6, 10), loss="sum", optimizer=sp.SGD(lr=0.1))


def test_request_id_used_again_with_another_body(deployed, cluster):
    request_id = str(uuid.uuid4())
    request = step_request(deployed, 1, request_id=request_id)
    cluster.rpc.call("Step", request)
    assert cluster.rpc.call("Step", request).number == 1
    other = step_request(deployed, 2, request_id=request_id)
    with pytest.raises(sp.InvalidArgumentError) as raised:
        cluster.rpc.call("Step", other)
    assert raised.value.reason == "REQUEST_ID_REUSED"


# ------------------------------------------------------------------- limits


def test_message_over_the_limit(deployed, cluster):
    x = torch.zeros(5 << 20, dtype=torch.float64)  # 40 MiB
    request = forward_request(
        deployed, types_pb2.TensorType(dtype=types_pb2.DTYPE_FLOAT64,
                                       shape=[5 << 20]),
        x.numpy().tobytes())
    with pytest.raises(sp.ResourceExhaustedError):
        cluster.rpc.call("Forward", request)
    check_works(cluster, 2)


def test_inline_tensor_over_the_limit(deployed, cluster):
    count = (1 << 17) + 1  # 8 bytes over 1 MiB
    request = forward_request(
        deployed, types_pb2.TensorType(dtype=types_pb2.DTYPE_FLOAT64,
                                       shape=[count]), bytes(8 * count))
    with pytest.raises(sp.ResourceExhaustedError, match="[Uu]pload"):
        cluster.rpc.call("Forward", request)
    check_works(cluster, 2)


def test_large_tensors_are_uploaded(cluster):
    """A weight of 32 MiB and activations beyond a message."""
    module = linear(2048, 2048, torch.float64, bias=False)
    x = rand(512, 2048)
    with parallelized(cluster, module, {"tp": 4}, ColwiseParallel(),
                      cuts={"weight": 0}, x=x) as case:
        case.check_forward(x)
        assert_close(case.m.state_dict()["weight"], module.weight)


def upload_messages(m, damage):
    header = pb.UploadTensorRequest.Header(
        deployment=m.name, upload="u", request_id=str(uuid.uuid4()),
        type=types_pb2.TensorType(dtype=types_pb2.DTYPE_FLOAT32, shape=[4]))
    chunk = types_pb2.TensorData(data=bytes(16), last=True, crc32=0xecbb4b55)
    damage(chunk)
    yield pb.UploadTensorRequest(header=header)
    yield pb.UploadTensorRequest(chunk=chunk)


@pytest.mark.parametrize("code, damage", [
    ("DATA_LOSS", lambda chunk: setattr(chunk, "crc32", 1)),
    ("INVALID_ARGUMENT", lambda chunk: setattr(chunk, "data", bytes(12))),
    ("INVALID_ARGUMENT", lambda chunk: setattr(chunk, "last", False)),
], ids=["checksum", "short", "no_end"])
def test_damaged_upload(deployed, cluster, code, damage):
    with pytest.raises(grpc.RpcError) as raised:
        cluster.rpc.stub.UploadTensor(upload_messages(deployed, damage),
                                      timeout=30)
    assert from_rpc(raised.value).code == code
    x = rand(6, 10)
    assert_close(deployed(x), MLPModule()(x))


# ------------------------------------------------------- later releases


@pytest.mark.parametrize("call, name", [
    (lambda m: m.save("x"), "save"),
    (lambda m: m.reshard(mesh={"tp": 1}), "reshard"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_unimplemented_by_name(deployed, call, name):
    with pytest.raises(sp.UnimplementedError, match=name):
        call(deployed)
    assert deployed.step(rand(6, 10), optimizer=sp.SGD(lr=0.1)).dim() == 0


@pytest.mark.parametrize("options, name", [
    ({"plan": "auto"}, "auto")])
def test_unimplemented_options_by_name(cluster, options, name):
    with pytest.raises(sp.UnimplementedError, match=name):
        cluster.parallelize_module(MLPModule(), {"tp": 2}, **options)
    with pytest.raises(sp.UnimplementedError, match="restore"):
        cluster.restore("nowhere")
    assert cluster.deployments() == []


# ---------------------------------------------------------- who disappears

CLIENT = """
import os, signal, sys, torch
import shardplane as sp
from shardplane import tensors, rpc
from shardplane.v1 import coordinator_pb2 as pb
from torch.distributed.tensor.parallel import ColwiseParallel

def die():
    os.kill(os.getpid(), signal.SIGKILL)

connection = sp.connect(sys.argv[1])
model = torch.nn.Linear(512, 2048, bias=False)
"""

DIES_IN_UPLOAD = CLIENT + """
chunks = tensors.chunks
def half(tensor):
    yield next(iter(chunks(tensor)))
    print("half", flush=True)
    sys.stdin.read(1)
    die()
tensors.chunks = half
connection.parallelize_module(model, {"tp": 4}, ColwiseParallel())
"""

DIES_IN_STEP = CLIENT + """
x = torch.rand(64, 512)
m = connection.parallelize_module(model, {"tp": 4}, ColwiseParallel(),
                                  example_inputs=(x,), loss="sum")
step = connection.rpc._step
def step_and_die(request, timeout):
    answer = step.future(request, timeout=timeout)
    print("half", flush=True)
    die()
connection.rpc._step = step_and_die
m.step(x, optimizer=sp.SGD(lr=0.1))
"""

DIES_IN_TRAIN = CLIENT + """
x = torch.rand(64, 512)
m = connection.parallelize_module(model, {"tp": 4}, ColwiseParallel(),
                                  example_inputs=(x,), loss="sum")
for loss in m.train((x for _ in range(1000)), optimizer=sp.SGD(lr=0.1)):
    if m.last_step >= 10:
        print("half", flush=True)
        die()
"""


@pytest.mark.parametrize("script", [
    DIES_IN_UPLOAD, DIES_IN_STEP, DIES_IN_TRAIN],
    ids=["in_upload", "in_step", "in_train"])
def test_client_that_disappears(cluster, script):
    client = subprocess.Popen(
        [sys.executable, "-c", script, cluster.address], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdout.readline() == "half\n"
    if client.poll() is None:
        client.stdin.write("x")
        client.stdin.close()
    assert client.wait(60) == -signal.SIGKILL
    # What it left can be seen, and ended, by any other client.
    (left,) = cluster.deployments()
    assert len(left.workers) == 4
    cluster.delete(left.name)
    check_works(cluster)


def test_worker_that_dies(own_cluster):
    """Its deployment fails with a reason; a new one takes who is left."""
    cluster = own_cluster
    x = rand(6, 10)
    m = cluster.parallelize_module(MLPModule(), {"tp": 2}, PAIR,
                                   example_inputs=(x,), loss="sum")
    m.step(x, optimizer=sp.SGD(lr=0.25))
    lost = m._deployment.workers[1]
    os.kill(cluster.process(lost).pid, signal.SIGKILL)
    with pytest.raises(sp.ShardplaneError) as raised:
        m.step(x, optimizer=sp.SGD(lr=0.25))
    assert raised.value.code in ("UNAVAILABLE", "FAILED_PRECONDITION")
    name = lost.rpartition("/")[2]
    assert name in str(raised.value) + str(raised.value.details)
    with pytest.raises(sp.ShardplaneError) as raised:  # and it stays so
        m.step(x, optimizer=sp.SGD(lr=0.25))
    assert raised.value.code in ("UNAVAILABLE", "FAILED_PRECONDITION")
    m.close()
    check_works(cluster, 1)
    states = {w.name: w.state for w in cluster.workers()}
    assert states[lost] == pb.WorkerNode.STATE_LOST
    cluster.add_workers(1)
    check_works(cluster, 2)


def test_worker_that_dies_while_idle(own_cluster):
    cluster = own_cluster
    cluster.processes[1].kill()
    cluster.add_workers(1)
    m = None
    while m is None:  # until its lease has run out: each try is refused
        try:
            m = cluster.parallelize_module(
                MLPModule(), {"tp": 2}, PAIR, example_inputs=(rand(6, 10),))
        except (sp.UnavailableError, sp.FailedPreconditionError) as error:
            assert error.message
    m.close()
    check_works(cluster, 2)


def test_worker_that_is_told_to_go(own_cluster):
    """SIGTERM: it leaves by itself, and is no longer counted on."""
    process = own_cluster.processes[1]
    os.kill(process.pid, signal.SIGTERM)
    assert process.popen.wait(30) == 0
    check_works(own_cluster, 1)
    with pytest.raises(sp.FailedPreconditionError):
        own_cluster.parallelize_module(MLPModule(), {"tp": 2}, PAIR)
