"""PyTorch's make_input_* and make_output_* functions, as words for layouts.

PyTorch's old styles called them in every rank, around each call of a module,
on that rank's own tensor. Here one client plans for all ranks, so they are
handed to a style as they are, `_prepare_input=sp.make_input_shard_1d`, and say
how the input or output lies. docs/old_api.md has the table.
"""

import functools
from typing import Any

from shardplane.errors import PlanTypeError, invalid
from shardplane.mesh import text, to_proto_mesh
from shardplane.placements import Replicate, Shard

INPUT, OUTPUT = "input", "output"
_LAYOUTS = {}  # function -> (side, of dim: the layout; None: as it is made)


def _called(function, side, layout):
    written = f"{side}_layouts=sp.{layout!r}" if layout else f"_prepare_{side}"
    return invalid(
        f"{function.__name__}: expected to be handed to a style, as in "
        f"sp.PairwiseParallel(_prepare_{side}=sp.{function.__name__}), which "
        f"says how the {side} lies ({written}), got: a call; no rank's own "
        "tensor is at hand here", reason="PREPARE_CALLED", cls=PlanTypeError,
        name=function.__name__)


def _word(name, layout, about):
    """A function that stands for a layout. `layout`: of a dim, or as it is."""
    side = INPUT if name.startswith("make_input") else OUTPUT
    dims = callable(layout)

    def word(*args: Any, dim: int = 0, **kwargs: Any) -> functools.partial:
        if dims and not args and not kwargs:
            return functools.partial(word, dim=dim)
        raise _called(word, side, layout(dim) if dims else layout)

    word.__name__ = word.__qualname__ = name
    word.__doc__ = about + (
        " `dim`: `functools.partial(f, dim=1)`, or `f(dim=1)`."
        if dims else "")
    _LAYOUTS[word] = (side, layout)
    return word


make_input_replicate_1d = _word(
    "make_input_replicate_1d", Replicate(),
    "The input lies whole on every rank.")
make_input_reshard_replicate = _word(
    "make_input_reshard_replicate", Shard(0),
    "The input lies cut on dim 0, and is made whole.")
make_input_shard_1d = _word(
    "make_input_shard_1d", Shard, "The input lies cut on `dim`, by default 0.")
make_input_shard_1d_last_dim = _word(
    "make_input_shard_1d_last_dim", Shard(-1),
    "The input lies cut on its last dim.")
make_output_replicate_1d = _word(
    "make_output_replicate_1d", Replicate(),
    "The output is whole on every rank.")
make_output_reshard_tensor = _word(
    "make_output_reshard_tensor", Shard(0), "The output is cut on dim 0.")
make_output_shard_1d = _word(
    "make_output_shard_1d", Shard, "The output is cut on `dim`, by default 0.")
make_output_tensor = _word(
    "make_output_tensor", Replicate(), "The output is whole on every rank.")
make_sharded_output_tensor = _word(
    "make_sharded_output_tensor", None,
    "The output stays as the layer makes it.")


def _unknown(where, side, got):
    names = ", ".join(f"sp.{function.__name__}"
                      for function, (own, _) in _LAYOUTS.items()
                      if own == side)
    return invalid(
        f"{where}: expected one of {names}, or a functools.partial of one with "
        f"dim=, got: {got}", reason="UNKNOWN_PREPARE", cls=PlanTypeError,
        field=where)


def _check_mesh(where, side, mesh):
    """An old script may bind the mesh: it had to be of one dim."""
    message = to_proto_mesh(mesh)
    if len(message.dims) != 1:
        raise invalid(
            f"{where}: device_mesh has dims {len(message.dims)} but expected "
            f"to be 1 for {side}; leave it out, the plan's mesh may have "
            f"several, got: {text(message)}", reason="PREPARE_MESH",
            field=where)


def layout_of(prepare, where, side, as_made):
    """The layout that `prepare` stands for. `as_made`: how the layer leaves
    its output."""
    options = {}
    function = prepare
    if isinstance(prepare, functools.partial):
        function, options = prepare.func, dict(prepare.keywords)
        if prepare.args:
            raise _unknown(where, side, repr(prepare))
    try:
        own, layout = _LAYOUTS[function]
    except (KeyError, TypeError):
        raise _unknown(where, side, repr(prepare)) from None
    if own != side:
        raise _unknown(where, side, f"{function.__name__}, of an {own}")
    if options.get("device_mesh") is not None:
        _check_mesh(where, side, options["device_mesh"])
    options.pop("device_mesh", None)
    dim = options.pop("dim", 0)
    if options or (dim != 0 and not callable(layout)):
        raise _unknown(where, side, repr(prepare))
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise _unknown(where, side, f"dim={dim!r}")
    if layout is None:
        return as_made
    return layout(dim) if callable(layout) else layout


def layout(style, side, prepare, layouts, default, as_made):
    """What a style keeps of `_prepare_input` and `input_layouts`, or of those
    of the output."""
    if prepare is None:
        return (layouts or default,)
    where = f"{type(style).__name__}._prepare_{side}"
    if layouts is not None:
        raise invalid(f"{where}: expected this or {side}_layouts, got: both",
                      reason="INVALID_LAYOUT", field=where)
    return (layout_of(prepare, where, side, as_made),)
