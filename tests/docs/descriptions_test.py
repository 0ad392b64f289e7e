"""Runs what docs/descriptions.md shows, and holds its table to the core."""

import json
import pathlib
import re

import pytest

import shardplane as sp
from tests.docs.pages import blocks, output_of, page

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = page("descriptions.md")
EXAMPLES = sorted((ROOT / "docs" / "examples" / "descriptions").glob("*.json"))

# Of every type.
COMMON = ["dtype", "inplace"]


@pytest.fixture(scope="module")
def planner():
    """A coordinator without workers: planning needs none."""
    with sp.LocalCluster(workers=0) as cluster:
        yield cluster


def plan(planner, source):
    return planner.parallelize_module(source, {"tp": 2}, {},
                                      validate_only=True)


def test_python_snippets_run_without_torch(tmp_path):
    printed = output_of("import sys\nsys.modules['torch'] = None\n" +
                        "\n".join(blocks(PAGE)), tmp_path)
    assert "ColwiseParallel" in printed
    assert "(32, 10) float32" in printed


@pytest.mark.parametrize("index", range(len(blocks(PAGE, "json"))))
def test_json_is_a_description(planner, index):
    report = plan(planner, json.loads(blocks(PAGE, "json")[index]))
    assert len(report.placements) > 0 and not report.warnings


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_descriptions(planner, path):
    assert len(plan(planner, path).placements) > 0


def rows():
    """Type, its attributes, its parameters, as the table has them."""
    (table,) = re.findall(r"^## The known types\n\n.*?\n\n", PAGE,
                          re.MULTILINE | re.DOTALL)
    for line in re.findall(r"^\| `.*", table, re.MULTILINE):
        types, attributes, parameters = (
            re.findall(r"`(\w+)`", cell) for cell in line.split("|")[1:-1])
        for name in types:
            yield name, attributes, parameters


TYPES = {name: (attributes, parameters)
         for name, attributes, parameters in rows()}


def test_the_table_is_found():
    assert {"Linear", "Hardswish", "Unflatten", "ModuleDict"} <= set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_the_table_has_the_cores_attributes(planner, name):
    with pytest.raises(sp.InvalidArgumentError) as raised:
        plan(planner, {"type": name, "no_such_thing": 1})
    (listed,) = re.findall(r"its attributes are (.*); got: no_such_thing=1",
                           raised.value.message)
    assert listed.split(", ") == TYPES[name][0] + COMMON


SIZES = {"in_features": 4, "out_features": 2, "num_embeddings": 8,
         "embedding_dim": 4, "normalized_shape": [4]}


@pytest.mark.parametrize("name", TYPES)
def test_the_table_has_the_cores_parameters(planner, name):
    attributes, parameters = TYPES[name]
    sizes = {key: SIZES[key] for key in attributes if key in SIZES}
    report = plan(planner, {"type": name, **sizes})
    assert list(report.placements) == parameters
