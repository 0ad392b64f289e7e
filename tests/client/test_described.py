"""The deployment of a description: numpy in and out, without torch."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import shardplane as sp

DECODER = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "examples" /
           "descriptions" / "decoder.json")

MLP = {
    "type": "Sequential",
    "dtype": "float64",
    "children": {
        "net1": {"type": "Linear", "in_features": 10, "out_features": 16},
        "act": {"type": "ReLU"},
        "net2": {"type": "Linear", "in_features": 16, "out_features": 10},
    },
}
PLAN = {"net1": sp.ColwiseParallel(), "net2": sp.RowwiseParallel()}
MESH = {"tp": 2}


def with_graph(*nodes, **keys):
    return {"type": "Block", "graph": list(nodes), **keys}


X = {"name": "x", "op": "placeholder"}
OUT = {"op": "output", "args": ["%x"]}


def rand(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def forward(state, x):
    """The MLP above, by hand."""
    hidden = x @ state["net1.weight"].T + state["net1.bias"]
    return (np.maximum(hidden, 0) @ state["net2.weight"].T +
            state["net2.bias"])


@pytest.fixture
def mlp(cluster):
    with cluster.parallelize_module(MLP, MESH, PLAN) as m:
        yield m


def test_parameters_come_from_attributes_and_seed(cluster):
    values = []
    for ranks, seed in ((1, 3), (2, 3), (2, 4)):
        with cluster.parallelize_module(MLP, {"tp": ranks}, PLAN,
                                        seed=seed) as m:
            values.append(m.state_dict())
            assert list(m.shards("net1.weight")[0].shape) == [16 // ranks, 10]
    shapes = {name: v.shape for name, v in values[0].items()}
    assert shapes == {"net1.weight": (16, 10), "net1.bias": (16,),
                      "net2.weight": (10, 16), "net2.bias": (10,)}
    for name, value in values[0].items():
        assert value.dtype == np.float64
        bound = 10 ** -0.5 if name.startswith("net1") else 16 ** -0.5
        assert np.abs(value).max() <= bound
        np.testing.assert_array_equal(value, values[1][name])
        assert np.any(value != values[2][name])


def test_forward_and_counts(mlp):
    x = rand(6, 10)
    y = mlp(x)
    assert isinstance(y, np.ndarray) and y.dtype == np.float64
    np.testing.assert_allclose(y, forward(mlp.state_dict(), x), rtol=1e-12)
    assert dict(mlp.comm_counts()["forward"]) == {"all_reduce": 1}
    assert len(mlp.output_shards()) == 2


def test_a_step_moves_along_the_gradients(mlp):
    x = rand(6, 10)
    before = mlp.state_dict()
    loss = mlp.step(x, loss="mean", optimizer=sp.SGD(lr=0.5))
    assert loss.shape == () and float(loss) == pytest.approx(
        forward(before, x).mean())
    gradients, after = mlp.gradients(), mlp.state_dict()
    assert list(gradients) == list(before)
    for name, value in after.items():
        np.testing.assert_allclose(
            value, before[name] - 0.5 * gradients[name], rtol=1e-12)
    np.testing.assert_allclose(gradients["net2.bias"], np.full(10, 0.1))


def test_accumulation_and_update(mlp):
    x = rand(6, 10)
    mlp.forward_backward(x, loss="sum")
    once = mlp.gradients()
    mlp.forward_backward(x, loss="sum", accumulate=True)
    for name, value in mlp.gradients().items():
        np.testing.assert_allclose(value, 2 * once[name])
    before = mlp.state_dict()
    mlp.update(sp.SGD(lr=1.0))
    np.testing.assert_allclose(mlp.state_dict()["net2.bias"],
                               before["net2.bias"] - 12.0)


def test_state_is_loaded_and_checked(mlp):
    state = {name: rand(*value.shape, seed=1).astype("f4")
             for name, value in mlp.state_dict().items()}
    mlp.load_state_dict(state)
    for name, value in mlp.state_dict().items():
        np.testing.assert_array_equal(value, state[name].astype("f8"))
    with pytest.raises(sp.InvalidArgumentError,
                       match=r"tensor of shape \[16\], got: \[3\]"):
        mlp.load_state_dict({**state, "net1.bias": np.zeros(3)})
    with pytest.raises(sp.InvalidArgumentError, match="got: list"):
        mlp.load_state_dict({**state, "net1.bias": [0.0] * 16})


def test_a_loss_graph_with_targets(mlp):
    x, target = rand(6, 10), rand(6, 10, seed=1)
    loss = {"graph": [
        {"name": "output", "op": "placeholder"},
        {"name": "target", "op": "placeholder"},
        {"name": "d", "op": "call_function", "target": "aten.sub.Tensor",
         "args": ["%output", "%target"]},
        {"name": "s", "op": "call_function", "target": "aten.mul.Tensor",
         "args": ["%d", "%d"]},
        {"name": "m", "op": "call_function", "target": "aten.mean.default",
         "args": ["%s"]},
        {"op": "output", "args": ["%m"]}]}
    expected = ((forward(mlp.state_dict(), x) - target) ** 2).mean()
    assert float(mlp.forward_backward(
        x, loss=loss, targets=target)) == pytest.approx(expected)
    with pytest.raises(sp.InvalidArgumentError,
                       match="expected 1 targets.*got: 0"):
        mlp.forward_backward(x, loss=loss)


@pytest.mark.parametrize("shape", [(6,), (2, 3)], ids=str)
def test_cross_entropy_over_the_last_dim(mlp, shape):
    x = rand(*shape, 10)
    ids = np.arange(6).reshape(shape) % 10
    logits = forward(mlp.state_dict(), x.reshape(6, 10))
    rows = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), ids.ravel()]
    loss = mlp.step(x, loss="cross_entropy", targets=(ids,),
                    optimizer=sp.SGD(lr=0.1))
    assert float(loss) == pytest.approx(rows.mean(), rel=1e-12)


@pytest.mark.parametrize("loss, error, message", [
    (lambda y: y.sum(), TypeError, "expected \"sum\", \"mean\", "),
    (3, TypeError, "of type int"),
    ("max", ValueError, "got: 'max'"),
    ({"nodes": []}, ValueError, "got: {'nodes': \\[\\]}"),
    ({"graph": [X, {"name": "w", "op": "get_attr", "target": "w"}, OUT]},
     ValueError, r"loss: \$.graph\[1\].op: expected a placeholder"),
    ({"graph": [X, {"op": "output", "args": ["%z"]}]}, ValueError,
     r"loss: \$.graph\[1\].args\[0\]: expected a node"),
])
def test_losses_that_are_none(mlp, loss, error, message):
    with pytest.raises(error, match=message):
        mlp.forward_backward(rand(6, 10), loss=loss)


def test_example_inputs_give_the_report_and_the_first_program(cluster):
    x, ids = rand(4, 10), np.zeros(4, "i8")
    report = cluster.parallelize_module(
        MLP, MESH, PLAN, example_inputs=x, validate_only=True)
    assert report.collectives["forward"]["all_reduce"] == 1
    assert report.placements["net2.weight"] == "[S(1)]"
    assert not report.collectives["backward"]
    with cluster.parallelize_module(
            MLP, MESH, PLAN, example_inputs=(x,), loss="cross_entropy",
            example_targets=ids) as m:
        assert m.report.program_text.count("backward") > 0
        m.step(x, targets=ids, optimizer=sp.SGD(lr=0.1))
    with cluster.parallelize_module(
            MLP, MESH, PLAN, example_inputs=(x,),
            loss="cross_entropy") as m:  # no targets yet: forward only
        m.step(x, targets=ids, optimizer=sp.SGD(lr=0.1))


TWO_INPUTS = with_graph(
    X, {"name": "y", "op": "placeholder"},
    {"name": "d", "op": "call_function", "target": "aten.sub.Tensor",
     "args": ["%x", "%y"]},
    {"op": "output", "args": [["%d", None, ["%x"]]]})


def test_inputs_by_name_and_structured_outputs(cluster):
    x, y = rand(2, 3), rand(2, 3, seed=1)
    with cluster.parallelize_module(TWO_INPUTS, {"tp": 1}, {}) as m:
        for outputs in (m(x, y), m(x, y=y), m(y=y, x=x)):
            difference, nothing, (same,) = outputs
            np.testing.assert_array_equal(difference, x - y)
            assert nothing is None
            np.testing.assert_array_equal(same, x)


@pytest.mark.parametrize("args, kwargs, got", [
    ((1,), {}, "1 by position"), ((1, 2, 3), {}, "3 by position"),
    ((1,), {"z": 2}, "1 by position, 'z' by name"),
    ((1, 2), {"y": 2}, "2 by position, 'y' by name")])
def test_inputs_that_do_not_fit(cluster, args, kwargs, got):
    with cluster.parallelize_module(TWO_INPUTS, {"tp": 1}, {}) as m:
        with pytest.raises(sp.InvalidArgumentError,
                           match=f"expected the inputs x, y, got: {got}$"):
            m(*[rand(2, 3) for _ in args],
              **{name: rand(2, 3) for name in kwargs})
        with pytest.raises(TypeError, match="expected a numpy array.*list"):
            m([1.0], [2.0])


def test_modes_are_programs_of_one_deployment(cluster):
    """Dropout works in train mode alone."""
    description = sp.Description({"type": "Sequential", "children": [
        {"type": "Identity"}, {"type": "Dropout", "p": 0.5}]})
    x = np.ones((64, 64), "f4")
    with cluster.parallelize_module(description, {"tp": 1}, {}) as m:
        dropped = m(x)
        assert set(np.unique(dropped)) == {0.0, 2.0}
        description.eval()
        np.testing.assert_array_equal(m(x), x)
        description.train()
        assert set(np.unique(m(x))) == {0.0, 2.0}


def test_the_decoder_of_the_documents_learns(cluster):
    """Straight from its file: dropout on, float32, heads and vocabulary cut."""
    plan = {
        "tok_embeddings": sp.RowwiseParallel(input_layouts=sp.Replicate()),
        "layers.*.attention.w[qkv]": sp.ColwiseParallel(),
        "layers.*.attention.wo": sp.RowwiseParallel(),
        "layers.*.feed_forward.w1": sp.ColwiseParallel(),
        "layers.*.feed_forward.w2": sp.RowwiseParallel(),
        "output": sp.ColwiseParallel(),
    }
    tokens = np.random.default_rng(0).integers(8, size=(16, 8))
    following = (tokens + 1) % 8  # what it is to learn
    with cluster.parallelize_module(
            DECODER, MESH, plan, example_inputs=(tokens,),
            loss="cross_entropy", example_targets=(following,)) as m:
        losses = [float(m.step(tokens, targets=(following,),
                               optimizer=sp.Adam(lr=0.01)))
                  for _ in range(60)]
        assert losses[0] > 1.5 and losses[-1] < 0.5, losses
        assert m.comm_counts()["backward"]["all_gather"] == 0
        assert len(m.shards("output.weight")[0]) == 4


def test_bfloat16_parameters_come_as_float32(cluster):
    linear = {"type": "Linear", "in_features": 4, "out_features": 2,
              "dtype": "bfloat16"}
    with cluster.parallelize_module(linear, {"tp": 1}, {}) as m:
        weight = np.full((2, 4), 1 + 2**-9, "f4")
        m.load_state_dict({"weight": weight, "bias": np.ones(2, "f4")})
        state = m.state_dict()
        assert state["weight"].dtype == np.float32
        np.testing.assert_array_equal(state["weight"], np.ones((2, 4)))


def test_tied_weights_are_one(cluster):
    tied = {"type": "Sequential", "dtype": "float64", "children": {
        "a": {"type": "Linear", "in_features": 4, "out_features": 4,
              "bias": False},
        "b": {"type": "Linear", "parameters": {
            "weight": {"alias_of": "a.weight"}}}}}
    with cluster.parallelize_module(tied, {"tp": 2}, {
            "a": sp.ColwiseParallel()}) as m:
        x = rand(3, 4)
        weight = m.state_dict()["a.weight"]
        np.testing.assert_allclose(m(x), x @ weight.T @ weight.T, rtol=1e-12)
        m.step(x, loss="sum", optimizer=sp.SGD(lr=0.1))
        gradients, state = m.gradients(), m.state_dict()
        for values in (gradients, state):
            np.testing.assert_array_equal(values["a.weight"],
                                          values["b.weight"])


def test_frozen_parameters_have_no_gradient(cluster):
    frozen = {"type": "Linear", "in_features": 4, "out_features": 4,
              "parameters": {"weight": {"requires_grad": False}, "bias": {}}}
    with cluster.parallelize_module(frozen, {"tp": 1}, {}) as m:
        m.forward_backward(rand(3, 4).astype("f4"), loss="sum")
        assert list(m.gradients()) == ["bias"]


@pytest.mark.parametrize("source, message", [
    ({"type": "Linear", "in_features": 3}, "needs its attributes "
     "out_features, in_features together"),
    ({"type": "Softmax", "axis": 1}, "its attributes are dim, dtype, inplace"),
    ({"type": "Block", "parameters": {"w": {"shape": [2]}}},
     "has no data and no initializer"),
])
def test_what_the_coordinator_refuses(cluster, source, message):
    with pytest.raises(sp.ShardplaneError, match=message):
        cluster.parallelize_module(source, {"tp": 1}, {})


WITHOUT_TORCH = '''
import json, sys
sys.modules["torch"] = None  # an import of it raises

import numpy as np
import shardplane as sp

model, classes = json.loads(sys.argv[1]), np.arange(6) % 10
x = np.random.default_rng(0).random((6, 10))
with sp.LocalCluster(workers=2) as cluster:
    try:
        cluster.parallelize_module(object(), {"tp": 2}, {})
    except sp.PlanTypeError as error:
        print(error.message)
    with cluster.parallelize_module(
            model, {"tp": 2}, {"net1": sp.ColwiseParallel(),
                               "net2": sp.RowwiseParallel()},
            example_inputs=(x,), loss="cross_entropy") as m:
        losses = [float(m.step(x, targets=classes,
                               optimizer=sp.SGD(lr=1.0)))
                  for _ in range(20)]
        m.load_state_dict(m.state_dict())
        print(m.comm_counts()["forward"]["all_reduce"], m(x).shape,
              losses[0] > 2 * losses[-1], m.gradients().keys())
assert sys.modules["torch"] is None
assert not any(name.startswith("torch.") for name in sys.modules)
'''


def test_a_client_without_torch_trains():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(MLP)], check=False,
        text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    refused, trained = done.stdout.splitlines()
    assert "expected a description" in refused
    assert trained == (
        "1 (6, 10) True dict_keys(['net1.weight', 'net1.bias', "
        "'net2.weight', 'net2.bias'])")
