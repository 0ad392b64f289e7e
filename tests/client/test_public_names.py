"""Every public name says what it is, and what it takes and gives."""

import inspect
import types
import typing

import pytest

import shardplane as sp
from shardplane import hints
from shardplane.handle import DeployedModule
from shardplane.step_timing import StepTiming
from shardplane.timeline import Timeline

# What `with`, `for` and a call make of it.
PROTOCOLS = ("__call__", "__enter__", "__exit__", "__iter__", "__next__")
HANDED_OUT = (DeployedModule, StepTiming, Timeline)


def public():
    """Names of the package, and what its calls give."""
    found = {name: getattr(sp, name) for name in sp.__all__
             if not isinstance(getattr(sp, name), types.ModuleType)}
    found |= {cls.__name__: cls for cls in HANDED_OUT}
    return found


def members(name, item):
    """(full name, function, what its docstring is) of an item's own."""
    if not inspect.isclass(item):
        yield name, item, item
        return
    for cls in item.__mro__:
        if not cls.__module__.startswith("shardplane."):
            continue
        for own, value in vars(cls).items():
            call = (value.fget if isinstance(value, property) else
                    getattr(value, "__func__", value))
            if inspect.isfunction(call) and (
                    not own.startswith("_") or own in PROTOCOLS or (
                        own == "__init__" and cls is item and
                        call.__module__.startswith("shardplane"))):
                yield f"{name}.{own}", call, value


PUBLIC = public()
CALLS = {full: call for name, item in PUBLIC.items()
         for full, call, _ in members(name, item)}


def test_all_of_them_are_looked_at():
    assert {"connect", "LocalCluster.parallelize_module", "Watch.close",
            "Connection.workers", "DeployedModule.step", "SGD.to_proto",
            "device_mesh", "ColwiseParallel.__init__"} <= set(CALLS)


@pytest.mark.parametrize("name", PUBLIC)
def test_it_has_a_docstring(name):
    text = PUBLIC[name].__doc__
    assert text and not text.startswith(f"{name}("), name  # a dataclass's own


@pytest.mark.parametrize("name", CALLS)
def test_a_call_has_a_docstring(name):
    if not name.endswith("__"):  # the class's says it
        assert CALLS[name].__doc__, name


@pytest.mark.parametrize("name", CALLS)
def test_a_call_says_its_types(name):
    call = CALLS[name]
    signature = inspect.signature(call)
    bare = [parameter.name for parameter in signature.parameters.values()
            if parameter.annotation is parameter.empty and
            parameter.name not in ("self", "cls")]
    assert not bare, f"{name} has no types for {bare}"
    if not name.endswith("__init__"):
        assert signature.return_annotation is not signature.empty, name


@pytest.mark.parametrize("name", CALLS)
def test_its_types_are_names_that_there_are(name):
    # What is imported for annotations alone.
    known = {**vars(hints), **PUBLIC}
    assert typing.get_type_hints(CALLS[name], localns=known)
