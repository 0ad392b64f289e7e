"""Random modules under random plans on random meshes, beside PyTorch.

    ./shardplane test --only=test_differential           these seeds
    ./shardplane test --long=MINUTES                     new ones as well
    ./shardplane python -m tests.differential seed N     one, and shrunk
    ./shardplane python -m tests.differential summary    what has been tried
"""

import collections

import pytest

from tests.differential.blocks import BLOCKS
from tests.differential.case import LOSSES, OPTIMIZERS
from tests.differential.generate import MESHES, random_case
from tests.differential.results import mesh_text, record
from tests.differential.run import Workers, explained, failure_of

SEEDS = range(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_same_as_pytorch(cluster, seed):
    failure = failure_of(cluster, random_case(seed))
    if failure:
        with Workers() as workers:
            pytest.fail(explained(failure, workers), pytrace=False)


def test_these_seeds_have_all_there_is():
    seen = collections.defaultdict(set)
    for seed in SEEDS:
        for key, value in record(random_case(seed), "passed", 0).items():
            seen[key].update(value if isinstance(value, list) else [value])
    assert seen["blocks"] == set(BLOCKS)
    assert seen["mesh"] == {mesh_text(mesh) for mesh in MESHES}
    assert seen["styles"] == {
        "ColwiseParallel", "RowwiseParallel", "SequenceParallel",
        "PrepareModuleInput", "PrepareModuleOutput",
        "PrepareModuleInputOutput"}
    assert seen["loss"] == set(LOSSES)
    assert seen["optimizer"] == set(OPTIMIZERS)
    assert seen["frozen"] == seen["tied"] == {True, False}


def test_a_seed_is_one_case():
    for seed in (3, 17):
        assert repr(random_case(seed)) == repr(random_case(seed))
    assert repr(random_case(3)) != repr(random_case(4))
