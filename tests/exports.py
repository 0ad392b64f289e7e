"""Modules that are alike are exported once.

A test deploys one module under many plans and on many meshes, on which its
export does not depend; exporting took half the time of all these tests. Alike:
of the same classes, under the same names, with parameters of the same types,
and with attributes that are plain values and are equal. What holds anything
else, such as a tensor or a hook, is exported each time.
"""

import contextlib
import types
from unittest import mock

import torch
from torch.utils import _pytree as pytree

from shardplane import programs

_BLANK = vars(torch.nn.Module())
_IN_TREE = {"training", "_parameters", "_buffers", "_modules"}
_PLAIN = (bool, int, float, str, type(None), torch.dtype, type)


class _Unlike(Exception):
    """There is no telling what it is equal to."""


def _plain(value):
    if isinstance(value, _PLAIN):
        return type(value), value
    if type(value) in (list, tuple):
        return type(value), tuple(map(_plain, value))
    if type(value) is dict:
        return dict, tuple((_plain(k), _plain(v)) for k, v in value.items())
    if isinstance(value, types.FunctionType):
        return _function(value)
    raise _Unlike


def _function(value):
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    return (value.__code__, id(value.__globals__), _plain(cells),
            _plain(value.__defaults__), _plain(value.__kwdefaults__))


def _attributes(module):
    found = []
    for name, value in vars(module).items():
        if name in _IN_TREE:
            continue
        if name not in _BLANK:
            found.append((name, _plain(value)))
        elif name == "_non_persistent_buffers_set":
            found.append((name, frozenset(value)))
        elif value != _BLANK[name]:
            raise _Unlike
    return tuple(found)


def _tensor(value):
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        raise _Unlike
    return (tuple(value.shape), value.dtype, value.stride(), value.device,
            value.requires_grad)


def _leaf(value):
    return (_tensor(value) if isinstance(value, torch.Tensor) else
            _plain(value))


def _module(tree):
    names = tree.module.named_modules(remove_duplicate=False)
    first = {id(m): fqn for fqn, m in tree.modules}
    return (tuple((type(m), _attributes(m), m.training)
                  for _, m in tree.modules),
            tuple((fqn, first[id(m)]) for fqn, m in names),
            tuple((p.fqn, p.buffer, p.alias_of, _tensor(p.tensor))
                  for p in tree.parameters))


def _call(tree, args, kwargs, call_signatures):
    leaves, spec = pytree.tree_flatten((args, kwargs))
    return (_module(tree), str(spec), tuple(map(_leaf, leaves)),
            call_signatures, torch.get_default_dtype())


class _Once:
    """Exports and their losses, by what they are made of."""

    def __init__(self):
        self._export, self._export_loss = programs.export, programs.export_loss
        self._exports, self._losses = {}, {}

    def export(self, tree, args, kwargs, *, call_signatures=False):
        return _kept(
            self._exports, lambda: _call(tree, args, kwargs, call_signatures),
            lambda: self._export(tree, args, kwargs,
                                 call_signatures=call_signatures))

    def export_loss(self, loss, exported, targets):
        def key():
            if not any(exported is kept for kept in self._exports.values()):
                raise _Unlike  # its id may be another's later
            return (id(exported), _plain(loss), tuple(map(_leaf, targets)),
                    torch.get_default_dtype())
        return _kept(self._losses, key,
                     lambda: self._export_loss(loss, exported, targets))


def _kept(values, key_of, make):
    try:
        key = key_of()
    except _Unlike:
        return make()
    if key not in values:
        values[key] = make()
    return values[key]


@contextlib.contextmanager
def exported_once():
    once = _Once()
    with mock.patch.object(programs, "export", once.export), \
            mock.patch.object(programs, "export_loss", once.export_loss):
        yield
