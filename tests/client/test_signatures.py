"""What a module may take, give and do: each beside plain PyTorch in float64."""

import collections

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import shardplane as sp
from tests.models import MLPModule, rand
from tests.parity import assert_close, check_gradients, parallelized

MESH = {"tp": 2}
PLAN = {"mlp.net1": ColwiseParallel(), "mlp.net2": RowwiseParallel()}
CUTS = {"mlp.net1.weight": 0, "mlp.net1.bias": 0, "mlp.net2.weight": 1}
Pair = collections.namedtuple("Pair", "first second")


class Around(nn.Module):
    """`forward` is a function of (its MLP, ...)."""

    def __init__(self, function):
        super().__init__()
        self.mlp = MLPModule()
        self.function = function
        self.register_buffer("table", torch.arange(
            10, dtype=torch.float64))

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def check(cluster, function, *calls, first=None):
    """Each call, (args, kwargs), forward and, as the sum of all its tensors,
    backward."""
    module = Around(function)
    args, kwargs = first or calls[0]
    with parallelized(cluster, module, MESH, PLAN, cuts=CUTS,
                      example_inputs=args, example_kwargs=kwargs) as case:
        case.check_start()
        for args, kwargs in calls:
            expected = case.reference(*args, **kwargs)
            actual = case.m(*args, **kwargs)
            assert_same(actual, expected)
            case.reference.zero_grad()
            loss = total(expected)
            loss.backward()
            assert_close(case.m.forward_backward(*args, kwargs=kwargs,
                                                 loss=total), loss, "loss")
            check_gradients(case.m, case.reference)
            assert case.m.comm_counts()["forward"].get("all_gather", 0) == 0


def leaves(value):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value)
            if isinstance(leaf, torch.Tensor)]


def total(value):
    return sum(leaf.sum() for leaf in leaves(value)
               if leaf.is_floating_point())


def assert_same(actual, expected):
    assert type(actual) is type(expected)
    actual, expected = (torch.utils._pytree.tree_flatten(value)
                        for value in (actual, expected))
    assert actual[1] == expected[1]
    for a, b in zip(actual[0], expected[0], strict=True):
        if isinstance(b, torch.Tensor):
            assert_close(a, b)
        else:
            assert a == b and type(a) is type(b)


def call(*args, **kwargs):
    return args, kwargs


X, Y = rand(6, 10), rand(6, 10, seed=1)


def test_tuples_dicts_and_named_tuples_go_in_and_come_out(cluster):
    def function(self, pair, extra):
        y = self.mlp(pair.first) + pair.second
        return {"sum": y, "pair": Pair(y * 2, extra["shift"])}

    check(cluster, function, call(Pair(X, Y), {"shift": Y}),
          call(Pair(Y, X), {"shift": X}))


def test_keywords_in_any_order(cluster):
    def function(self, x, *, y, scale=1.0):
        return self.mlp(x) * scale - y

    check(cluster, function, call(x=X, y=Y), call(y=Y, x=X),
          call(X, scale=3.0, y=Y))


@pytest.mark.parametrize("value", [3, 0.5, True, "twice", None],
                         ids=["int", "float", "bool", "str", "none"])
def test_arguments_that_are_no_tensors_are_part_of_the_signature(
        cluster, value):
    def function(self, x, how):
        y = self.mlp(x)
        if how is None or how == "twice":
            return y + y
        return y * how

    check(cluster, function, call(X, value), call(X, 2), call(X, value))


def test_a_list_of_tensors(cluster):
    def function(self, tensors):
        return [self.mlp(tensor) for tensor in tensors]

    check(cluster, function, call([X, Y]), call([X]), call([X, Y, X + Y]))


def test_a_module_called_twice_and_with_other_shapes(cluster):
    def function(self, x):
        return self.mlp(self.mlp(x)).sum(0), self.mlp(x[:3])

    check(cluster, function, call(X))


def test_one_input_twice_and_one_unused(cluster):
    def function(self, x, y, unused):
        return self.mlp(x) + y

    check(cluster, function, call(X, X, Y))


def test_an_output_that_is_an_input_or_a_buffer(cluster):
    def function(self, x):
        return self.mlp(x), x, self.table

    check(cluster, function, call(X))


def test_without_gradients_in_between(cluster):
    def function(self, x):
        y = self.mlp(x)
        with torch.no_grad():
            scale = y.abs().mean() + self.table.sum()
        return y / scale

    check(cluster, function, call(X))


def test_a_module_with_and_without_gradients_is_refused(cluster):
    def function(self, x):
        with torch.no_grad():
            scale = self.mlp(x).abs().mean()
        return self.mlp(x) / scale

    with pytest.raises(sp.InvalidArgumentError, match=r"detach\(\)"):
        cluster.parallelize_module(Around(function), MESH, PLAN,
                                   example_inputs=(X,))


def test_detached(cluster):
    def function(self, x):
        y = self.mlp(x)
        return y * y.detach()

    check(cluster, function, call(X))


def test_constants_of_the_code(cluster):
    def function(self, x):
        weights = torch.tensor([0.5, 2.0], dtype=torch.float64)
        return self.mlp(x) * weights.repeat(5) + torch.ones(
            10, dtype=torch.float64)

    check(cluster, function, call(X))


def test_what_is_written_in_place(cluster):
    def function(self, x):
        y = self.mlp(x)
        y = y.clone()
        y += 1
        y.mul_(2.0)
        y[:, 0] = 3.0
        y[1:3].add_(1.0)
        z = y.view(3, 20)
        z[:, 5:].neg_()
        return y, z

    check(cluster, function, call(X))


def test_what_is_picked_split_and_joined(cluster):
    def function(self, x):
        a, b, c = self.mlp(x).split(2)
        low, high = self.mlp(x).chunk(2, dim=-1)
        return torch.cat([a, c, b]), torch.stack([low, high])[0]

    check(cluster, function, call(X))


def test_masks_and_indices(cluster):
    def function(self, x, keep, index):
        y = self.mlp(x)
        y = torch.where(keep, y, torch.zeros_like(y))
        y = y.masked_fill(~keep, -1.0)
        return y[index], y.gather(1, index[:6, None].expand(6, 2))

    check(cluster, function, call(
        X, Y > 0, torch.tensor([5, 0, 0, 2, 1, 4])))


@pytest.mark.parametrize("shape", [(1, 10), (4, 6, 10), (2, 1, 3, 10)],
                         ids=str)
def test_other_shapes_are_other_programs(cluster, shape):
    def function(self, x):
        return self.mlp(x)

    check(cluster, function, call(X), call(rand(*shape)), call(X))


def test_a_forward_without_tensors_is_refused(cluster):
    module = Around(lambda self, x: 3)
    with pytest.raises(sp.ShardplaneError, match="output"):
        with cluster.parallelize_module(
                module, MESH, PLAN, example_inputs=(X,)) as m:
            m.forward_backward(X, loss="sum")


def test_an_input_that_is_written_to_is_refused(cluster):
    module = Around(lambda self, x: self.mlp(x.add_(1)))
    with pytest.raises(sp.UnimplementedError,
                       match="a forward that changes its input"):
        cluster.parallelize_module(module, MESH, PLAN,
                                   example_inputs=(X.clone(),))
