"""A failure shrinks to a small case: with faults that are planted here."""

import pytest

from tests.differential import check as checks
from tests.differential.case import Case
from tests.differential.check import Failure, check
from tests.differential.generate import random_case
from tests.differential.run import Workers, explained, is_one
from tests.differential.shrink import as_test, mapped, shrink
from tests.differential.styles import Style
from tests.differential.traffic import Bound


def has_block(case, kind):
    return any(kind == found for found, _ in case.blocks.values())


def styles_of(case):
    styles = []
    mapped(case.plan, styles.append)
    return styles


def seed_with(wanted):
    return next(seed for seed in range(1000) if wanted(random_case(seed)))


def test_a_planted_fault_shrinks_to_its_cause():
    """A comparator that takes amiss any Softmax with a rowwise style on two
    ranks or more."""
    def fails(case):
        wrong = is_one(case) and has_block(case, "Softmax") and any(
            style.kind == "RowwiseParallel" for style in styles_of(case))
        return "planted" if wrong and max(case.mesh.values()) > 1 else None

    seed = seed_with(lambda case: fails(case) and len(case.blocks) > 2
                     and len(case.mesh) > 1)
    small = shrink(random_case(seed), fails)
    assert small.mesh == {"tp": 2}
    assert list(small.blocks.values()) == [
        ("Softmax", {"dim": 2, "log": False})]
    assert [style.kind for style in styles_of(small)] == ["RowwiseParallel"]
    assert styles_of(small)[0].options == ()
    assert (small.batch, small.sequence, small.width) == (1, 1, 1)
    assert (small.loss, small.optimizer) == ("mean", "sgd") or (
        small.loss == "sum")
    assert not (small.frozen or small.tied or small.head or small.vocabulary)


def test_another_failure_is_not_followed():
    """Where a smaller case fails otherwise, it is not the one looked for."""
    def fails(case):
        if len(case.blocks) > 1:
            return "the first"
        return "another"

    seed = seed_with(lambda case: len(case.blocks) == 4)
    assert len(shrink(random_case(seed), fails).blocks) == 2


def test_it_ends_when_the_time_is_over():
    seed = seed_with(lambda case: len(case.blocks) == 4)
    times = iter(range(1000))
    small = shrink(random_case(seed), lambda case: "planted", 3,
                   lambda: next(times))
    assert len(small.blocks) == 1  # three steps and no more


def test_the_source_of_a_case_is_that_case():
    for seed in range(60):
        case = random_case(seed)
        found = {"Case": Case, "Style": Style}
        assert eval(repr(case), found) == case


SMALL = Case(
    mesh={"dp": 2, "tp": 2},
    blocks={"b0": ("Residual", {"hidden": 64, "act": "tanh", "bias": True}),
            "b1": ("Softmax", {"dim": 1, "log": False})},
    plan={"blocks.b0.up": Style("ColwiseParallel"),
          "blocks.b0.down": Style("RowwiseParallel"),
          "blocks.b1.lin": Style("ColwiseParallel")},
    batch=3, loss="square", optimizer="adam", input_gradient=True)


def test_what_a_failing_test_says(cluster, monkeypatch):
    """On workers, from the failure to source that runs."""
    true_assert_close = checks.assert_close

    def planted(actual, expected, what=""):
        true_assert_close(actual, expected, what)
        assert what != "input gradient", "planted"

    check(cluster, SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(checks, "assert_close", planted)
        with pytest.raises(Failure) as raised, Workers() as workers:
            try:
                check(cluster, SMALL)
            except Failure as failure:
                text = explained(failure, workers)
                raise
    assert raised.value.kind == "input gradient: AssertionError"
    assert "seed 0 failed: input gradient" in text
    assert "planted" in text
    assert "aten.softmax.int" in text  # the program
    assert "-m tests.differential seed 0" in text
    source = text[text.index("from tests.differential.case"):]
    assert "mesh={'tp': 1}" in source and "plan={}" in source
    assert "blocks={}" in source
    namespace = {}
    exec(source, namespace)
    namespace["test_shrunk_from_seed_0"](cluster)  # it is right, in truth


def test_source_of_a_test():
    assert as_test(SMALL).endswith(repr(SMALL).replace("\n", "\n    ") + ")\n")


@pytest.mark.parametrize("name, value, kind", [
    ("expected_cuts", lambda *_: {}, "placements"),
    ("placements_text", lambda cut, mesh: "[R, S(0)]", "placements"),
    ("piece", lambda value, *_: value.detach(), "shards"),
    ("bound", lambda case: Bound(0, 0), "bytes"),
    ("plan_dim", lambda *_: "dp", "collectives"),
    ("check_gradients", lambda m, reference: 1 / 0, "gradients"),
])
def test_each_check_can_fail(cluster, monkeypatch, name, value, kind):
    monkeypatch.setattr(checks, name, value)
    with pytest.raises(Failure) as raised:
        check(cluster, SMALL)
    assert raised.value.kind.startswith(kind + ":")
