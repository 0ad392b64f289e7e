"""Ids that are none of those there are: the step fails, on all ranks for the
same reason, and the gang goes on. On a GPU PyTorch's own kernels end the
process's use of it."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, PrepareModuleInput

import shardplane as sp
from tests.models import rand
from tests.parity import assert_bytes
from tests.transports import groups

ROWS, WIDTH = 8, 5


class Picks(nn.Module):
    def __init__(self, pick):
        super().__init__()
        self.pick = pick
        self.out = nn.Linear(WIDTH, 4, bias=False, dtype=torch.float64)

    def forward(self, x, ids):
        return self.out(self.pick(x, ids))


def ids_of(*shape):
    return (torch.arange(torch.Size(shape).numel()) * 3 % WIDTH).view(shape)


# How, whose ids are of the last dim, and whether -1 is one.
PICKS = {
    "gather": (lambda x, ids: x.gather(1, ids), False),
    "index": (lambda x, ids: x[torch.arange(ROWS)[:, None], ids], True),
    "scatter_add": (lambda x, ids: x.scatter_add(1, ids, x * 2), False),
    "one_hot": (lambda x, ids: x + nn.functional.one_hot(ids, WIDTH).sum(1),
                False),
}


def formed(cluster):
    """How many groups the workers have joined."""
    workers = getattr(cluster, "first", cluster).processes[1:]
    return [groups(worker) for worker in workers]


@pytest.mark.parametrize("layout", [Shard(0), Replicate()], ids=str)
@pytest.mark.parametrize("pick, bad", [
    (pick, bad) for pick, (_, from_end) in PICKS.items()
    for bad in (WIDTH, -1, -WIDTH - 1, 1 << 33) if bad != -1 or not from_end])
def test_an_id_out_of_range_fails_the_step_alone(cluster, pick, bad, layout):
    torch.manual_seed(1)
    function, _ = PICKS[pick]
    x, ids = rand(ROWS, WIDTH), ids_of(ROWS, WIDTH)
    wrong = ids.clone()
    wrong[-1, 2] = bad  # the last rank's, where rows are cut
    plan = {"": PrepareModuleInput(input_layouts=(layout, layout),
                                   desired_input_layouts=(layout, layout)),
            "out": ColwiseParallel(input_layouts=layout)}
    module = Picks(function)
    with cluster.parallelize_module(module, {"tp": 4}, plan,
                                    example_inputs=(x, ids), loss="sum") as m:
        assert [len(shard) for shard in m.shards("out.weight")] == [1] * 4
        expected = m.forward_backward(x, ids)
        torch.testing.assert_close(expected, module(x, ids).sum())
        before = formed(cluster)
        with pytest.raises(sp.InvalidArgumentError) as raised:
            m.step(x, wrong, optimizer=sp.SGD(lr=0.1))
        assert raised.value.reason == "INDEX_OUT_OF_RANGE"
        assert f" {bad} is out of bounds" in raised.value.message
        assert torch.equal(m.forward_backward(x, ids), expected)
        assert formed(cluster) == before
        # At most the rows of x and what comes of them, gathered.
        assert_bytes(m, forward=3 * ROWS * WIDTH * 8 * 4)


class Fills(nn.Module):
    """Places in x, as images take in a text."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(WIDTH, 4, bias=False, dtype=torch.float64)

    def forward(self, x, mask, source):
        return self.out(x.masked_scatter(mask, source))


@pytest.mark.filterwarnings("ignore:.*masked_scatter.*no sharding rule")
@pytest.mark.parametrize("layout", [Shard(0), Replicate()], ids=str)
def test_more_places_than_there_is_to_fill_them(cluster, layout):
    torch.manual_seed(1)
    x, source = rand(ROWS, WIDTH), rand(2, WIDTH)
    mask = torch.zeros(ROWS, 1, dtype=torch.bool)
    mask[[0, -1]] = True
    wrong = mask.clone()
    wrong[3] = True
    whole = Replicate()
    plan = {"": PrepareModuleInput(
                input_layouts=(layout, layout, whole),
                desired_input_layouts=(layout, layout, whole)),
            "out": ColwiseParallel()}
    module = Fills()
    with cluster.parallelize_module(
            module, {"tp": 4}, plan, example_inputs=(x, mask, source),
            loss="sum") as m:
        assert [len(shard) for shard in m.shards("out.weight")] == [1] * 4
        expected = m.forward_backward(x, mask, source)
        torch.testing.assert_close(expected, module(x, mask, source).sum())
        before = formed(cluster)
        with pytest.raises(sp.InvalidArgumentError) as raised:
            m.step(x, wrong, source, optimizer=sp.SGD(lr=0.1))
        assert raised.value.reason == "INDEX_OUT_OF_RANGE"
        assert ("Number of masked elements 15 is out of bounds: expected one "
                "in [0, 11)") in raised.value.message
        assert torch.equal(m.forward_backward(x, mask, source), expected)
        assert formed(cluster) == before
        # x and the mask, gathered.
        assert_bytes(m, forward=ROWS * (WIDTH * 8 + 1) * 4)
