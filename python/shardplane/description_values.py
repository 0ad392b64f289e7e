"""Plain values of a description, checked: what stands where in the JSON."""

from shardplane.arrays import DTYPES
from shardplane.description_errors import Bad, member
from shardplane.v1 import types_pb2 as pb


def text(value, place):
    if not isinstance(value, str):
        raise Bad(place, "a string", repr(value))
    return value


def flag(value, name, place, otherwise):
    """A member of the object `value`, which stands at `place`."""
    result = value.get(name, otherwise)
    if not isinstance(result, bool):
        raise Bad(member(place, name), "true or false", repr(result))
    return result


def dtype_name(value, name, place, otherwise):
    result = value.get(name, otherwise)
    if not isinstance(result, str) or (result and result not in DTYPES):
        raise Bad(member(place, name), f"one of {', '.join(DTYPES)}",
                  repr(result))
    return result


def entries(value, name, place, what):
    """A member that is a list: empty where it is left out."""
    result = value.get(name, [])
    if not isinstance(result, (list, tuple)):
        raise Bad(member(place, name), f"a list of {what}", repr(result))
    return result


def named(value, name, place, what):
    """A member that is an object: empty where it is left out."""
    result = value.get(name, {})
    if not isinstance(result, dict):
        raise Bad(member(place, name), f"an object of {what} by name",
                  repr(result))
    return result


def only(value, keys, place, what):
    """`value` is an object without other members."""
    if not isinstance(value, dict):
        raise Bad(place, f"an object that describes {what}", repr(value))
    for key in value:
        if key not in keys:
            raise Bad(member(place, str(key)), f"one of {', '.join(keys)}",
                      repr(key))


def shape(value, name, place):
    sizes = entries(value, name, place, "sizes")
    for i, size in enumerate(sizes):
        if isinstance(size, bool) or not isinstance(size, int) or not (
                0 <= size < 1 << 63):
            raise Bad(f"{member(place, name)}[{i}]", "a size of at least 0",
                      repr(size))
    return sizes


def to_argument(value, place, names=None):
    """`names`: of the nodes that "%x" may refer to; None: there are none, and
    every string is a string."""
    if value is None:
        argument = pb.Argument()
        argument.none.SetInParent()
        return argument
    if isinstance(value, bool):
        return pb.Argument(bool_value=value)
    if isinstance(value, int) and -1 << 63 <= value < 1 << 63:
        return pb.Argument(int_value=value)
    if isinstance(value, float):
        return pb.Argument(float_value=value)
    if isinstance(value, str):
        return _text_argument(value, place, names)
    if isinstance(value, (list, tuple)):
        return pb.Argument(list=pb.Argument.List(items=[
            to_argument(item, f"{place}[{i}]", names)
            for i, item in enumerate(value)]))
    if isinstance(value, dict) and list(value) == ["dtype"]:
        return pb.Argument(
            dtype=DTYPES[dtype_name(value, "dtype", place, "")])
    raise Bad(place, 'null, a bool, a number, a string, a list or {"dtype": '
              '"float32"}', repr(value))


def _text_argument(value, place, names):
    if names is None or not value.startswith("%"):
        return pb.Argument(string_value=value)
    if value[1:] in names:
        return pb.Argument(node=value[1:])
    known = ", ".join(f"%{name}" for name in names) or "there is none"
    raise Bad(place, f"a node before this one ({known})", value)
