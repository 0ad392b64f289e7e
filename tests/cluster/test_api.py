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


INPUT = types_pb2.Tensor(
    type=types_pb2.TensorType(dtype=types_pb2.DTYPE_FLOAT32, shape=[1, 2]),
    inline=struct.pack("<2f", 3, 4))


def new_id():
    return str(uuid.uuid4())


def create_request(**changes):
    request = json_format.Parse(CREATE, pb.CreateDeploymentRequest())
    request.request_id = new_id()
    for name, value in changes.items():
        setattr(request, name, value)
    return request


def module_request(**changes):
    """A named module: the one of the first plan."""
    return pb.CreateModuleRequest(**{
        "module": pb.ModuleResource(
            module=create_request().deployment.module, labels={"team": "a"}),
        "request_id": new_id(), **changes})


def named_request(name, **changes):
    """The first plan, of a module that is named instead."""
    request = create_request(**changes)
    request.deployment.ClearField("module")
    request.deployment.module_name = name
    return request


class Api:
    """Verbs on one coordinator."""

    def __init__(self, rpc):
        self.rpc = rpc
        self.call = rpc.call

    def create(self, **changes):
        return self.call("CreateDeployment", create_request(**changes))

    def create_module(self, **changes):
        return self.call("CreateModule", module_request(**changes))

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
            "inputs": [INPUT], **changes}))

    def train(self, deployment, step):
        train = pb.StepRequest.Train(
            program=deployment.programs[0], inputs=[INPUT],
            optimizer=pb.Optimizer(sgd=pb.SgdOptions(lr=0.25)))
        return self.call("Step", pb.StepRequest(
            deployment=deployment.name, step=step, request_id=new_id(),
            train=train))

    def step(self, deployment, number):
        return self.call("GetStep", pb.GetStepRequest(
            name=f"{deployment.name}/steps/{number}"))


@pytest.fixture
def api(cluster):
    yield Api(cluster.rpc)
    modules = cluster.rpc.call("ListModules", pb.ListModulesRequest()).modules
    for module in modules:
        cluster.rpc.call("DeleteModule",
                         pb.DeleteModuleRequest(name=module.name))


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


def test_a_module_of_many_layers_is_one_request(api):
    """More than gRPC's own limit of 4 MiB a message."""
    layers = 70_000
    request = create_request(validate_only=True)
    request.ClearField("signature")
    deployment = request.deployment
    del deployment.module.modules[1:], deployment.module.parameters[:]
    for i in range(layers):
        linear = deployment.module.modules.add(fqn=f"{i}",
                                               type="torch.nn.Linear")
        linear.attributes["in_features"].int_value = 4
        linear.attributes["out_features"].int_value = 4
    for entry in deployment.plan.entries:
        entry.pattern = "*0"
    del deployment.plan.entries[1:]
    assert request.ByteSize() > 4 << 20
    report = api.call("CreateDeployment", request, timeout=120).report
    assert len(report.assignments) == layers // 10


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
    ("CreateModule", lambda d: module_request()),
    ("DeleteModule", lambda d: pb.DeleteModuleRequest(name="modules/m")),
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
    ("GetModule", pb.GetModuleRequest(name="modules/no")),
    ("GetStep", pb.GetStepRequest(name="deployments/no/steps/1")),
    ("ListPrograms", pb.ListProgramsRequest(parent="deployments/no")),
    ("CreateDeployment", named_request("modules/no")),
    ("DeleteModule", pb.DeleteModuleRequest(
        name="modules/no", request_id=new_id())),
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


def test_module_is_kept(api):
    made = api.create_module(module_id="mlp")
    assert made.name == "modules/mlp" and made.uid and made.etag
    assert made.create_time.seconds and not made.HasField("module")
    assert (made.parameter_count, made.parameter_bytes) == (16, 64)
    found = api.call("GetModule", pb.GetModuleRequest(name=made.name))
    assert [p.fqn for p in found.module.parameters] == ["0.weight",
                                                        "2.weight"]
    found.ClearField("module")
    assert found == made and dict(found.labels) == {"team": "a"}


def test_module_validate_only_keeps_nothing(api):
    checked = api.create_module(module_id="mlp", validate_only=True)
    assert checked.parameter_count == 16 and not checked.uid
    assert not api.call("ListModules", pb.ListModulesRequest()).modules
    bad = module_request(validate_only=True)
    bad.module.module.parameters[0].fqn = "7.weight"
    with pytest.raises(sp.InvalidArgumentError, match="7") as raised:
        api.call("CreateModule", bad)
    assert raised.value.details["metadata"]["field"].startswith(
        "module.module")


def test_module_is_created_and_deleted_once(api):
    request = module_request(module_id="mlp")
    first, again = [api.call("CreateModule", request) for _ in range(2)]
    assert first == again
    with pytest.raises(sp.ShardplaneError, match="modules/mlp") as raised:
        api.create_module(module_id="mlp")
    assert raised.value.code == "ALREADY_EXISTS"
    with pytest.raises(sp.AbortedError, match="etag"):
        api.call("DeleteModule", pb.DeleteModuleRequest(
            name=first.name, request_id=new_id(), etag="another"))
    request = pb.DeleteModuleRequest(name=first.name, request_id=new_id(),
                                     etag=first.etag)
    for _ in range(2):
        api.call("DeleteModule", request)
    api.call("DeleteModule", pb.DeleteModuleRequest(
        name=first.name, request_id=new_id(), allow_missing=True))


def test_deployment_of_a_named_module(api, cluster):
    module = api.create_module(module_id="mlp")
    request = named_request(module.name, validate_only=True)
    planned = api.call("CreateDeployment", request)
    assert planned.report.program_text and cluster.deployments() == []
    request = named_request(module.name)
    first, again = [api.call("CreateDeployment", request) for _ in range(2)]
    assert first == again and first.module_name == module.name
    # The deployment has a copy of its own.
    api.call("DeleteModule", pb.DeleteModuleRequest(name=module.name))
    found = api.call("GetDeployment",
                     pb.GetDeploymentRequest(name=first.name))
    assert len(found.module.modules) == 4
    assert found.module_name == module.name
    api.upload(first, "0.weight", [4, 2], [1, 0, 0, 1, 2, 0, 0, 2])
    api.upload(first, "2.weight", [2, 4], [1] * 8)
    answer = api.forward(api.materialize(first))
    assert struct.unpack("<2f", answer.outputs[0].inline) == (21.0, 21.0)


def test_module_and_module_name(api):
    both = create_request()
    both.deployment.module_name = "modules/mlp"
    for request, got in ((both, "both"), (named_request(""), "nothing")):
        with pytest.raises(sp.InvalidArgumentError, match=got) as raised:
            api.call("CreateDeployment", request)
        assert "deployment.module" in str(raised.value.details)


def test_pages_of_modules(api):
    names = [api.create_module(module_id=f"m{i}").name for i in range(3)]
    request, seen = pb.ListModulesRequest(page_size=2), []
    for count in (2, 1):
        page = api.call("ListModules", request)
        assert len(page.modules) == count
        seen += page.modules
        request.page_token = page.next_page_token
    assert [m.name for m in seen] == names and not request.page_token
    assert not any(m.HasField("module") for m in seen)


def test_steps_are_read_back(api):
    deployment = api.ready()
    with pytest.raises(sp.NotFoundError, match="steps/1"):
        api.step(deployment, 1)
    answers = [api.train(deployment, number) for number in range(1, 67)]
    assert answers[0].loss.inline == struct.pack("<f", 42)
    for number in (3, 17, 66):
        assert api.step(deployment, number) == answers[number - 1]
    with pytest.raises(sp.NotFoundError, match="1 to 66"):
        api.step(deployment, 67)
    with pytest.raises(sp.ShardplaneError, match="3 to 66") as raised:
        api.step(deployment, 2)
    assert raised.value.code == "OUT_OF_RANGE"
    assert "'oldest': '3'" in str(raised.value.details)
    for number in ("", "one", "01"):
        with pytest.raises(sp.InvalidArgumentError, match="name"):
            api.step(deployment, number)


def test_programs_are_listed(api):
    deployment = api.create()
    signature = create_request().signature
    signature.ClearField("loss")
    made = api.call("CreateProgram", pb.CreateProgramRequest(
        parent=deployment.name, signature=signature, request_id=new_id()))
    request, seen = pb.ListProgramsRequest(
        parent=deployment.name, page_size=1), []
    for _ in range(2):
        page = api.call("ListPrograms", request)
        seen += page.programs
        request.page_token = page.next_page_token
    assert not request.page_token
    assert [p.name for p in seen] == sorted([*deployment.programs, made.name])
    for program in seen:
        whole = api.call("GetProgram", pb.GetProgramRequest(name=program.name))
        assert whole.report.program_text and not program.HasField("report")
        whole.ClearField("report")
        assert whole == program
    token = api.call("ListPrograms", pb.ListProgramsRequest(
        parent=deployment.name, page_size=1)).next_page_token
    other = api.create(deployment_id="other")
    with pytest.raises(sp.InvalidArgumentError, match="page_token"):
        api.call("ListPrograms", pb.ListProgramsRequest(
            parent=other.name, page_token=token))


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


# A module that counts its calls, in a graph of its own.
COUNTER = """{
  "deployment": {
    "module": {
      "modules": [{"fqn": "", "type": "Counter", "graph": {"nodes": [
        {"name": "x", "op": "OP_PLACEHOLDER"},
        {"name": "calls", "op": "OP_GET_ATTR", "target": "calls"},
        {"name": "more", "op": "OP_CALL_FUNCTION", "target": "aten.add.Tensor",
         "args": [{"node": "calls"}, {"node": "x"}]},
        {"name": "write", "op": "OP_CALL_FUNCTION",
         "target": "aten.copy_.default",
         "args": [{"node": "calls"}, {"node": "more"}]},
        {"name": "y", "op": "OP_CALL_FUNCTION", "target": "aten.mul.Tensor",
         "args": [{"node": "x"}, {"node": "calls"}]},
        {"name": "output", "op": "OP_OUTPUT", "args": [{"node": "y"}]}]}}],
      "parameters": [{"fqn": "calls", "buffer": true, "meta": true,
        "initializer": {"zeros": {}},
        "type": {"dtype": "DTYPE_FLOAT32", "shape": [1, 2]}}]
    },
    "mesh": {"dims": [{"name": "tp", "size": 2}]},
    "srcDataRank": 0
  },
  "signature": {
    "inputs": [{"type": {"dtype": "DTYPE_FLOAT32", "shape": [1, 2]},
                "name": "x"}]
  }
}"""


def test_forward_that_changes_buffers_takes_a_number(api):
    request = json_format.Parse(COUNTER, pb.CreateDeploymentRequest())
    request.request_id = new_id()
    deployment = api.call("CreateDeployment", request)
    deployment = api.materialize(deployment)
    program = api.call("GetProgram",
                       pb.GetProgramRequest(name=deployment.programs[0]))
    assert list(program.changed_buffers) == ["calls"]
    with pytest.raises(sp.FailedPreconditionError,
                       match="which changes buffers") as raised:
        api.forward(deployment)
    assert raised.value.details["reason"] == "PROGRAM_CHANGES_BUFFERS"

    def step(number, **train):
        return api.call("Step", pb.StepRequest(
            deployment=deployment.name, step=number, request_id=new_id(),
            train=pb.StepRequest.Train(program=deployment.programs[0],
                                       inputs=[INPUT], **train)))

    with pytest.raises(sp.InvalidArgumentError, match="train.optimizer"):
        step(1, optimizer=pb.Optimizer(sgd=pb.SgdOptions(lr=0.25)))
    first = step(1)
    assert not first.HasField("loss")
    assert step(1) == first  # answered, not repeated
    assert step(2).number == 2
    data = api.rpc.download(
        pb.DownloadTensorRequest(
            deployment=deployment.name,
            tensor=pb.TensorRef(parameter="calls")),
        lambda stream: b"".join(part.chunk.data for part in stream))
    assert struct.unpack("<2f", data) == (6, 8)
