"""Errors in descriptions: a place in the JSON, and what belongs there."""

import contextlib

from shardplane.errors import invalid


class Bad(Exception):
    """`place`: "$.children.up", or "" for the whole."""

    def __init__(self, place, expected, got):
        super().__init__(place)
        self.place = place or "$"
        self.expected = expected
        self.got = got


@contextlib.contextmanager
def located(source):
    """`source`: a file's path, "loss" or "": what the places are in."""
    try:
        yield
    except Bad as error:
        where = f"{source}: {error.place}" if source else error.place
        raise invalid(
            f"{where}: expected {error.expected}, got: {error.got}",
            reason="INVALID_DESCRIPTION", field=error.place,
            **({"source": source} if source else {})) from error


def member(place, name):
    """$.children.up; $["a b"] where the name is no word."""
    if name.replace("_", "a").isalnum():
        return f"{place}.{name}"
    return f'{place}["{name}"]'
