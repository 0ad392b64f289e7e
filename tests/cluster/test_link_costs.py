"""What collectives are taken to cost decides how values move, and is kept with
the deployment."""

import os
import subprocess

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Partial
from torch.distributed.tensor.parallel import RowwiseParallel

import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb
from tests.models import rand
from tests.parity import assert_close


class Total(nn.Module):
    """Of 65,536 columns: partial along both mesh dims, half a megabyte."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 65536, bias=False, dtype=torch.float64)
        self.net.weight.requires_grad_(False)

    def forward(self, x):
        return self.net(x).sum(0).relu()


@pytest.mark.parametrize("flag, kinds, stored", [
    ("shm", {"reduce_scatter": 1, "all_reduce": 1, "all_gather": 1},
     (15, 500, 0)),
    ("nccl", {"all_reduce": 2}, (25, 5, 1)),
    ("latency_us=0,us_per_mib=1.5",
     {"reduce_scatter": 1, "all_reduce": 1, "all_gather": 1}, (0, 1.5, 0)),
    ("latency_us=0,us_per_mib=1.5,beside=.5",
     {"reduce_scatter": 1, "all_reduce": 1, "all_gather": 1}, (0, 1.5, 0.5))])
def test_the_cheapest_way_by_the_coordinators_costs(flag, kinds, stored):
    module, x = Total(), rand(6, 4)
    plan = {"net": RowwiseParallel(output_layouts=Partial())}
    with sp.LocalCluster(
            workers=4, coordinator_args=(f"--link_costs={flag}",)) as cluster:
        with cluster.parallelize_module(
                module, {"dp": 2, "tp": 2}, plan, example_inputs=(x,),
                data_parallel="replicate") as m:
            assert_close(m(x), module(x), "forward")
            assert m.comm_counts()["forward"] == kinds
            deployment = cluster.rpc.call(
                "GetDeployment", pb.GetDeploymentRequest(name=m.name))
            costs = deployment.link_costs
            assert (costs.latency_us, costs.us_per_mib,
                    costs.beside) == stored


def test_other_costs_are_refused():
    binary = os.path.join(os.environ["SHARDPLANE_BIN_DIR"], "coordinator",
                          "shardplane_coordinator")
    done = subprocess.run([binary, "--link_costs=fast"], text=True,
                          capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert ("--link_costs: INVALID_ARGUMENT: link costs: expected shm, gloo, "
            "nccl or latency_us=NUMBER,us_per_mib=NUMBER[,beside=FRACTION]; "
            'got: "fast"') in done.stderr
