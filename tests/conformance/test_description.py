"""One model twice, as a torch module and as a description with its weights:
equal values to 1e-10 in float64, the same collectives and placements."""

import copy
import json
import pathlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import shardplane as sp
from tests.models import (
    Transformer, TransformerArgs, rand, tokens, transformer_plan)

DECODER = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "examples" /
           "descriptions" / "decoder.json")
STEPS = 3


@pytest.fixture(scope="module")
def cluster():
    """Twins of four ranks each."""
    with sp.LocalCluster(workers=8) as eight:
        yield eight


def close(actual, expected, what):
    torch.testing.assert_close(torch.as_tensor(actual), expected.detach(),
                               rtol=1e-10, atol=1e-10,
                               msg=lambda text: f"{what}: {text}")


def all_close(actual, expected, what):
    assert list(actual) == list(expected), what
    for name, value in expected.items():
        close(actual[name], value, f"{what} {name}")


def numpy_of(state):
    return {name: value.numpy() for name, value in state.items()}


class Twins:
    """The two deployments, and the unsharded module."""

    def __init__(self, cluster, description, module, ranks, plan):
        self.module = module
        options = {"mesh": {"tp": ranks}, "plan": plan}
        self.exported = cluster.parallelize_module(copy.deepcopy(module),
                                                   **options)
        self.described = cluster.parallelize_module(description, **options)
        self.described.load_state_dict(numpy_of(module.state_dict()))
        # Not for its values: dropout also depends on the number of the step.
        self.exported.load_state_dict(module.state_dict())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.exported.close()
        self.described.close()

    def check_placements(self):
        assert self.described.report.placements == (
            self.exported.report.placements)
        for name, _ in self.module.named_parameters():
            described, exported = (
                [tuple(shard.shape) for shard in m.shards(name)]
                for m in (self.described, self.exported))
            assert described == exported, name

    def check_counts(self):
        for counts in ("comm_counts", "comm_bytes"):
            described, exported = (
                {phase: kinds for phase, kinds in getattr(m, counts)().items()
                 if phase != "materialize"}
                for m in (self.described, self.exported))
            assert described == exported

    def check_forward(self, x):
        expected = self.module(x)
        close(self.described(x.numpy()), expected, "described")
        close(self.exported(x), expected, "exported")
        self.check_counts()

    def check_steps(self, x, loss_names, loss, targets=()):
        """Three steps of Adam beside PyTorch. `loss_names`: how the described
        and the exported module are told the loss."""
        optimizer = torch.optim.Adam(self.module.parameters(), lr=0.01)
        arrays = [t.numpy() for t in targets]
        for _ in range(STEPS):
            optimizer.zero_grad()
            expected = loss(self.module(x), *targets)
            expected.backward()
            optimizer.step()
            described = self.described.step(
                x.numpy(), loss=loss_names[0], targets=arrays,
                optimizer=sp.Adam(lr=0.01))
            exported = self.exported.step(
                x, loss=loss_names[1], targets=targets,
                optimizer=sp.Adam(lr=0.01))
            close(described, expected, "described loss")
            close(exported, expected, "exported loss")
            self.check_counts()
        gradients = {name: p.grad for name, p in
                     self.module.named_parameters(remove_duplicate=False)}
        all_close(self.described.gradients(), gradients, "gradient")
        all_close(self.described.state_dict(), self.module.state_dict(),
                  "after the steps:")


class MLP(nn.Module):
    """Layer norm, then a pair that is cut, dropout and an activation."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.norm = nn.LayerNorm(10)
        self.net1 = nn.Linear(10, 18)
        self.gelu = nn.GELU(approximate="tanh")
        self.dropout = nn.Dropout(0.0)
        self.net2 = nn.Linear(18, 10)
        self.soft = nn.LogSoftmax(dim=-1)
        self.double()

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


MLP_DESCRIPTION = {
    "type": "Sequential", "dtype": "float64", "children": {
        "norm": {"type": "LayerNorm", "normalized_shape": 10},
        "net1": {"type": "Linear", "in_features": 10, "out_features": 18},
        "gelu": {"type": "GELU", "approximate": "tanh"},
        "dropout": {"type": "Dropout", "p": 0.0},
        "net2": {"type": "Linear", "in_features": 18, "out_features": 10},
        "soft": {"type": "LogSoftmax", "dim": -1}}}
MLP_PLANS = {
    "pair": {"net1": sp.ColwiseParallel(), "net2": sp.RowwiseParallel()},
    "colwise": {"net?": sp.ColwiseParallel(output_layouts=sp.Replicate())},
    "uncut": {},
}


@pytest.mark.parametrize("plan", MLP_PLANS)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_mlp(cluster, ranks, plan):
    with Twins(cluster, MLP_DESCRIPTION, MLP(), ranks,
               MLP_PLANS[plan]) as twins:
        twins.check_placements()
        twins.check_forward(rand(6, 10))
        twins.check_steps(rand(6, 10), ("sum", "sum"), torch.sum)


def test_dropout_has_the_mask_of_the_exported_module(cluster):
    """Masks depend on seed, step, name and global index alone."""
    module = MLP()
    module.dropout.p = 0.5
    description = copy.deepcopy(MLP_DESCRIPTION)
    description["children"]["dropout"]["p"] = 0.5
    x = rand(6, 10)
    with Twins(cluster, description, module, 2, MLP_PLANS["pair"]) as twins:
        for _ in range(STEPS):
            described = twins.described.step(x.numpy(), loss="mean",
                                             optimizer=sp.SGD(lr=0.5))
            exported = twins.exported.step(x, loss="mean",
                                           optimizer=sp.SGD(lr=0.5))
            close(described, exported, "loss")
        without = module.eval()(x).detach().mean()
        assert abs(float(exported) - float(without)) > 1e-4
        all_close(twins.described.state_dict(), twins.exported.state_dict(),
                  "after the steps:")


LAYERS = [
    nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(),
    nn.Tanh(), nn.Sigmoid(), nn.LogSigmoid(), nn.Hardsigmoid(),
    nn.Hardswish(), nn.Hardtanh(-0.5, 0.7), nn.LeakyReLU(0.2), nn.ELU(0.7),
    nn.Softplus(2.0, 5.0), nn.Softmax(dim=1), nn.Identity(), nn.Dropout(0.0),
    nn.Flatten(), nn.Unflatten(1, (2, -1)), nn.LayerNorm(8, eps=1e-3),
    nn.LayerNorm([8], bias=False), nn.LayerNorm(8, elementwise_affine=False),
    nn.RMSNorm(8), nn.RMSNorm(8, eps=0.1),
    nn.RMSNorm([8], elementwise_affine=False),
]
# What a constructor was told, by the name of the attribute that keeps it.
KEYWORDS = ("approximate", "min_val", "max_val", "negative_slope", "alpha",
            "beta", "threshold", "dim", "p", "unflattened_size",
            "normalized_shape", "eps", "elementwise_affine")


def described(module):
    """A module without children, by its constructor's keywords."""
    attributes = {name: getattr(module, name) for name in KEYWORDS
                  if hasattr(module, name)}
    if isinstance(module, nn.ReLU6):  # a Hardtanh of two fixed values
        attributes = {}
    if isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        attributes["bias"] = module.bias is not None
    return {"type": type(module).__name__, **attributes}


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_every_known_type(cluster, layer):
    """Between two linears, so that its own gradient counts, too."""
    torch.manual_seed(5)
    flat = isinstance(layer, (nn.Unflatten,))
    module = nn.Sequential(nn.Linear(8, 8), layer,
                           nn.Linear(4 if flat else 8, 3)).double()
    description = {"type": "Sequential", "dtype": "float64", "children": [
        {"type": "Linear", "in_features": 8, "out_features": 8},
        described(layer),
        {"type": "Linear", "in_features": 4 if flat else 8,
         "out_features": 3}]}
    with Twins(cluster, description, module, 2,
               {"0": sp.ColwiseParallel(), "2": sp.RowwiseParallel()}) as t:
        t.check_placements()
        t.check_forward(4 * rand(6, 8) - 2)
        t.check_steps(4 * rand(6, 8, seed=1) - 2, ("mean", "mean"),
                      torch.mean)


def embedding(padding_idx):
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Embedding(12, 6, padding_idx=padding_idx), nn.Linear(6, 4),
        nn.Flatten(-2)).double()


@pytest.mark.parametrize("padding_idx", [None, 0, -2])
@pytest.mark.parametrize("style", [sp.ColwiseParallel, sp.RowwiseParallel])
def test_embedding(cluster, style, padding_idx):
    description = {"type": "Sequential", "dtype": "float64", "children": [
        {"type": "Embedding", "num_embeddings": 12, "embedding_dim": 6,
         "padding_idx": padding_idx},
        {"type": "Linear", "in_features": 6, "out_features": 4},
        {"type": "Flatten", "start_dim": -2}]}
    plan = {"0": style(**({"input_layouts": sp.Replicate()}
                          if style is sp.RowwiseParallel else {}))}
    ids = torch.tensor([[0, 3, 10, 10], [11, 10, 0, 5]])
    with Twins(cluster, description, embedding(padding_idx), 2,
               plan) as twins:
        twins.check_placements()
        twins.check_forward(ids)
        twins.check_steps(ids, ("sum", "sum"), torch.sum)


# ------------------------------------------------------------- transformers


def cross_entropy(logits, target):
    return F.cross_entropy(logits.flatten(0, -2), target.flatten())


def decoder(tied=False):
    """The example of the documents, in float64, as description and module."""
    source = json.loads(DECODER.read_text(encoding="utf-8"))
    source["dtype"] = "float64"
    if tied:
        source["children"]["output"]["parameters"] = {
            "weight": {"alias_of": "tok_embeddings.weight"}}
    module = Transformer(TransformerArgs(layers=1, dropout=0.1, tied=tied))
    return sp.Description(source).eval(), module.eval()


@pytest.mark.parametrize("sequence_parallel", [False, True],
                         ids=["q6", "q7"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_transformer(cluster, ranks, tied, sequence_parallel):
    description, module = decoder(tied)
    with Twins(cluster, description, module, ranks,
               transformer_plan(sequence_parallel)) as twins:
        twins.check_placements()
        twins.check_forward(tokens())
        twins.check_steps(tokens(), ("cross_entropy", cross_entropy),
                          cross_entropy, (tokens(seed=1),))
