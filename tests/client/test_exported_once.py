"""tests/exports.py: what is exported once, and what is not."""

import pytest
import torch
from torch import nn

from shardplane import programs
from shardplane.module_tree import ModuleTree
from tests.exports import exported_once


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = 2.0
        self.function = double
        self.lin = nn.Linear(3, 4)

    def forward(self, x):
        return self.function(self.lin(x) * self.factor)


def double(x):
    return x + x


def triple(x):
    return x * 3


def plus(tensor):
    return lambda x: x + tensor


@pytest.fixture
def export():
    with exported_once():
        yield lambda module, *args: programs.export(
            ModuleTree(module), args or (torch.ones(2, 3),), {})


def changed(**attributes):
    module = Scaled()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def test_modules_that_are_alike_are_exported_once(export):
    assert export(Scaled()) is export(Scaled())


@pytest.mark.parametrize("other", [
    lambda: changed(factor=3.0), lambda: changed(function=triple),
    lambda: changed(factor=2), lambda: changed(lin=nn.Linear(3, 5)),
    lambda: changed(lin=nn.Linear(3, 4, bias=False)),
    lambda: changed().eval(),
    lambda: changed().requires_grad_(False), lambda: changed(more="text"),
    lambda: changed(more=nn.ReLU())],
    ids=["value", "function", "type", "rows", "bias", "mode", "frozen",
         "attribute", "module"])
def test_others_are_exported_each(export, other):
    assert export(changed()) is not export(other())


@pytest.mark.parametrize("args", [
    (torch.ones(3, 3),), (torch.ones(2, 3, requires_grad=True),),
    (torch.ones(3, 2).t(),)], ids=["shape", "gradient", "strides"])
def test_other_inputs_are_exported_each(export, args):
    assert export(changed()) is not export(changed(), *args)


def test_what_cannot_be_compared_is_exported_each(export):
    with_tensor = changed(factor=torch.ones(()))
    with_hook = changed()
    with_hook.register_forward_hook(lambda *_: None)
    closure = changed(function=plus(torch.ones(())))
    for module in (with_tensor, with_hook, closure):
        assert export(module) is not export(module)


def test_losses_are_exported_once(export):
    exported = export(changed())

    def graph(loss):
        return programs.export_loss(loss, exported, ())[0]

    def scaled(by):
        return lambda y: (y * by).sum()

    assert graph(scaled(2)) is graph(scaled(2))
    assert graph(scaled(2)) is not graph(scaled(3))
    tensor = torch.ones(())
    assert graph(scaled(tensor)) is not graph(scaled(tensor))


def test_nothing_stays():
    before = programs.export, programs.export_loss
    with exported_once():
        assert programs.export is not before[0]
    assert (programs.export, programs.export_loss) == before
