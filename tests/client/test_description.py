"""Modules as JSON: both forms, and what may be wrong with one."""

import json
import pathlib

import pytest
from google.protobuf import json_format, text_format

import shardplane as sp
from shardplane.v1 import types_pb2 as pb

DECODER = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "examples" /
           "descriptions" / "decoder.json")


def with_graph(*nodes, **keys):
    return {"type": "Block", "graph": list(nodes), **keys}


X = {"name": "x", "op": "placeholder"}
OUT = {"op": "output", "args": ["%x"]}


def expanded(text):
    return text_format.Parse(text, pb.Module())


def test_short_form_is_expanded():
    description = sp.Description({
        "type": "Block", "dtype": "float64", "training": False,
        "parameters": {
            "scale": {"shape": [4], "init": {"uniform": [-1, 1]}},
            "mask": {"shape": [2, 2], "dtype": "bool", "buffer": True,
                     "init": "ones"}},
        "children": {
            "norm": {"type": "LayerNorm", "normalized_shape": [4],
                     "eps": 1e-6, "bias": False, "training": True},
            "mlps": {"type": "ModuleList", "children": [
                {"type": "my.Linear", "bases": ["torch.nn.Linear"],
                 "dtype": "float32"}]}},
        "graph": [
            X, {"name": "h", "op": "call_module", "target": "mlps.0",
                "args": ["%x"], "kwargs": {"flag": True}},
            {"name": "s", "op": "get_attr", "target": "scale"},
            {"name": "y", "op": "call_function", "target": "aten.add.Tensor",
             "args": ["%h", [1, 2.0, None, "%s", "text", {"dtype": "int8"}]],
             "results": [{"dtype": "float64", "shape": [2, 4]}]},
            {"name": "out", "op": "output", "args": [["%y", None]]}]})
    assert description.proto == expanded("""
      modules {
        type: "Block"
        graph {
          nodes { name: "x" op: OP_PLACEHOLDER }
          nodes { name: "h" op: OP_CALL_MODULE target: "mlps.0"
                  args { node: "x" }
                  kwargs { key: "flag" value { bool_value: true } } }
          nodes { name: "s" op: OP_GET_ATTR target: "scale" }
          nodes { name: "y" op: OP_CALL_FUNCTION target: "aten.add.Tensor"
                  args { node: "h" }
                  args { list { items { int_value: 1 }
                                items { float_value: 2 } items { none {} }
                                items { node: "s" }
                                items { string_value: "text" }
                                items { dtype: DTYPE_INT8 } } }
                  results { dtype: DTYPE_FLOAT64 shape: 2 shape: 4 } }
          nodes { name: "out" op: OP_OUTPUT
                  args { list { items { node: "y" } items { none {} } } } }
        }
      }
      modules {
        fqn: "norm" type: "LayerNorm" training: true
        attributes { key: "normalized_shape"
                     value { list { items { int_value: 4 } } } }
        attributes { key: "eps" value { float_value: 1e-6 } }
        attributes { key: "bias" value { bool_value: false } }
        attributes { key: "dtype" value { dtype: DTYPE_FLOAT64 } }
      }
      modules {
        fqn: "mlps" type: "ModuleList"
        attributes { key: "dtype" value { dtype: DTYPE_FLOAT64 } }
      }
      modules {
        fqn: "mlps.0" type: "my.Linear" bases: "torch.nn.Linear"
        attributes { key: "dtype" value { dtype: DTYPE_FLOAT32 } }
      }
      parameters {
        fqn: "scale" requires_grad: true meta: true
        type { dtype: DTYPE_FLOAT64 shape: 4 }
        initializer { uniform { low: -1 high: 1 } }
      }
      parameters {
        fqn: "mask" buffer: true meta: true
        type { dtype: DTYPE_BOOL shape: 2 shape: 2 }
        initializer { ones {} }
      }""")


def test_targets_of_a_graph_are_below_its_module():
    inner = with_graph(
        X, {"name": "y", "op": "call_module", "target": "lin", "args": ["%x"]},
        {"name": "w", "op": "get_attr", "target": "lin.weight"}, OUT,
        children={"lin": {"type": "Linear"}})
    module = sp.Description({"type": "Sequential", "children": [
        {"type": "Sequential", "children": {"block": inner}}]}).proto
    block = next(m for m in module.modules if m.fqn == "0.block")
    assert [n.target for n in block.graph.nodes] == [
        "", "0.block.lin", "0.block.lin.weight", ""]


def test_an_output_needs_no_name():
    nodes = [{**X, "name": "output"}, {"op": "output", "args": ["%output"]}]
    module = sp.Description(with_graph(*nodes)).proto
    names = [n.name for n in module.modules[0].graph.nodes]
    assert names[0] == "output" and len(set(names)) == 2


def test_tied_and_frozen_parameters():
    module = sp.Description({"type": "Block", "children": {
        "embed": {"type": "Embedding", "num_embeddings": 8,
                  "embedding_dim": 4,
                  "parameters": {"weight": {"requires_grad": False}}},
        "head": {"type": "Linear", "in_features": 4, "out_features": 8,
                 "parameters": {"weight": {"alias_of": "embed.weight"}}}}})
    assert list(module.proto.parameters) == [
        pb.Parameter(fqn="embed.weight", meta=True),
        pb.Parameter(fqn="head.weight", meta=True, requires_grad=True,
                     alias_of="embed.weight")]


def test_the_messages_own_form_is_taken_as_it_is(tmp_path):
    short = sp.Description(DECODER).proto
    exact = json_format.MessageToDict(short)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(exact), encoding="utf-8")
    for source in (exact, path, str(path), short):
        assert sp.Description(source).proto == short
    assert sp.Description(short).proto is not short


def test_a_graph_may_have_the_messages_own_form():
    graph = {"nodes": [{"name": "x", "op": "OP_PLACEHOLDER"},
                       {"name": "out", "op": "OP_OUTPUT",
                        "args": [{"node": "x"}]}]}
    module = sp.Description({"type": "Block", "graph": graph}).proto
    assert json_format.MessageToDict(module.modules[0].graph) == graph


def test_modes_are_set_as_on_a_torch_module():
    description = sp.Description(DECODER)
    assert all(m.training for m in description.proto.modules)
    assert description.eval() is description
    assert not any(m.training for m in description.proto.modules)
    description.train()
    assert all(m.training for m in description.proto.modules)


def nested(inner):
    return {"type": "Sequential", "children": {"a": inner}}


@pytest.mark.parametrize("source, place, message", [
    ({}, "$", 'expected a "type", such as "Linear", got: the keys (none)'),
    (nested(3), "$.children.a",
     "expected an object that describes a module, got: 3"),
    (nested({"typ": "Linear"}), "$.children.a", "got: the keys typ"),
    (nested({"type": 4}), "$.children.a.type", "expected a string, got: 4"),
    ({"type": "Sequential", "children": 3}, "$.children",
     "expected an object of modules by name, or a list of them, got: 3"),
    ({"type": "Sequential", "children": {"a.b": {}}}, "$.children",
     "expected names without a dot, got: 'a.b'"),
    ({"type": "Sequential", "children": [{"type": "Linear", "bias": {}}]},
     "$.children[0].bias", "expected null, a bool, a number, a string, a "
     'list or {"dtype": "float32"}, got: {}'),
    ({"type": "Sequential", "children": {"a b": {}}}, '$.children["a b"]',
     'expected a "type"'),
    (nested({"type": "Linear", "in_features": 1 << 63}),
     "$.children.a.in_features", "got: 9223372036854775808"),
    (nested({"type": "Linear", "dtype": "float"}), "$.children.a.dtype",
     "expected one of float32, float64"),
    (nested({"type": "Linear", "training": 1}), "$.children.a.training",
     "expected true or false, got: 1"),
    (nested({"type": "Linear", "parameters": ["weight"]}),
     "$.children.a.parameters", "expected an object of parameters by name"),
    (nested({"type": "Linear", "parameters": {"weight": {"size": [1]}}}),
     "$.children.a.parameters.weight.size",
     "expected one of shape, dtype, requires_grad, buffer, alias_of, init"),
    (nested({"type": "Linear", "parameters": {"weight": {"shape": [1, -1]}}}),
     "$.children.a.parameters.weight.shape[1]",
     "expected a size of at least 0, got: -1"),
    (nested({"type": "Linear", "parameters": {"weight": {"dtype": "int8"}}}),
     "$.children.a.parameters.weight.dtype", "expected a shape beside it"),
    (nested({"type": "X", "parameters": {"w": {"init": {"uniform": [1]}}}}),
     "$.children.a.parameters.w.init",
     'expected "zeros", "ones", {"uniform": [low, high]}'),
    (nested({"type": "X", "parameters": {"w": {"init": {
        "files": {"file": "a"}}}}}),
     "$.children.a.parameters.w.init.files.file",
     "expected one of path, names, got: 'file'"),
    (nested({"type": "X", "parameters": {"w": {"init": {
        "files": {"path": "a", "names": ["b", 3]}}}}}),
     "$.children.a.parameters.w.init.files.names[1]",
     "expected a string, got: 3"),
    (nested({"type": "X", "parameters": {"w": {"init": {"files": {}}}}}),
     "$.children.a.parameters.w.init.files.path",
     "expected a path of safetensors files, got: ''"),
    ({"type": "Linear", "weights": ""}, "$.weights",
     "expected a path of safetensors files, got: ''"),
    ({"type": "Linear", "weights": ["a", "b"]}, "$.weights",
     "expected a string, got: ['a', 'b']"),
    ({"type": "Block", "graph": []}, "$.graph",
     "expected a list of nodes, got: []"),
    ({"type": "Block", "graph": {"node": []}}, "$.graph",
     "expected a list of nodes, or the JSON form of shardplane.v1.Graph"),
    (with_graph(X, OUT, in_features=3), "$.in_features",
     "expected one of type, children, graph, parameters, training, dtype, "
     "bases in a module with a graph, got: 'in_features'"),
    (with_graph(X), "$.graph[0]",
     "expected an output as the last node, got: 'placeholder'"),
    (with_graph(X, 3), "$.graph[1]",
     "expected an object that describes a node, got: 3"),
    (with_graph({"name": "x"}), "$.graph[0].op",
     "expected one of placeholder, get_attr, call_function, call_module, "
     "output, got: None"),
    (with_graph({"name": "x", "op": "placeholder", "arg": 3}),
     "$.graph[0].arg",
     "expected one of name, op, target, args, kwargs, results, got: 'arg'"),
    (with_graph({"op": "placeholder"}), "$.graph[0].name",
     "expected a name, got: none"),
    (with_graph(X, X), "$.graph[1].name",
     "expected a name of its own, got: 'x'"),
    (with_graph(X, {"op": "output", "args": ["%y"]}), "$.graph[1].args[0]",
     "expected a node before this one (%x), got: %y"),
    (with_graph(X, {"op": "output", "args": ["%x", "%x"]}), "$.graph[1].args",
     "expected one argument: a node, or a list of several, got: 2 arguments"),
    (with_graph(X, {"name": "y", "op": "call_function", "args": ["%x"]}),
     "$.graph[1].target", "expected a target, got: ''"),
    (with_graph(X, {"name": "y", "op": "placeholder", "target": "x"}),
     "$.graph[1].target", "expected none, got: 'x'"),
    (with_graph(X, {"name": "y", "op": "call_function", "target": "aten.x",
                    "kwargs": {"k": ["%z"]}}),
     "$.graph[1].kwargs.k[0]", "expected a node before this one"),
    (with_graph(X, {"name": "y", "op": "call_function", "target": "aten.x",
                    "results": [{"dtype": "float32"}]}),
     "$.graph[1].results[0]", "expected a shape, got: {'dtype': 'float32'}"),
    (nested(with_graph(
        X, {"name": "y", "op": "call_module", "target": "up", "args": ["%x"]},
        {"op": "output", "args": ["%y"]})), "$.children.a.graph[1].target",
     "expected the name of a module below this one, got: 'a.up'"),
    ({"modules": [{"fqm": ""}]}, "$",
     "expected the JSON form of shardplane.v1.Module, got: "),
    ({"modules": [{"graph": {"nodes": [{"op": "OP"}]}}]}, "$",
     "Module.modules[0].graph.nodes[0].op"),
], ids=lambda value: value if isinstance(value, str) and value[0] == "$"
    else "")
def test_errors_name_the_place(source, place, message):
    with pytest.raises(sp.InvalidArgumentError) as raised:
        sp.Description(source)
    assert raised.value.message.startswith(f"{place}: expected ")
    assert message in raised.value.message
    assert raised.value.reason == "INVALID_DESCRIPTION"
    assert raised.value.details["metadata"] == {"field": place}


@pytest.mark.parametrize("text, message", [
    ('{"type": }', "$: expected JSON, got: Expecting value at line 1 column "
     "10"),
    ('[]', "$: expected an object that describes a module, got: list"),
    ('{"type": "A", "children": {"a": {"type": "B"}, "a": {"type": "C"}}}',
     "$: expected each name once in its object, got: 'a' twice"),
    ('{"type": "A", "children": {"a": {}}}', "$.children.a: expected a"),
])
def test_errors_name_the_file(tmp_path, text, message):
    path = tmp_path / "model.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(sp.InvalidArgumentError) as raised:
        sp.Description(path)
    assert raised.value.message.startswith(f"{path}: {message}")
    assert raised.value.details["metadata"]["source"] == str(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        sp.Description(tmp_path / "none.json")
