"""Modules as messages: the tree of names, graphs, what is tied or shared.
No cluster is needed."""

import pytest
import torch
from torch import nn

import shardplane as sp
from shardplane.export import export
from shardplane.module_tree import ModuleTree
from shardplane.mutations import without_mutation
from shardplane.v1 import types_pb2 as pb
from tests.models import MLPModule, MLPStacked, rand


def exported(module, *args, call_signatures=False, **kwargs):
    return export(ModuleTree(module), args, kwargs,
                  call_signatures=call_signatures)


def node_of(module, fqn):
    return next(m for m in module.modules if m.fqn == fqn)


def lines(module, fqn=""):
    """A graph as text: one `name = target(args)` a line."""
    def text(argument):
        kind = argument.WhichOneof("kind")
        if kind == "node":
            return f"%{argument.node}"
        if kind == "list":
            return "[" + ", ".join(map(text, argument.list.items)) + "]"
        return "None" if kind == "none" else str(getattr(argument, kind))

    return [f"{n.name} = {n.target or pb.Node.Op.Name(n.op)[3:].lower()}"
            f"({', '.join(map(text, n.args))})"
            for n in node_of(module, fqn).graph.nodes]


def test_tree_and_graphs():
    result = exported(MLPStacked(n_layers=2), rand(3, 10))
    assert [m.fqn for m in result.module.modules] == [
        "", "layers", "layers.0", "layers.0.net1", "layers.0.relu",
        "layers.0.net2", "layers.1", "layers.1.net1", "layers.1.relu",
        "layers.1.net2"]
    assert lines(result.module) == [
        "x = placeholder()", "layers_0 = layers.0(%x)",
        "layers_1 = layers.1(%layers_0)", "output = output(%layers_1)"]
    assert lines(result.module, "layers.1.net2") == [
        "relu_1 = placeholder()", "weight = layers.1.net2.weight()",
        "bias = layers.1.net2.bias()",
        "linear_3 = aten.linear.default(%relu_1, %weight, %bias)",
        "output = output(%linear_3)"]
    linear = node_of(result.module, "layers.0.net1")
    assert linear.type == "torch.nn.modules.linear.Linear"
    assert "torch.nn.modules.module.Module" in linear.bases
    assert not node_of(result.module, "layers").HasField("graph")
    (result_type,) = linear.graph.nodes[-2].results
    assert list(result_type.shape) == [3, 16]
    assert result_type.dtype == pb.DTYPE_FLOAT64


def test_mode_of_each_submodule():
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Dropout(0.5))
    module[2].eval()
    result = exported(module, torch.rand(2, 4))
    assert [m.training for m in result.module.modules] == [
        True, True, True, False]
    assert any("aten.dropout.default(%linear, 0.5, True)" in line
               for line in lines(result.module, "1"))
    assert any("0.5, False)" in line for line in lines(result.module, "2"))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.alias = self.a
        self.offset = torch.arange(4.0)  # neither parameter nor buffer

    def forward(self, x):
        x = self.alias(self.b(self.a(x))) + self.offset
        return self.a(x[:1]), torch.tensor([1.0, 2.0])


def test_aliases_tied_weights_and_constants():
    module = Shared()
    result = exported(module, torch.rand(3, 4))
    assert [m.fqn for m in result.module.modules] == ["", "a", "b"]
    parameters = {p.fqn: p for p in result.module.parameters}
    assert parameters["b.weight"].alias_of == "a.weight"
    assert not parameters["b.bias"].alias_of
    calls = [n.target for n in node_of(result.module, "").graph.nodes
             if n.op == pb.Node.OP_CALL_MODULE]
    assert calls == ["a", "b", "a", "a"]
    constants = dict(result.constants)
    assert torch.equal(constants["offset"], module.offset)
    assert parameters["offset"].buffer
    assert len(constants) == 2
    # Called with other shapes: what was recorded of one call is left out.
    assert all(not n.results for n in node_of(result.module, "a").graph.nodes)


class Router(nn.Module):
    def forward(self, x, mask, *, scale):
        return x * mask, scale, x + scale


class Caller(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = Router()

    def forward(self, a, b, c):
        first, _, last = self.router(b, a, scale=c)
        return last - first


@pytest.mark.parametrize("call_signatures", [False, True])
def test_inputs_in_the_order_of_forward(call_signatures):
    result = exported(Caller(), rand(3), rand(3), rand(3),
                      call_signatures=call_signatures)
    call = next(line for line in lines(result.module) if "router(" in line)
    assert call.startswith("router = router(%")
    if call_signatures:
        assert call == "router = router(%b, %a)"  # scale goes by name
        inside = lines(result.module, "router")
        assert inside[:3] == ["x = placeholder()", "mask = placeholder()",
                              "scale = placeholder()"]
        assert inside[-1].count(",") == 2  # three outputs, in their order


def test_without_gradient():
    class Detached(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                y = torch.exp(x)
            return x * y

    result = exported(Detached(), rand(3))
    assert [line.split(" = ")[1] for line in lines(result.module)][1:4] == [
        "aten.exp.default(%x)", "aten.detach.default(%exp)",
        "aten.mul.Tensor(%x, %exp_detach)"]


def test_in_place_operators_are_rewritten():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    result = exported(module, torch.rand(2, 4))
    assert "aten.relu.default" in " ".join(lines(result.module, "1"))


def test_forward_that_changes_a_buffer():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert lines(exported(module, torch.rand(2, 4)).module, "1")[-4:-1] == [
        "add_tensor = aten.add.Tensor(%num_batches_tracked, 1)",
        "copy__default = aten.copy_.default("
        "%num_batches_tracked, %add_tensor)",
        "batch_norm = aten.batch_norm.default(%linear, %weight, %bias, "
        "%running_mean, %running_var, True, 0.1, 1e-05, False)"]
    result = exported(module.eval(), torch.rand(2, 4))
    assert "copy_" not in " ".join(lines(result.module, "1"))


class Writes(nn.Module):
    """Calls `change` on an activation and a buffer."""

    def __init__(self, change):
        super().__init__()
        self.change = change
        self.register_buffer("kept", torch.zeros(3))

    def forward(self, x):
        return self.change(x * 2, self.kept)


def targets(change):
    module = exported(Writes(change), rand(3)).module
    return [line.split(" = ")[1] for line in lines(module)][2:-1]


def test_writes_to_whole_tensors_keep_their_order():
    def change(y, kept):
        before = kept + 1
        kept.mul_(2).add_(y)
        y += before
        return y * kept

    assert targets(change) == [
        "aten.mul.Tensor(%x, 2)", "aten.add.Tensor(%kept, 1)",
        "aten.mul.Tensor(%kept, 2)",
        "aten.copy_.default(%kept, %mul_tensor)",
        "aten.add.Tensor(%kept, %mul)",
        "aten.copy_.default(%kept, %add_tensor)",
        "aten.add.Tensor(%mul, %add)",
        "aten.mul.Tensor(%add_tensor_1, %kept)"]


def test_a_write_in_place_keeps_the_dtype():
    def change(y, kept):
        counts = y.to(torch.int64)
        counts *= 1.5
        return counts + kept

    assert "aten.to.dtype" in " ".join(targets(change)[2:])


@pytest.mark.parametrize("change", [
    lambda y, kept: (kept[1:].copy_(y[1:]), y + kept)[1],
    lambda y, kept: (y[1:].mul_(2), y + kept)[1],
], ids=["of_a_buffer", "of_an_activation"])
def test_writes_through_views_are_torchs_to_rewrite(change):
    calls = " ".join(targets(change))
    assert "slice_scatter" in calls
    assert "aten.mul_" not in calls


@pytest.mark.parametrize("change", [
    lambda y, kept: (y.view(3), y.add_(1))[0] * kept,
    lambda y, kept: (kept.view(3), kept.add_(y))[0] * 2,
], ids=["of_an_activation", "of_a_buffer"])
def test_views_made_before_a_write_see_it(change):
    """What comes out of the rewritten graph is what the module gives."""
    module = Writes(change)
    program = torch.export.export(module, (rand(3, dtype=torch.float32),),
                                  strict=False)
    rewritten = without_mutation(program)
    assert not [n for n in rewritten.graph.nodes
                if str(n.target) in ("aten.add_.Tensor", "aten.mul_.Tensor")]
    x = rand(3, dtype=torch.float32)
    torch.testing.assert_close(rewritten.module()(x), Writes(change)(x))


def test_data_dependent_forward():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(sp.InvalidArgumentError, match="Branch"):
        exported(Branch(), rand(3))


def test_structure_of_the_outputs():
    class Dict(nn.Module):
        def forward(self, x, flag, extra=None):
            return {"a": (x + 1, flag), "b": [extra, x * 2]}

    result = exported(Dict(), rand(3), True)
    assert result.input_names == ["x"]
    assert result.tensor_outputs == 2
    a, b = torch.zeros(1), torch.ones(1)
    assert result.rebuild([a, b]) == {"a": (a, True), "b": [None, b]}


@pytest.mark.parametrize("mixed", [False, True])
def test_meta_parameters(mixed):
    with torch.device("meta"):
        module = MLPModule()
    if mixed:
        module.net2 = nn.Linear(16, 10, dtype=torch.float64)
    weight = module.net2.weight
    result = exported(module, rand(3, 10))
    assert module.net2.weight is weight
    metas = {p.fqn: p.meta for p in result.module.parameters}
    assert metas == {"net1.weight": True, "net1.bias": True,
                     "net2.weight": not mixed, "net2.bias": not mixed}
    assert lines(result.module)[-1] == "output = output(%net2)"


def test_tied_meta_parameters_beside_others():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 4, device="meta")
            self.norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.norm(self.embed(x)))

    module = Tied()
    result = exported(module, torch.zeros(2, dtype=torch.long))
    assert module.head.weight is module.embed.weight
    assert {p.fqn: p.alias_of for p in result.module.parameters} == {
        "embed.weight": "", "norm.weight": "", "norm.bias": "",
        "head.weight": "embed.weight"}


def test_dtype_that_has_no_number():
    with pytest.raises(sp.UnimplementedError, match="float8_e5m2"):
        exported(nn.Identity(),
                 torch.rand(1, 2).to(torch.float8_e5m2))
