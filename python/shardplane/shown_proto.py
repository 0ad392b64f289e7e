"""A message that is shown to people and kept by programs."""

from __future__ import annotations

import json

from google.protobuf import json_format


class ShownProto:
    """`proto` is the message; field names are as the proto has them."""

    def __init__(self, proto):
        self.proto = proto

    def to_dict(self) -> dict:
        """As JSON's types."""
        return json_format.MessageToDict(self.proto,
                                         preserving_proto_field_name=True)

    def to_json(self, indent: int | None = 2) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=indent)
