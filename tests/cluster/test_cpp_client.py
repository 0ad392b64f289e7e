"""The C++ client against a cluster: its own test cases, and the example of
docs/cpp_client.md beside PyTorch."""

import os
import pathlib
import re
import subprocess

import pytest
import torch
from google.protobuf import json_format

from shardplane.v1 import coordinator_pb2 as pb

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "client" / "examples" / "train.cc"
CASES = [
    "PlansAnExampleOfTheDocuments",
    "AnErrorNamesItsField",
    "TensorsOfManyChunksGoUpAndComeBack",
    "ForwardByHand",
    "ProgramsAreAddedAndRead",
    "AStepThatIsSentAgainIsAnsweredAndNotRepeated",
    "AStepOutOfTurnIsAborted",
    "TrainDoesWhatStepsDo",
    "AfterAStepThatFailsAnotherStreamGoesOn",
]


def run(*command, **environment):
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env={**os.environ, **environment},
        text=True, capture_output=True, timeout=300, check=False,
        stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def binaries():
    """The folder of what Bazel built; a run of selected tests has not built
    these two."""
    done = run(ROOT / "shardplane", "build", "//client:cluster_test",
               "//client/examples:train")
    assert done.returncode == 0, done.stdout + done.stderr
    return pathlib.Path(os.environ["SHARDPLANE_BIN_DIR"]) / "client"


def test_no_case_is_forgotten(binaries):
    listed = run(binaries / "cluster_test", "--gtest_list_tests").stdout
    assert re.findall(r"^  (\w+)$", listed, re.MULTILINE) == CASES


@pytest.mark.parametrize("case", CASES)
def test_cpp_client(binaries, cluster, case):
    done = run(binaries / "cluster_test", f"--gtest_filter=ClusterTest.{case}",
               SHARDPLANE_COORDINATOR=cluster.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[  PASSED  ] 1 test." in done.stdout


def initial_parameters(cluster):
    """Those of the example's deployment: its seed makes them the same again."""
    text = re.search(r'R"json\((.*)\)json"', EXAMPLE.read_text("utf-8"),
                     re.DOTALL).group(1)
    request = json_format.Parse(text, pb.CreateDeploymentRequest())
    deployment = cluster.rpc.call("CreateDeployment", request)
    cluster.rpc.call("MaterializeDeployment",
                     pb.MaterializeDeploymentRequest(name=deployment.name))
    values = {}
    for fqn, shape in {"up.weight": (16, 10), "up.bias": (16,),
                       "down.weight": (10, 16), "down.bias": (10,)}.items():
        data = cluster.rpc.download(
            pb.DownloadTensorRequest(
                deployment=deployment.name,
                tensor=pb.TensorRef(parameter=fqn)),
            lambda stream: b"".join(m.chunk.data for m in stream))
        values[fqn] = torch.frombuffer(
            bytearray(data), dtype=torch.float64).reshape(shape)
    cluster.delete(deployment.name)
    return values


def losses_of_pytorch(parameters, steps):
    module = torch.nn.Sequential()
    module.add_module("up", torch.nn.Linear(10, 16))
    module.add_module("act", torch.nn.ReLU())
    module.add_module("down", torch.nn.Linear(16, 10))
    module.double().load_state_dict(parameters)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    x = torch.sin(torch.arange(80, dtype=torch.float64)).reshape(8, 10)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (module(x) + x).square().mean()
        loss.backward()
        optimizer.step()
        yield loss.item()


def test_example_trains_as_pytorch_does(binaries, cluster):
    done = run(binaries / "examples" / "train", cluster.address)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [re.fullmatch(r"step (\d+): loss ([\d.]+)", line).groups()
             for line in done.stdout.splitlines()]
    assert [int(number) for number, _ in lines] == list(range(1, 21))
    losses = [float(loss) for _, loss in lines]
    expected = list(losses_of_pytorch(initial_parameters(cluster), 20))
    # Twelve digits are printed.
    assert losses == pytest.approx(expected, rel=0, abs=1e-10)
    assert losses[-1] < 0.5 * losses[0]
    assert not cluster.deployments()


def test_example_without_a_coordinator(binaries):
    done = run(binaries / "examples" / "train")
    assert done.returncode == 2 and "usage:" in done.stderr
