"""The JSON API and the page at the HTTP port of a real coordinator."""

import gzip
import json
import math
import urllib.error
import urllib.request

import pytest
import torch
from google.protobuf import json_format

import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb
from torch.distributed.tensor.parallel import (ColwiseParallel,
                                               RowwiseParallel)

STEPS = 3


@pytest.fixture(scope="module")
def cluster():
    with sp.LocalCluster(workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def trained(cluster):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(),
                                torch.nn.Linear(8, 4))
    x = torch.randn(5, 6)
    handle = cluster.parallelize_module(
        model, {"tp": 2}, {"0": ColwiseParallel(), "2": RowwiseParallel()},
        example_inputs=(x,), loss="sum", name="mlp")
    handle.losses = [handle.step(x, optimizer=sp.SGD(lr=0.01))
                     for _ in range(STEPS)]
    yield handle
    handle.close()


def fetch(cluster, path, headers=()):
    """(status, headers, body) of a GET, whatever the status."""
    request = urllib.request.Request(
        f"http://{cluster.coordinator.http_address}{path}",
        headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def read(cluster, path, message):
    status, headers, body = fetch(cluster, "/v1/" + path)
    assert status == 200, body
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    return json_format.Parse(body, message)


def test_says_what_the_rpcs_say(cluster, trained):
    call = cluster.rpc.call
    name = trained.name
    assert read(cluster, "workers", pb.ListWorkersResponse()) == call(
        "ListWorkers", pb.ListWorkersRequest())
    assert read(cluster, name, pb.Deployment()) == call(
        "GetDeployment", pb.GetDeploymentRequest(name=name))
    assert read(cluster, name + "/programs", pb.ListProgramsResponse()) == call(
        "ListPrograms", pb.ListProgramsRequest(parent=name))
    step = read(cluster, f"{name}/steps/{STEPS}", pb.StepResult())
    assert step == call("GetStep",
                        pb.GetStepRequest(name=f"{name}/steps/{STEPS}"))
    explained = json.loads(fetch(
        cluster, f"/v1/{name}:explain?fqn=0.weight")[2])
    assert explained["kind"] == "KIND_PARAMETER"
    assert [part["offsets"] for part in explained["tensors"][0]["parts"]] == [
        ["0", "0"], ["4", "0"]]


def test_parameters_and_fields(cluster):
    first = json.loads(fetch(
        cluster, "/v1/workers?page_size=1&fields=workers.name,nextPageToken"
    )[2])
    assert first["workers"] == [{"name": "workers/worker-0"}]
    second = json.loads(fetch(cluster, "/v1/workers?pageSize=1&page_token=" +
                              first["nextPageToken"])[2])
    assert second["workers"][0]["name"] == "workers/worker-1"
    assert "address" in second["workers"][0]


@pytest.mark.parametrize("path, status, code", (
    ("workers/nobody", 404, 5), ("nothing", 404, 5),
    ("workers?page_size=x", 400, 3), ("workers?page_token=x", 400, 3),
    ("workers?no_field=1", 400, 3), ("workers?fields=nothing", 400, 3),
    ("deployments/none/steps/1", 404, 5), ("watch?wait_ms=x", 400, 3)))
def test_errors_are_those_of_the_api(cluster, path, status, code):
    got, headers, body = fetch(cluster, "/v1/" + path)
    error = json.loads(body)
    assert (got, error["code"]) == (status, code)
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert error["details"][0]["@type"].endswith("google.rpc.ErrorInfo")
    assert error["details"][0]["domain"] == "shardplane"


def test_large_answers_are_compressed(cluster, trained):
    path = f"/v1/{trained.name}"
    _, headers, packed = fetch(cluster, path, {"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    plain = fetch(cluster, path)[2]
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 2


def test_the_page_is_one_file_and_kept(cluster):
    status, headers, body = fetch(cluster, "/")
    assert status == 200 and body.startswith(b"<!DOCTYPE html>")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    again, _, nothing = fetch(cluster, "/",
                              {"If-None-Match": headers["ETag"]})
    assert (again, nothing) == (304, b"")


def test_the_page_can_be_left_out():
    with sp.LocalCluster(
            workers=0, coordinator_args=("--nostatus_page",)) as cluster:
        assert fetch(cluster, "/")[0] == 404
        assert fetch(cluster, "/v1/workers")[0] == 404
        assert fetch(cluster, "/livez")[0] == 200


def test_losses_are_those_that_came(cluster, trained):
    for number, loss in enumerate(trained.losses, 1):
        step = read(cluster, f"{trained.name}/steps/{number}", pb.StepResult())
        assert math.isclose(torch.frombuffer(
            bytearray(step.loss.inline), dtype=torch.float32).item(),
            loss.item())
