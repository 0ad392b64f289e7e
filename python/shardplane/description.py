"""Modules as data: read from JSON, in one of two forms, without torch.

docs/descriptions.md tells how to write one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from google.protobuf import json_format

from shardplane.description_errors import Bad, located
from shardplane.description_short import expand
from shardplane.v1 import types_pb2 as pb


class Description:
    """A module tree, with the mode (train or eval) of each of its modules.

    `source`: the path of a JSON file, a dict of the same form, or the message
    itself. `proto` is the Module message that it says.
    """

    def __init__(self, source: str | os.PathLike | Mapping | pb.Module) -> None:
        if isinstance(source, pb.Module):
            self.proto = pb.Module()
            self.proto.CopyFrom(source)
            return
        path = "" if isinstance(source, Mapping) else os.fspath(source)
        with located(path):
            if path:
                source = _read(path)
            self.proto = (_of_proto_form(source) if "modules" in source
                          else expand(source))

    def train(self, mode: bool = True) -> Description:
        """The mode of all modules, for the calls that follow."""
        for module in self.proto.modules:
            module.training = mode
        return self

    def eval(self) -> Description:
        """train(False)."""
        return self.train(False)

    def __repr__(self):
        root = self.proto.modules[0].type if self.proto.modules else ""
        return (f"<Description of {root or 'a module'}: "
                f"{len(self.proto.modules)} modules>")


def is_description(module):
    return isinstance(module, (Description, pb.Module, Mapping, str,
                               os.PathLike))


def as_description(module):
    return module if isinstance(module, Description) else Description(module)


def _read(path):
    with open(path, encoding="utf-8") as file:
        try:
            source = json.load(file, object_pairs_hook=_without_repeats)
        except json.JSONDecodeError as error:
            raise Bad("", "JSON", f"{error.msg} at line {error.lineno} column "
                      f"{error.colno}") from error
    if not isinstance(source, dict):
        raise Bad("", "an object that describes a module",
                  type(source).__name__)
    return source


def _without_repeats(pairs):
    """json alone would keep the last of two children with one name."""
    names = set()
    for name, _ in pairs:
        if name in names:
            raise Bad("", "each name once in its object", f"{name!r} twice")
        names.add(name)
    return dict(pairs)


def _of_proto_form(source):
    """proto3's JSON mapping of shardplane.v1.Module."""
    try:
        return json_format.ParseDict(source, pb.Module())
    except json_format.ParseError as error:
        raise Bad("", "the JSON form of shardplane.v1.Module",
                  str(error)) from error
