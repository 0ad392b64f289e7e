"""Runs both scripts of docs/migration.md side by side, and holds its table to
their lines."""

import re

import pytest

from tests.docs.pages import output_of, page

PAGE = page("migration.md")
SCRIPTS = dict(re.findall(r"^```python title=(\w+)\n(.*?)^```", PAGE,
                          re.MULTILINE | re.DOTALL))
NUMBER = r"\d+\.\d+"


def run(name, tmp_path, *launcher):
    return output_of(SCRIPTS[name], tmp_path, *launcher,
                     timeout=180).splitlines()


def test_both_scripts_print_the_same_numbers(tmp_path):
    theirs = run("pytorch", tmp_path, "-m", "torch.distributed.run",
                 "--standalone", "--nproc-per-node=2")
    ours = run("shardplane", tmp_path)
    assert len(theirs) == 6
    assert [re.sub(NUMBER, "", line) for line in ours] == [
        re.sub(NUMBER, "", line) for line in theirs]
    numbers = [[float(number) for number in re.findall(
        NUMBER, "\n".join(lines))] for lines in (ours, theirs)]
    assert numbers[0] == pytest.approx(numbers[1], abs=2e-5)
    assert len(set(numbers[0])) == 6


def rows():
    table = PAGE.split("## Line by line\n")[1].split("\n## ")[0]
    for line in re.findall(r"^\| .*\|$", table, re.MULTILINE)[1:]:
        left, right, _ = re.fullmatch(
            r"\| (`.*?` |)\| (`.*?` |)\| (.*)\|", line).groups()
        yield left.strip(" `"), right.strip(" `")


@pytest.mark.parametrize("column, name", list(enumerate(SCRIPTS)))
def test_the_table_has_each_line_in_order(column, name):
    told = [row[column] for row in rows() if row[column]]
    lines = [line.strip() for line in SCRIPTS[name].splitlines()]
    if name == "pytorch":
        # Said once, shown twice.
        lines.reverse()
        lines.remove("if dist.get_rank() == 0:")
        lines.reverse()
    assert told == lines


def test_names_of_the_other_table_exist(tmp_path):
    output_of(
        "import shardplane as sp\n"
        "sp.loss_parallel, sp.LocalCluster.parallelize_module\n"
        "from shardplane.handle import DeployedModule as M\n"
        "M.comm_counts, M.gradient_norm, M.gradients, M.load_state_dict\n"
        "import inspect, shardplane.deploy as d\n"
        "assert {'data_parallel', 'recompute', 'src_data_rank'} <= set(\n"
        "    inspect.signature(d.deploy).parameters)\n", tmp_path, timeout=60)
