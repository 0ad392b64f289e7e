"""The API without the Python client's help: messages written by hand, every
write sent twice, resources in the wrong state."""

import struct
import uuid
import zlib

import pytest
from google.protobuf import json_format

import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2

# A first plan as JSON, the way grpcurl sends it: a module of known types
# needs no graph.
CREATE = """{
  "deployment": {
    "module": {
      "modules": [
        {"fqn": "", "type": "torch.nn.Sequential"},
        {"fqn": "0", "type": "torch.nn.Linear"},
        {"fqn": "1", "type": "torch.nn.ReLU"},
        {"fqn": "2", "type": "torch.nn.Linear"}
      ],
      "parameters": [
        {"fqn": "0.weight", "requiresGrad": true,
         "type": {"dtype": "DTYPE_FLOAT32", "shape": [4, 2]}},
        {"fqn": "2.weight", "requiresGrad": true,
         "type": {"dtype": "DTYPE_FLOAT32", "shape": [2, 4]}}
      ]
    },
    "mesh": {"dims": [{"name": "tp", "size": 2}]},
    "plan": {"entries": [
      {"pattern": "0", "value": {"style": {"colwise": {}}}},
      {"pattern": "2", "value": {"style": {"rowwise": {}}}}
    ]},
    "srcDataRank": 0
  },
  "signature": {
    "inputs": [{"type": {"dtype": "DTYPE_FLOAT32", "shape": [1, 2]},
                "name": "input"}],
    "loss": {"reduction": "REDUCTION_SUM"}
  }
}"""


def new_id():
    return str(uuid.uuid4())


def create_request(**changes):
    request = json_format.Parse(CREATE, pb.CreateDeploymentRequest())
    request.request_id = new_id()
    for name, value in changes.items():
        setattr(request, name, value)
    return request


class Api:
    """Verbs on one coordinator."""

    def __init__(self, rpc):
        self.rpc = rpc
        self.call = rpc.call

    def create(self, **changes):
        return self.call("CreateDeployment", create_request(**changes))

    def upload(self, deployment, fqn, shape, values):
        data = struct.pack(f"<{len(values)}f", *values)
        header = pb.UploadTensorRequest.Header(
            deployment=deployment.name, epoch=deployment.epoch,
            request_id=new_id(), parameter=fqn, type=types_pb2.TensorType(
                dtype=types_pb2.DTYPE_FLOAT32, shape=shape))
        chunk = types_pb2.TensorData(data=data, last=True,
                                     crc32=zlib.crc32(data))
        return self.rpc.upload(lambda: iter([
            pb.UploadTensorRequest(header=header),
            pb.UploadTensorRequest(chunk=chunk)]))

    def materialize(self, deployment, **changes):
        return self.call("MaterializeDeployment",
                         pb.MaterializeDeploymentRequest(**{
                             "name": deployment.name, "request_id": new_id(),
                             "epoch": deployment.epoch, **changes}))

    def ready(self):
        deployment = self.create()
        self.upload(deployment, "0.weight", [4, 2], [1, 0, 0, 1, 2, 0, 0, 2])
        self.upload(deployment, "2.weight", [2, 4], [1] * 8)
        return self.materialize(deployment)

    def forward(self, deployment, **changes):
        return self.call("Forward", pb.ForwardRequest(**{
            "deployment": deployment.name,
            "program": deployment.programs[0], "request_id": new_id(),
            "inputs": [types_pb2.Tensor(
                type=types_pb2.TensorType(dtype=types_pb2.DTYPE_FLOAT32,
                                          shape=[1, 2]),
                inline=struct.pack("<2f", 3, 4))], **changes}))


@pytest.fixture
def api(cluster):
    return Api(cluster.rpc)


def test_first_plan_in_json(api):
    deployment = api.ready()
    assert deployment.state == pb.Deployment.STATE_READY
    answer = api.forward(deployment)
    # relu([3, 4, 6, 8]) summed, twice.
    assert struct.unpack("<2f", answer.outputs[0].inline) == (21.0, 21.0)
    assert [(c.kind, c.count) for c in answer.collectives
            if c.phase == "forward"] == [("all_reduce", 1)]


def test_validate_only_touches_no_worker(api, cluster):
    planned = api.create(validate_only=True)
    assert planned.report.assignments and not planned.workers
    assert planned.report.program_text
    assert cluster.deployments() == []


def test_every_write_is_done_once(api, cluster):
    request = create_request()
    first = api.call("CreateDeployment", request)
    assert api.call("CreateDeployment", request).uid == first.uid
    assert len(cluster.deployments()) == 1
    api.upload(first, "0.weight", [4, 2], [1] * 8)
    api.upload(first, "2.weight", [2, 4], [1] * 8)
    request = pb.MaterializeDeploymentRequest(
        name=first.name, request_id=new_id(), epoch=first.epoch)
    answers = [api.call("MaterializeDeployment", request) for _ in range(2)]
    assert answers[0] == answers[1]
    request = pb.CreateProgramRequest(
        parent=first.name, signature=create_request().signature,
        request_id=new_id())
    names = {api.call("CreateProgram", request).name for _ in range(2)}
    request.request_id = new_id()  # the same signature: the same program
    names.add(api.call("CreateProgram", request).name)
    assert len(names) == 1
    request = pb.DeleteDeploymentRequest(name=first.name, request_id=new_id())
    for _ in range(2):
        api.call("DeleteDeployment", request)
    assert cluster.deployments() == []


@pytest.mark.parametrize("method, request_of", [
    ("CreateDeployment", lambda d: create_request(deployment_id="other")),
    ("MaterializeDeployment",
     lambda d: pb.MaterializeDeploymentRequest(name=d.name)),
    ("DeleteDeployment", lambda d: pb.DeleteDeploymentRequest(name=d.name)),
])
def test_request_id_used_again(api, method, request_of):
    request = create_request()
    deployment = api.call("CreateDeployment", request)
    other = request_of(deployment)
    other.request_id = request.request_id
    with pytest.raises(sp.InvalidArgumentError) as raised:
        api.call(method, other)
    assert raised.value.reason == "REQUEST_ID_REUSED"


def test_wrong_state(api):
    deployment = api.create()
    assert deployment.state == pb.Deployment.STATE_AWAITING_DATA
    with pytest.raises(sp.FailedPreconditionError, match=deployment.name):
        api.forward(deployment)
    with pytest.raises(sp.FailedPreconditionError) as raised:
        api.materialize(deployment)  # nothing has been uploaded
    assert "0.weight" in raised.value.message
    api.upload(deployment, "0.weight", [4, 2], [1] * 8)
    with pytest.raises(sp.FailedPreconditionError, match="2.weight"):
        api.materialize(deployment)
    api.upload(deployment, "2.weight", [2, 4], [1] * 8)
    assert api.materialize(deployment).state == pb.Deployment.STATE_READY


@pytest.mark.parametrize("fqn, shape, count", [
    ("0.weight", [2, 4], 8), ("0.weight", [4, 3], 12), ("nowhere", [1], 1)])
def test_upload_that_does_not_fit(api, fqn, shape, count):
    deployment = api.create()
    with pytest.raises(sp.ShardplaneError) as raised:
        api.upload(deployment, fqn, shape, [0] * count)
    assert raised.value.code in ("INVALID_ARGUMENT", "NOT_FOUND")
    assert fqn in str(raised.value)


@pytest.mark.parametrize("method, request_", [
    ("GetDeployment", pb.GetDeploymentRequest(name="deployments/no")),
    ("GetProgram", pb.GetProgramRequest(name="deployments/no/programs/no")),
    ("GetWorker", pb.GetWorkerRequest(name="workers/no")),
    ("DeleteDeployment", pb.DeleteDeploymentRequest(
        name="deployments/no", request_id=new_id())),
    ("MaterializeDeployment", pb.MaterializeDeploymentRequest(
        name="deployments/no", request_id=new_id())),
], ids=lambda value: value if isinstance(value, str) else "")
def test_not_found(api, method, request_):
    with pytest.raises(sp.NotFoundError) as raised:
        api.call(method, request_)
    assert raised.value.details["resource"]["name"] in str(request_)


@pytest.mark.parametrize("name", ["", "no", "deployments/", "workers/x"])
def test_malformed_name(api, name):
    with pytest.raises(sp.ShardplaneError) as raised:
        api.call("GetDeployment", pb.GetDeploymentRequest(name=name))
    assert raised.value.code in ("INVALID_ARGUMENT", "NOT_FOUND")


def test_pages(api):
    names = [api.create(deployment_id=f"d{i}").name for i in range(2)]
    request = pb.ListDeploymentsRequest(page_size=1)
    first = api.call("ListDeployments", request)
    assert len(first.deployments) == 1 and first.next_page_token
    request.page_token = first.next_page_token
    second = api.call("ListDeployments", request)
    assert not second.next_page_token
    assert sorted(d.name for d in [*first.deployments,
                                   *second.deployments]) == sorted(names)
    for page in ({"page_size": -1}, {"page_token": "garbage"}):
        with pytest.raises(sp.InvalidArgumentError, match="page"):
            api.call("ListDeployments", pb.ListDeploymentsRequest(**page))


def test_etag(api):
    deployment = api.create()
    with pytest.raises(sp.AbortedError, match="etag"):
        api.call("DeleteDeployment", pb.DeleteDeploymentRequest(
            name=deployment.name, request_id=new_id(), etag="another"))
    current = api.call("GetDeployment",
                       pb.GetDeploymentRequest(name=deployment.name))
    api.call("DeleteDeployment", pb.DeleteDeploymentRequest(
        name=deployment.name, request_id=new_id(), etag=current.etag))


def damaged(request, path, value):
    *path, last = path
    target = request.deployment
    for step in path:
        target = target[step] if isinstance(step, int) else getattr(target,
                                                                    step)
    if value is None:
        del getattr(target, last)[:]
    else:
        setattr(target, last, value)
    return request


@pytest.mark.parametrize("path, value, culprit", [
    (("mesh", "dims"), None, "mesh"),
    (("mesh", "dims", 0, "size"), 0, "mesh.dims"),
    (("mesh", "dims", 0, "name"), "a b", "mesh.dims"),
    (("module", "modules"), None, "module"),
    (("module", "modules", 1, "fqn"), "9.9", "9"),
    (("module", "parameters", 0, "fqn"), "7.weight", "7"),
    (("module", "parameters", 0, "type", "dtype"), 0, "dtype"),
    (("plan_mesh_dim",), "dp", "dp"),
    (("src_data_rank",), 2, "2"),
    (("src_data_rank",), -1, "-1")],
    ids=lambda v: ".".join(map(str, v)) if isinstance(v, tuple) else "")
def test_malformed_deployment(api, cluster, path, value, culprit):
    with pytest.raises(sp.InvalidArgumentError) as raised:
        api.call("CreateDeployment", damaged(create_request(), path, value))
    assert culprit in str(raised.value) + str(raised.value.details)
    assert cluster.deployments() == []
