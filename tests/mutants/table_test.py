"""The table of planted faults fits the sources; its reader is not fooled."""

import pathlib

import pytest

from tests.mutants.table import Mutant, NoMatch, problems, read_table

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = read_table(pathlib.Path(__file__).parent)


@pytest.mark.parametrize("mutant", TABLE, ids=lambda mutant: mutant.name)
def test_mutant_fits_the_sources(mutant):
    assert list(problems([mutant], ROOT)) == []


def test_names_are_unique():
    assert list(problems(TABLE, ROOT)) == []


def test_there_are_enough():
    assert len(TABLE) >= 20


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.py").write_text("x = 1\ny = 1\nz = x\n")
    (tmp_path / "toy" / "test_a.py").write_text(
        "class TestA:\n    def test_x(self):\n        pass\n")
    (tmp_path / "toy" / "a_test.cc").touch()
    (tmp_path / "toy" / "BUILD.bazel").write_text("cc_test()\nformat_test()\n")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "BUILD.bazel").write_text("cc_test()\n")
    return tmp_path


def mutant(**changes):
    return Mutant(**{"name": "m", "breaks": "", "file": "toy/a.py",
                     "old": "x = 1", "new": "x = 2",
                     "tests": ["//toy:a_test"], **changes})


@pytest.mark.parametrize("changes", [
    {}, {"tests": ["//toy:format_test"]}, {"tests": ["toy/test_a.py"]},
    {"tests": ["toy/test_a.py::TestA::test_x"]},
    {"tests": ["toy/test_a.py::TestA::test_x[1-a::b]"]}])
def test_a_good_mutant_has_no_problem(tree, changes):
    assert list(problems([mutant(**changes)], tree)) == []


@pytest.mark.parametrize("changes, problem", [
    ({"file": "toy/b.py"}, "no such file"),
    ({"old": "x = 3"}, "got: 0 times"),
    ({"old": "= 1"}, "got: 2 times"),
    ({"new": "x = 1"}, "changes nothing"),
    ({"tests": []}, "no test is named"),
    ({"tests": ["//toy:a"]}, "no such test: //toy:a"),
    ({"tests": ["//toys:a_test"]}, "no such test"),
    ({"tests": ["//bare:format_test"]}, "no such test"),
    ({"tests": ["toy/test_a.py::TestA::test"]}, "no such test"),
    ({"tests": ["toy/test_b.py"]}, "no such test")])
def test_a_bad_mutant_is_told_from_it(tree, changes, problem):
    (said,) = problems([mutant(**changes)], tree)
    assert problem in said


def test_two_of_one_name(tree):
    (said,) = problems([mutant(), mutant(old="z = x", new="z = 2")], tree)
    assert said == "m: is there 2 times"


def test_planted_text():
    assert mutant().planted("x = 1\ny = 1\n") == "x = 2\ny = 1\n"
    with pytest.raises(NoMatch):
        mutant().planted("x = 1\nx = 1\n")


def test_tables_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.toml").write_text(
            f"[[mutant]]\nname = '{name}'\nbreaks = 'it'\nfile = 'f'\n"
            "tests = ['//t:t']\nold = '''\n o'''\nnew = 'n'\n")
    a, b = read_table(tmp_path)
    assert (a.name, b.name) == ("a", "b")
    assert a.old == " o" and a.tests == ("//t:t",) and not a.may_hang
    assert a.mentions("//t") and not a.mentions("b")
