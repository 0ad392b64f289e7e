"""Device meshes as Python writes them -> DeviceMesh."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import Any

from shardplane.errors import PlanTypeError, invalid
from shardplane.v1 import types_pb2 as pb

_active = contextvars.ContextVar("shardplane_device_mesh", default=None)


@contextlib.contextmanager
def device_mesh(mesh: Any) -> Iterator[Any]:
    """The mesh of every parallelize_module within that names none."""
    to_proto_mesh(mesh)
    token = _active.set(mesh)
    try:
        yield mesh
    finally:
        _active.reset(token)


def _is_pair(value):
    return (isinstance(value, (tuple, list)) and len(value) == 2 and
            isinstance(value[0], str))


def _dims(mesh):
    """Pairs of name and size; None if `mesh` is nothing that has them."""
    if isinstance(mesh, bool):
        return None
    if isinstance(mesh, int):
        return [("tp", mesh)]
    if isinstance(mesh, Mapping):
        return list(mesh.items())
    if isinstance(mesh, (tuple, list)):
        if all(_is_pair(pair) for pair in mesh) and mesh:
            return [tuple(pair) for pair in mesh]  # [("dp", 2), ("tp", 4)]
        if (len(mesh) == 2 and all(
                isinstance(part, (tuple, list)) for part in mesh) and
                len(mesh[0]) == len(mesh[1])):
            return list(zip(mesh[1], mesh[0]))  # ([2, 4], ["dp", "tp"])
        if len(mesh) == 1 and isinstance(mesh[0], int):
            return [("tp", mesh[0])]
        return None
    if type(mesh).__name__ == "DeviceMesh" and hasattr(mesh, "shape"):
        names = mesh.mesh_dim_names or (("tp",) if mesh.ndim == 1 else ())
        if len(names) == mesh.ndim:
            return list(zip(names, mesh.shape))
    return None


def to_proto_mesh(mesh):
    """`mesh`: a dict, an int, sizes with names, or None: the active one."""
    mesh = _active.get() if mesh is None else mesh
    if mesh is None:
        raise invalid(
            "expected a device mesh, or an enclosing `with sp.device_mesh("
            '{"tp": 4}):`, got: none', reason="NO_DEVICE_MESH", field="mesh")
    dims = _dims(mesh)
    if dims is None:
        raise invalid(
            "mesh: expected a dict of names and sizes ({\"dp\": 2, \"tp\": 4})"
            ", an int or a list of sizes with names ([2, 4], [\"dp\", \"tp\"])"
            f", got: {mesh!r}", reason="MESH_TYPE", cls=PlanTypeError,
            field="mesh")
    message = pb.DeviceMesh()
    for name, size in dims:
        if not isinstance(name, str) or isinstance(
                size, bool) or not isinstance(size, int) or size < 1:
            raise invalid(
                f"mesh dim {name!r}: expected a name and a size of at least "
                f"1, got: {size!r}", reason="INVALID_MESH", field="mesh.dims")
        if name in {dim.name for dim in message.dims}:
            raise invalid(f"mesh: expected dims of different names, got: "
                          f"{name!r} twice", reason="INVALID_MESH",
                          field="mesh.dims")
        message.dims.add(name=name, size=size)
    if not message.dims:
        raise invalid("mesh: expected at least one dim, got: none",
                      reason="INVALID_MESH", field="mesh.dims")
    return message


def plan_dim(mesh, named, taken=()):
    """The mesh dim that a plan works on: "tp", else the only one, else the one
    that its styles name. `named`: the mesh dim of each of its styles, "" where
    it names none. `taken`: mesh dims that are data parallel."""
    every = [dim.name for dim in mesh.dims]
    # Where all are, the coordinator refuses styles; the first one is that of
    # src_data_rank.
    dims = [name for name in every if name not in taken] or every
    if "tp" in dims:
        return "tp"
    # A plan without styles works on nothing; the coordinator refuses a style
    # that names what the mesh has not.
    if len(dims) == 1 or not set(named) <= {"", *dims} or not named:
        return dims[0]
    names = [name for name in dims if name in named]
    if len(names) == 1 or "" not in named:
        return names[0]
    said = f"styles name {' and '.join(names)}" if names else (
        "no style names one")
    raise invalid(
        f'mesh: expected a dim named "tp" for the plan to work on, or styles '
        f'that name theirs, as sp.ColwiseParallel(mesh_dim="{dims[0]}"), got: '
        f"{text(mesh)}, and {said}", reason="PLAN_MESH_DIM", field="mesh",
        mesh=text(mesh))


def text(mesh):
    """[dp=2, tp=4]"""
    return "[" + ", ".join(f"{d.name}={d.size}" for d in mesh.dims) + "]"
