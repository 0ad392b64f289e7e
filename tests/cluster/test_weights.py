"""Parameters that lie in safetensors files: each rank reads its own part."""

import re
import urllib.request

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor.parallel import (
    ColwiseParallel, RowwiseParallel)

import shardplane as sp
from tests.models import MLPModule, rand
from tests.parity import assert_close
from tests.zoo.models import llama

PLAN = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
COLWISE = ("net1.weight", "net1.bias")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def cluster(root):
    with sp.LocalCluster(
            workers=4, worker_args=[f"--weights_root={root}"]) as cluster:
        yield cluster


def saved(root, name, module, **changes):
    state = {**module.state_dict(), **changes}
    save_file({k: v.contiguous() for k, v in state.items()}, root / name)
    return name


def on_meta(make):
    with torch.device("meta"):
        return make()


def check_state(m, module):
    state = m.state_dict()
    for fqn, value in module.state_dict().items():
        assert torch.equal(state[fqn], value), fqn


def read_bytes(cluster):
    """What the workers' metrics show."""
    total = 0
    for worker in cluster.processes[1:]:
        with urllib.request.urlopen(
                f"http://{worker.http_address}/metrics", timeout=30) as page:
            total += sum(map(float, re.findall(
                r"^shardplane_materialize_bytes_total\{.*"
                r'op="read".*\} (\S+)$', page.read().decode(), re.M)))
    return total


@pytest.mark.parametrize("src_data_rank", [0, 1, None])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_same_model_as_uploaded(cluster, root, ranks, src_data_rank):
    if src_data_rank == 1 and ranks == 1:
        src_data_rank = 0
    module, x = MLPModule(hidden=18), rand(3, 10)
    path = saved(root, "mlp.safetensors", module)
    before = read_bytes(cluster)
    with cluster.parallelize_module(
            on_meta(lambda: MLPModule(hidden=18)), {"tp": ranks}, PLAN,
            example_inputs=(x,), weights=path,
            src_data_rank=src_data_rank) as m:
        assert m.comm_counts()["materialize"] == {}
        assert read_bytes(cluster) - before == sum(
            value.nbytes * (1 if "S" in m.report.placements[fqn] else ranks)
            for fqn, value in module.state_dict().items())
        check_state(m, module)
        for fqn in COLWISE:
            assert m.report.placements[fqn] == "[S(0)]"
        m.step(x, loss="sum", optimizer=sp.SGD(lr=0.1))
        module(x).sum().backward()
        for fqn, p in module.named_parameters():
            assert_close(m.state_dict()[fqn], (p - 0.1 * p.grad).detach(), fqn)


def test_what_the_module_holds_is_not_what_counts(cluster, root):
    module, x = MLPModule(seed=1), rand(3, 10)
    path = saved(root, "other.safetensors", module)
    with cluster.parallelize_module(MLPModule(seed=2), {"tp": 2}, PLAN,
                                    example_inputs=(x,),
                                    weights=root / path) as m:
        check_state(m, module)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("tied", [False, True])
def test_a_hugging_face_checkpoint(cluster, root, ranks, tied):
    """Of several files, and of one where a tied weight stands once."""
    zoo = llama()
    zoo.module.double()
    zoo.module.config.tie_word_embeddings = tied
    zoo.module.tie_weights()
    folder = root / f"llama-{tied}-{ranks}"
    zoo.module.save_pretrained(folder, max_shard_size=10**9 if tied else 20_000)
    files = sorted(p.name for p in folder.glob("*.safetensors"))
    assert (files == ["model.safetensors"]) == tied
    names = set().union(*(load_file(folder / name) for name in files))
    assert ("lm_head.weight" in names) != tied
    config = type(zoo.module.config)(**zoo.module.config.to_dict())
    module = on_meta(lambda: type(zoo.module)(config).double())
    module.model.rotary_emb = zoo.module.model.rotary_emb  # not in the files
    with cluster.parallelize_module(
            module, {"tp": ranks}, zoo.plan, example_kwargs=zoo.inputs,
            weights=folder.name) as m:
        # Only the buffers of the rotary embedding travel.
        assert m.comm_bytes()["materialize"] == {
            "broadcast": sum(b.nbytes for b in module.buffers())}
        check_state(m, zoo.module)
        assert_close(m(**zoo.inputs).logits,
                     zoo.module(**zoo.inputs).logits.detach(), "logits")


def test_names_in_the_files(cluster, root):
    module, x = MLPModule(), rand(3, 10)
    save_file({f"model.{k}": v for k, v in module.state_dict().items()},
              root / "prefixed.safetensors")
    for names in (lambda fqn: f"model.{fqn}",
                  {fqn: f"model.{fqn}" for fqn in module.state_dict()}):
        weights = sp.Weights("prefixed.safetensors", names)
        with cluster.parallelize_module(MLPModule(seed=3), {"tp": 2}, PLAN,
                                        example_inputs=(x,),
                                        weights=weights) as m:
            check_state(m, module)
    with pytest.raises(sp.NotFoundError, match=(
            r'expected "net1.\w+", got: 4 tensors: "model.net1.bias"')):
        cluster.parallelize_module(MLPModule(), {"tp": 2}, PLAN,
                                   example_inputs=(x,),
                                   weights="prefixed.safetensors")


def test_floats_are_converted_as_load_state_dict_does(cluster, root):
    module, x = MLPModule(dtype=torch.float32), rand(3, 10).bfloat16()
    path = saved(root, "f32.safetensors", module)
    with cluster.parallelize_module(
            MLPModule(dtype=torch.bfloat16, seed=4), {"tp": 2}, PLAN,
            example_inputs=(x,), weights=path) as m:
        check_state(m, module.bfloat16())


class WithBuffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.full((4,), 2.0))
        self.register_buffer("shift", torch.arange(4.0), persistent=False)

    def forward(self, x):
        return x * self.scale + self.shift


def test_buffers_that_no_file_has_come_from_the_module(cluster, root):
    path = saved(root, "buffers.safetensors", WithBuffers(),
                 scale=torch.full((4,), 5.0))
    module, x = WithBuffers(), torch.ones(2, 4)
    with cluster.parallelize_module(module, {"tp": 2}, {},
                                    example_inputs=(x,), weights=path) as m:
        assert torch.equal(m(x), x * 5 + module.shift)
    with pytest.raises(sp.InvalidArgumentError,
                       match="values of buffer 'shift'"):
        cluster.parallelize_module(on_meta(WithBuffers), {"tp": 2}, {},
                                   example_inputs=(x,), weights=path)


@pytest.fixture
def described():
    return {"type": "Sequential", "children": {
        "net1": {"type": "Linear", "in_features": 10, "out_features": 16,
                 "dtype": "float64"},
        "relu": {"type": "ReLU"},
        "net2": {"type": "Linear", "in_features": 16, "out_features": 10,
                 "dtype": "float64"}}}


def test_descriptions(cluster, root, described):
    module, x = MLPModule(), rand(3, 10)
    path = saved(root, "described.safetensors", module)
    with cluster.parallelize_module(described, {"tp": 2}, PLAN,
                                    example_inputs=(x.numpy(),),
                                    weights=path) as m:
        np.testing.assert_allclose(m(x.numpy()), module(x).detach(), 1e-12)
    with cluster.parallelize_module({**described, "weights": path}, {"tp": 2},
                                    PLAN, example_inputs=(x.numpy(),)) as m:
        np.testing.assert_allclose(m(x.numpy()), module(x).detach(), 1e-12)
    described["children"]["net1"]["parameters"] = {
        "weight": {"init": {"files": {"path": path, "names": ["net1.weight"]}}},
        "bias": {"init": "zeros"}}
    with cluster.parallelize_module(described, {"tp": 2}, PLAN,
                                    example_inputs=(x.numpy(),)) as m:
        state = m.state_dict()
        np.testing.assert_array_equal(state["net1.weight"],
                                      module.net1.weight.detach())
        assert not state["net1.bias"].any()
    with pytest.raises(sp.InvalidArgumentError, match="got: names"):
        cluster.parallelize_module(described, {"tp": 2}, PLAN,
                                   weights=sp.Weights(path, {}))


@pytest.mark.parametrize("path, error, message", [
    ("gone.safetensors", sp.NotFoundError, "gone.safetensors"),
    ("../mlp.safetensors", sp.PermissionDeniedError, "below the worker's"),
    ("half.safetensors", sp.DataLossError, "half.safetensors"),
    ("shape.safetensors", sp.InvalidArgumentError,
     r"expected data of f64\[16, 10\], got: f64\[10, 16\]")])
def test_files_that_do_not_do(cluster, root, path, error, message):
    module, x = MLPModule(), rand(3, 10)
    whole = (root / saved(root, "whole.safetensors", module)).read_bytes()
    (root / "half.safetensors").write_bytes(whole[:len(whole) // 2])
    saved(root, "shape.safetensors", module,
          **{"net1.weight": module.net1.weight.detach().t()})
    with pytest.raises(error, match=message):
        cluster.parallelize_module(MLPModule(), {"tp": 2}, PLAN,
                                   example_inputs=(x,), weights=path)
    # Nothing is left behind that would keep the workers.
    with cluster.parallelize_module(MLPModule(), {"tp": 4}, PLAN,
                                    example_inputs=(x,),
                                    weights="whole.safetensors") as m:
        check_state(m, module)


def test_workers_without_a_root_read_nothing(root):
    path = root / saved(root, "mine.safetensors", MLPModule())
    with sp.LocalCluster(workers=2) as cluster:
        with pytest.raises(sp.FailedPreconditionError,
                           match="--weights_root") as raised:
            cluster.parallelize_module(MLPModule(), {"tp": 2}, PLAN,
                                       example_inputs=(rand(3, 10),),
                                       weights=path)
        assert raised.value.reason == "NO_WEIGHTS_ROOT"


@pytest.mark.parametrize("weights", [3, "", sp.Weights("a", 5)])
def test_weights_are_a_path(cluster, weights):
    with pytest.raises(sp.ShardplaneError, match="weights: expected"):
        cluster.parallelize_module(MLPModule(), {"tp": 2}, PLAN,
                                   example_inputs=(rand(3, 10),),
                                   weights=weights)
