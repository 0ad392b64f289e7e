"""Reports and explanations as people read them."""

import json
from html.parser import HTMLParser

import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from shardplane.explanation import Explanation
from shardplane.report import Report
from shardplane.tables import Row, fold, ranges
from shardplane.v1 import types_pb2 as pb
from tests.models import MLPModule, MLPStacked

PAIR = {"net1": ColwiseParallel(), "net2": RowwiseParallel()}


def report_of(text):
    from google.protobuf import text_format
    return Report(text_format.Parse(text, pb.Report()))


def layers_report(count):
    """`count` layers of two linears each, four ranks."""
    proto = pb.Report()
    for i in range(count):
        for name, style in (("up", "ColwiseParallel"),
                            ("down", "RowwiseParallel")):
            line = proto.assignments.add(
                fqn=f"layers.{i}.mlp.{name}", style=style,
                pattern=f"layers.{i}.mlp.{name}", input_layouts="R")
            line.parameters.add(name="weight", text="[S(0)]")
        proto.module_collectives.add(
            fqn=f"layers.{i}.mlp.down", phase="forward", kind="all_reduce",
            mesh_dim="tp", count=1, bytes=1024, why="sum of a rowwise linear")
        proto.module_collectives.add(
            fqn=f"layers.{i}.norm", phase="backward", kind="all_reduce",
            mesh_dim="tp", count=1, bytes=2048,
            why=f"gradient of layers.{i}.norm.weight")
    for rank in range(4):
        line = proto.memory.add(rank=rank, parameter_bytes=100,
                                gradient_bytes=50 if rank < 3 else 40)
        line.optimizer_state.add(optimizer="Adam", bytes=100 - rank)
        proto.flops.add(rank=rank, forward=10, backward=20)
    return Report(proto)


# -------------------------------------------------------------------- folding


def test_ranges():
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert ranges([3]) == "3"


def test_equal_layers_are_folded():
    rows = fold([Row(f"layers.{i}.q", ("col",), (1,)) for i in range(126)])
    assert [(row.name(), row.cells, row.sums) for row in rows] == [
        ("layers.0-125.q ×126", ("col",), (126,))]


def test_what_differs_stays_apart():
    rows = fold([Row("layers.0.q", ("col",)), Row("layers.1.q", ("row",)),
                 Row("layers.2.q", ("col",)), Row("head", ("col",))])
    assert [row.name() for row in rows] == [
        "layers.0,2.q ×2", "layers.1.q", "head"]


def test_numbers_within_numbers():
    rows = fold([Row(f"layers.{i}.experts.{k}.up", ("col",))
                 for i in range(3) for k in range(8)])
    assert [row.name() for row in rows] == [
        "layers.0-2.experts.0-7.up ×24"]


def test_cells_that_name_the_layer_are_folded_with_it():
    rows = fold([Row(f"layers.{i}.norm", (f"of layers.{i}.norm.weight",))
                 for i in range(12)])
    assert rows[0].cells == ("of layers.0-11.norm.weight",)
    # A number alone is no name.
    rows = fold([Row(f"{i}.up", ("weight [S(0)]", f"of {i}.up"))
                 for i in range(3)])
    assert [(row.name(), row.cells) for row in rows] == [
        ("0-2.up ×3", ("weight [S(0)]", "of 0-2.up"))]
    # layers.1 is not a part of layers.10.
    rows = fold([Row("layers.1.n", ("of layers.10.n",)),
                 Row("layers.2.n", ("of layers.20.n",))])
    assert len(rows) == 2


def test_a_large_model_stays_readable():
    report = layers_report(126)
    text = str(report)
    assert len(text.splitlines()) < 40
    assert "layers.0-125.mlp.up ×126" in text
    assert "gradient of layers.0-125.norm.weight" in text
    assert "126.0 KiB" in text  # of 126 all-reduces of 1 KiB
    everything = report.table(everything=True)
    assert "layers.77.mlp.down" in everything
    assert len(everything.splitlines()) > 4 * 126


def test_equal_ranks_are_folded():
    text = str(layers_report(1))
    assert any(line.startswith("0-2 ") for line in text.splitlines())
    assert any(line.startswith("0-3 ") for line in text.splitlines())


# --------------------------------------------------------------------- fields


def test_layers_count_their_children():
    layers = layers_report(3).layers()
    assert layers["layers.1.mlp.down"] == {"forward": (1, 1024)}
    assert layers["layers.1"] == {"forward": (1, 1024), "backward": (1, 2048)}
    assert layers["layers"] == layers[""] == {
        "forward": (3, 3072), "backward": (3, 6144)}
    lines = layers_report(3).layer_table().lines()
    assert any(line.startswith("layers.0-2.mlp ×3") for line in lines)


def test_optimizer_state_by_kind():
    report = layers_report(1)
    assert report.optimizer_bytes() == {"Adam": [100, 99, 98, 97]}
    assert report.optimizer_bytes("Adam") == [100, 99, 98, 97]
    assert report.optimizer_bytes(sp.Adam(lr=0.1)) == [100, 99, 98, 97]
    assert "Adam" in str(report)


def test_json_is_the_proto():
    data = json.loads(layers_report(1).to_json())
    assert data["flops"][3] == {"rank": 3, "forward": "10", "backward": "20"}
    assert data["module_collectives"][0]["why"] == "sum of a rowwise linear"


# ----------------------------------------------------------------------- html


class Checked(HTMLParser):
    """Fails unless tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)
        assert not any(name in ("src", "href", "onclick") for name, _ in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(text):
    page = Checked()
    page.feed(text)
    assert not page.open
    return page


def test_html_stands_alone_and_can_be_closed():
    page = parsed(layers_report(126)._repr_html_())
    assert {"details", "summary", "table"} <= page.seen
    assert not {"script", "link", "img"} & page.seen
    assert any("layers.0-125.mlp.up ×126" in text for text in page.text)


def test_html_has_no_colours_of_its_own():
    style = layers_report(1)._repr_html_().split("</style>")[0]
    assert "#" not in style and "white" not in style and "black" not in style


def test_html_escapes_names():
    report = report_of("""
        assignments { fqn: "<script>" style: "<b>" pattern: "&*" }
        diagnostics { severity: SEVERITY_WARNING message: "<i>" }""")
    text = report._repr_html_()
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "<b>" not in text and "&amp;*" in text and "&lt;i&gt;" in text


def test_html_of_an_explanation_escapes_too():
    text = Explanation(pb.Explanation(
        fqn="<x>", kind=pb.Explanation.KIND_MODULE,
        module_type="<y>"))._repr_html_()
    parsed(text)
    assert "<x>" not in text and "&lt;x&gt;" in text and "&lt;y&gt;" in text


# ------------------------------------------------------------------- explain


def test_a_dry_run_explains_without_workers(cluster):
    report = cluster.parallelize_module(
        MLPModule(), {"tp": 64}, PAIR, validate_only=True,
        example_inputs=(torch.zeros(8, 10, dtype=torch.float64),),
        loss="sum")
    why = report.explain("net2.weight")
    assert why.kind == "parameter" and why.fqn == "net2.weight"
    assert [m.pattern for m in why.matches] == ["net2"]
    assert len(why.bytes) == 64
    assert why.bytes[:3] == [80, 80, 80] and why.bytes[63] == 0


def test_a_deployment_explains(cluster):
    x = torch.zeros(8, 10, dtype=torch.float64, requires_grad=True)
    with cluster.parallelize_module(
            MLPModule(), {"tp": 2}, PAIR, example_inputs=(x,),
            loss="sum") as m:
        why = m.explain("net2")
        assert why.kind == "module"
        assert why.module_type.endswith("Linear")
        (match,) = why.matches
        assert list(match.contributed) == [
            "weight [S(1)]", "bias [R]", "input S(-1)", "output P(sum) -> R"]
        (sum_,) = why.collectives
        assert (sum_.phase, sum_.kind, sum_.bytes, sum_.why) == (
            "forward", "all_reduce", 8 * 10 * 8, "sum of a rowwise linear")
        weight = why.tensors[0]
        assert [list(p.offsets) for p in weight.parts] == [[0, 0], [0, 8]]
        assert why.bytes == [8 * 10 * 8 + 10 * 8] * 2
        text = str(why)
        assert "net2: module torch.nn.modules.linear.Linear" in text
        assert "[0:10, 8:16]" in text and "applied" in text
        assert json.loads(why.to_json())["kind"] == "KIND_MODULE"
        parsed(why._repr_html_())
        assert m.report.explain("net1").collectives[0].why == (
            "gradient of the input of net1")


def test_programs_that_came_later_are_explained(cluster):
    x = torch.zeros(8, 10, dtype=torch.float64)
    with cluster.parallelize_module(MLPModule(), {"tp": 2}, PAIR) as m:
        assert not m.explain("net2").collectives
        m(x)
        m(x[:4])
        sizes = sorted(c.bytes for c in m.explain("net2").collectives)
        assert sizes == [4 * 10 * 8, 8 * 10 * 8]


def test_an_unknown_name(cluster):
    with cluster.parallelize_module(MLPModule(), {"tp": 2}, PAIR) as m:
        with pytest.raises(sp.NotFoundError, match='did you mean "net1"') as e:
            m.explain("net7")
        assert e.value.details["metadata"]["suggestion"] == "net1"


def test_a_report_made_by_hand_explains_nothing():
    with pytest.raises(ValueError, match="explain"):
        layers_report(1).explain("layers.0")


def test_the_report_of_a_stack_is_folded(cluster):
    report = cluster.parallelize_module(
        MLPStacked(n_layers=6), {"tp": 2},
        {"layers.*.net1": ColwiseParallel(),
         "layers.*.net2": RowwiseParallel()}, validate_only=True,
        example_inputs=(torch.zeros(8, 10, dtype=torch.float64),),
        loss="sum")
    text = str(report)
    assert "layers.0-5.net1 ×6" in text
    assert "layers.0-5.net2 ×6" in text and "sum of a rowwise linear" in text
    assert report.layers()["layers.3"]["forward"] == (1, 8 * 10 * 8)
    total = sum(row.bytes for row in report.module_collectives)
    assert total == sum(sum(kinds.values()) for phase, kinds in
                        report.collective_bytes.items()
                        if phase in ("forward", "backward"))
