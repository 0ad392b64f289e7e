"""Optimizers as messages: keywords as in torch, groups in order."""

import inspect

import pytest
import torch

import shardplane as sp
from shardplane.optimizers import to_proto_optimizer
from shardplane.v1 import coordinator_pb2 as pb

KINDS = ["SGD", "Adam", "AdamW"]


@pytest.mark.parametrize("name", KINDS)
def test_keywords_and_defaults_are_torchs(name):
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    ours = inspect.signature(getattr(sp, name)).parameters
    for keyword in set(ours) - {"groups"}:
        assert ours[keyword].default == theirs[keyword].default, keyword


def test_to_proto():
    assert to_proto_optimizer(sp.SGD(lr=0.5, momentum=0.25)) == pb.Optimizer(
        sgd=pb.SgdOptions(lr=0.5, momentum=0.25))
    assert to_proto_optimizer(sp.Adam(betas=(0.5, 0.25), amsgrad=True)) == (
        pb.Optimizer(adam=pb.AdamOptions(
            lr=1e-3, beta1=0.5, beta2=0.25, eps=1e-8, weight_decay=0,
            amsgrad=True)))
    assert to_proto_optimizer(sp.AdamW()).adamw.weight_decay == 0.01


@pytest.mark.parametrize("groups", [
    {("*.bias", "norm.*"): {"weight_decay": 0.0}, "head.*": {"lr": 0.5}},
    [(["*.bias", "norm.*"], {"weight_decay": 0.0}),
     ("head.*", [("lr", 0.5)])],
], ids=["dict", "pairs"])
def test_groups_inherit_what_they_do_not_name(groups):
    message = to_proto_optimizer(sp.AdamW(lr=0.25, amsgrad=True,
                                          groups=groups))
    first, second = message.groups
    assert list(first.patterns) == ["*.bias", "norm.*"]
    assert (first.adamw.lr, first.adamw.weight_decay) == (0.25, 0.0)
    assert list(second.patterns) == ["head.*"]
    assert (second.adamw.lr, second.adamw.weight_decay) == (0.5, 0.01)
    assert second.adamw.amsgrad


@pytest.mark.parametrize("make, match", [
    (lambda: sp.SGD(betas=(0.9, 0.99)), "betas"),
    (lambda: sp.Adam(lerning_rate=1), "lerning_rate"),
    (lambda: sp.Adam(groups={"*": {"momentum": 1}}), "got: 'momentum'"),
    (lambda: sp.Adam(groups={"*": {"groups": ()}}), "got: 'groups'"),
    (lambda: sp.Adam(groups={3: {}}), "got: 3"),
    (lambda: sp.Adam(groups={("a", 3): {}}), "got: 3"),
    (lambda: sp.Adam(groups=["a"]), "a dict of keywords"),
    (lambda: sp.Adam(groups=[("a", 3)]), "a dict of keywords"),
    (lambda: to_proto_optimizer(sp.Adam(betas=0.9)), "got: 0.9"),
    (lambda: to_proto_optimizer(sp.SGD(lr="0.1")), None),
    (lambda: to_proto_optimizer(torch.optim.SGD), "sp.SGD"),
])
def test_wrong_ones_are_type_errors(make, match):
    with pytest.raises(TypeError, match=match):
        make()


def test_they_are_values():
    one = sp.AdamW(groups={"a": {"lr": 1.0}})
    assert one == sp.AdamW(groups=[("a", {"lr": 1.0})])
    assert one != sp.AdamW()
    assert hash(one) == hash(sp.AdamW(groups=[(("a",), {"lr": 1.0})]))
