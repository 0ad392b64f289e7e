"""The client's own side of a call, against a coordinator of the test's."""

import zlib

import grpc
import pytest
import torch
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

import shardplane as sp
from shardplane import rpc as rpc_module
from shardplane import tensors
from shardplane.transfer import download, upload_all
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import coordinator_pb2_grpc, types_pb2
from tests.client.stand_in import abort, served


class Fake(coordinator_pb2_grpc.ShardingCoordinatorServicer):
    """Answers as the test's list says: an exception-like call, or a value."""

    def __init__(self):
        self.script = []
        self.requests = []

    def DeleteDeployment(self, request, context):
        self.requests.append(request)
        from google.protobuf import empty_pb2
        if self.script:
            self.script.pop(0)(context)
        return empty_pb2.Empty()

    def UploadTensor(self, messages, context):
        self.requests.append(list(messages))
        if self.script:
            self.script.pop(0)(context)
        return pb.UploadTensorResponse()

    def DownloadTensor(self, request, context):
        yield from self.script.pop(0)


@pytest.fixture
def fake():
    return Fake()


@pytest.fixture
def rpc(fake):
    with served(fake, 2) as client:
        yield client


DEPLOYMENT = pb.Deployment(name="deployments/d", epoch=3)
DELETE = pb.DeleteDeploymentRequest(name="deployments/d", request_id="r")


def unavailable(*details):
    return lambda context: abort(context, grpc.StatusCode.UNAVAILABLE, "gone",
                                 *details)


def test_unavailable_is_tried_again_with_the_same_request_id(fake, rpc):
    fake.script = [unavailable(), unavailable()]
    rpc.call("DeleteDeployment", DELETE)
    assert [r.request_id for r in fake.requests] == ["r"] * 3


def test_retry_info_is_honoured(fake, rpc, monkeypatch):
    waits = []
    monkeypatch.setattr(rpc_module.time, "sleep", waits.append)
    fake.script = [unavailable(error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(seconds=1)))]
    rpc.call("DeleteDeployment", DELETE)
    assert waits == [1.0]


def test_retry_that_would_be_too_late_is_not_waited_for(fake, rpc):
    fake.script = [unavailable(error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(seconds=3600)))]
    with pytest.raises(sp.UnavailableError, match="gone") as raised:
        rpc.call("DeleteDeployment", DELETE)
    assert raised.value.details["retry_seconds"] == 3600


def test_nobody_there(monkeypatch):
    monkeypatch.setattr(rpc_module.random, "uniform", lambda low, high: 0)
    client = rpc_module.Rpc("127.0.0.1:1", retry_seconds=0.1)
    with pytest.raises(sp.UnavailableError):
        client.call("DeleteDeployment", DELETE)
    client.close()


CODES = [code for code in grpc.StatusCode
         if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_other_codes_are_not_tried_again(fake, rpc, code):
    fake.script = [lambda context: abort(context, code, "because")]
    with pytest.raises(sp.ShardplaneError) as raised:
        rpc.call("DeleteDeployment", DELETE)
    assert raised.value.code == code.name
    assert raised.value.message == "because"
    assert len(fake.requests) == 1


def test_details_are_decoded(fake, rpc):
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="plan.entries[0]", description="no")
    failure = error_details_pb2.PreconditionFailure()
    failure.violations.add(type="WORKERS", subject="mesh", description="few")
    fake.script = [lambda context: abort(
        context, grpc.StatusCode.INVALID_ARGUMENT, "m",
        error_details_pb2.ErrorInfo(reason="R", domain="shardplane",
                                    metadata={"fqn": "net1"}),
        bad, failure, error_details_pb2.ResourceInfo(
            resource_type="deployment", resource_name="deployments/d"))]
    with pytest.raises(ValueError) as raised:
        rpc.call("DeleteDeployment", DELETE)
    assert raised.value.reason == "R"
    details = raised.value.details
    assert details["metadata"] == {"fqn": "net1"}
    assert details["field_violations"] == [
        {"field": "plan.entries[0]", "description": "no"}]
    assert details["precondition_violations"][0]["subject"] == "mesh"
    assert details["resource"]["name"] == "deployments/d"


def test_details_that_do_not_parse_leave_the_code(fake, rpc):
    def garbled(context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"xx"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "m")

    fake.script = [garbled]
    with pytest.raises(sp.NotFoundError, match="m"):
        rpc.call("DeleteDeployment", DELETE)


@pytest.mark.parametrize("numel, chunks", [
    (0, 1), (1, 1), (1 << 18, 1), ((1 << 18) + 1, 2), (1 << 20, 4)])
def test_upload_in_chunks(fake, rpc, numel, chunks):
    fake.script = [unavailable()]  # the stream is made anew
    tensor = torch.arange(numel, dtype=torch.float32)
    [upload_id] = upload_all(rpc, DEPLOYMENT, [(tensor, "x")], tensors)
    first, again = fake.requests
    assert first == again or not first
    header, *rest = again
    assert header.header.upload == upload_id
    assert header.header.epoch == 3
    assert list(header.header.type.shape) == [numel]
    assert len(rest) == chunks
    data = b"".join(m.chunk.data for m in rest)
    assert data == tensor.numpy().tobytes()
    assert [m.chunk.last for m in rest] == [False] * (chunks - 1) + [True]
    assert rest[-1].chunk.crc32 == zlib.crc32(data)


def stream(tensor, damage=lambda chunk: None):
    yield pb.DownloadTensorResponse(header=pb.DownloadTensorResponse.Header(
        type=tensors.type_of(tensor, "x")))
    for chunk in tensors.chunks(tensor):
        damage(chunk)
        yield pb.DownloadTensorResponse(chunk=chunk)


@pytest.mark.parametrize("dtype", list(tensors._DTYPES), ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (3, 5)], ids=str)
def test_download_of_every_dtype(fake, rpc, dtype, shape):
    tensor = (torch.arange(15) % 7).to(dtype)[:max(
        torch.Size(shape).numel(), 0)].reshape(shape)
    fake.script = [stream(tensor)]
    value = download(rpc, DEPLOYMENT, pb.TensorRef(parameter="w"), tensors)
    assert value.dtype == dtype and value.shape == tensor.shape
    assert torch.equal(value, tensor)
    value.zero_()  # it owns its memory


@pytest.mark.parametrize("damage, reason", [
    (lambda chunk: setattr(chunk, "crc32", 1), "CHECKSUM"),
    (lambda chunk: setattr(chunk, "last", False), "STREAM_CUT")])
def test_damaged_download(fake, rpc, damage, reason):
    fake.script = [stream(torch.ones(3), damage)]
    with pytest.raises(sp.DataLossError) as raised:
        download(rpc, DEPLOYMENT, pb.TensorRef(parameter="w"), tensors)
    assert raised.value.reason == reason


def test_bytes_are_row_major_whatever_the_strides():
    tensor = torch.arange(6).reshape(2, 3).t()
    assert tensors.to_array(tensor).tobytes() == (
        tensor.contiguous().numpy().tobytes())
    message = tensors.inline(tensor, "x")
    assert torch.equal(tensors.from_bytes(message.type, message.inline),
                       tensor)
    assert message.type.dtype == types_pb2.DTYPE_INT64
