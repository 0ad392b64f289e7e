"""A plan as Python writes it -> ParallelizePlan."""

from collections.abc import Mapping

from shardplane.errors import PlanTypeError, invalid, unimplemented
from shardplane.placements import optional_to_proto, to_proto
from shardplane.v1 import types_pb2 as pb


def _one(layouts, where):
    """PyTorch keeps the layout of a Linear's input in a 1-tuple."""
    if isinstance(layouts, (tuple, list)):
        if len(layouts) != 1:
            raise invalid(f"{where}: expected one layout, got: {layouts!r}",
                          reason="INVALID_LAYOUT", field=where)
        layouts = layouts[0]
    return to_proto(layouts, where)


def _several(layouts, where):
    if layouts is None:
        return []
    if not isinstance(layouts, (tuple, list)):
        layouts = (layouts,)
    return [optional_to_proto(layout, f"{where}[{i}]")
            for i, layout in enumerate(layouts)]


def _keyed(layouts, where):
    return {name: optional_to_proto(layout, f"{where}[{name!r}]")
            for name, layout in (layouts or {}).items()}


def _linear(message, style, where):
    return message(
        input_layouts=_one(style.input_layouts, f"{where}.input_layouts"),
        output_layouts=_one(style.output_layouts, f"{where}.output_layouts"),
        use_local_output=bool(style.use_local_output),
        block_sizes=getattr(style, "block_sizes", None))  # PyTorch's have none


def _colwise(style, where):
    return pb.ParallelStyle(colwise=_linear(pb.ColwiseParallel, style, where))


def _rowwise(style, where):
    return pb.ParallelStyle(rowwise=_linear(pb.RowwiseParallel, style, where))


def _sequence(style, where):
    (layout,) = style.sequence_sharding
    placement = _one(layout, f"{where}.sequence_dim")
    return pb.ParallelStyle(sequence=pb.SequenceParallel(
        sequence_dim=placement.shard.dim,
        use_local_output=bool(style.use_local_output)))


def _input(style, where):
    message = pb.PrepareModuleInput(
        input_layouts=_several(style.input_layouts, f"{where}.input_layouts"),
        desired_input_layouts=_several(style.desired_input_layouts,
                                       f"{where}.desired_input_layouts"),
        use_local_output=bool(style.use_local_output))
    for name in ("input_kwarg_layouts", "desired_input_kwarg_layouts"):
        for key, layout in _keyed(getattr(style, name),
                                  f"{where}.{name}").items():
            getattr(message, name)[key].CopyFrom(layout)
    return message


def _output(style, where):
    return pb.PrepareModuleOutput(
        output_layouts=_several(style.output_layouts,
                                f"{where}.output_layouts"),
        desired_output_layouts=_several(style.desired_output_layouts,
                                        f"{where}.desired_output_layouts"),
        use_local_output=bool(style.use_local_output))


def _input_output(style, where):
    return pb.ParallelStyle(
        prepare_module_input_output=pb.PrepareModuleInputOutput(
            input=_input(style.prepare_module_input, where),
            output=_output(style.prepare_module_output, where)))


def _input_reshard(style, where):
    dim = style.input_reshard_dim
    if dim is not None and (isinstance(dim, bool) or not isinstance(dim, int)):
        raise invalid(
            f"{where}.input_reshard_dim: expected a tensor dim or None, got: "
            f"{dim!r}", reason="INVALID_LAYOUT",
            field=f"{where}.input_reshard_dim")
    return pb.ParallelStyle(
        input_reshard=pb.InputReshard(input_reshard_dim=dim))


def _dim(style, name, where):
    dim = getattr(style, name)
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise invalid(f"{where}.{name}: expected a tensor dim, got: {dim!r}",
                      reason="INVALID_LAYOUT", field=f"{where}.{name}")
    return dim


def _pairwise(style, where):
    return pb.ParallelStyle(pairwise=pb.PairwiseParallel(
        input_layouts=_one(style.input_layouts, f"{where}.input_layouts"),
        output_layouts=_one(style.output_layouts,
                            f"{where}.output_layouts")))


def _pairwise_sequence(style, where):
    return pb.ParallelStyle(pairwise_sequence=pb.PairwiseSequenceParallel(
        sequence_dim=_dim(style, "sequence_dim", where)))


def _loss(style, where):
    return pb.ParallelStyle(loss=pb.LossParallel(
        class_dim=_dim(style, "class_dim", where)))


# By class name: PyTorch's styles and ours have the same attributes.
_STYLES = {
    "ColwiseParallel": _colwise,
    "RowwiseParallel": _rowwise,
    "SequenceParallel": _sequence,
    "PrepareModuleInput":
        lambda style, where: pb.ParallelStyle(
            prepare_module_input=_input(style, where)),
    "PrepareModuleOutput":
        lambda style, where: pb.ParallelStyle(
            prepare_module_output=_output(style, where)),
    "PrepareModuleInputOutput": _input_output,
    "InputReshard": _input_reshard,
    "PairwiseParallel": _pairwise,
    "PairwiseSequenceParallel": _pairwise_sequence,
    "LossParallel": _loss,
}
_HOMES = ("torch.", "shardplane.")


def is_style(value):
    return any(base.__name__ == "ParallelStyle"
               for base in type(value).__mro__)


def _style(style, where):
    cls = type(style)
    convert = _STYLES.get(cls.__name__)
    # A subclass may do anything in its _apply: only the originals are known.
    if convert is None or not cls.__module__.startswith(_HOMES):
        message = pb.ParallelStyle(unknown=cls.__name__)
    else:
        message = convert(style, where)
    message.mesh_dim = getattr(style, "mesh_dim", None) or ""
    return message


def _wrong_type(value, key):
    where = "the plan" if key is None else f"plan key {key!r}"
    return invalid(
        f"{where}: expected a ParallelStyle, a list of them, a dict of "
        f"patterns or None, got: {value!r} of type {type(value).__name__}",
        reason="PLAN_TYPE", cls=PlanTypeError, field="plan",
        pattern=key or "", type=type(value).__name__)


def _value(value, key):
    if value is None:
        return _none()
    where = f"plan[{key!r}]"
    if is_style(value):
        return pb.PlanValue(style=_style(value, where))
    if isinstance(value, Mapping):
        return pb.PlanValue(plan=_entries(value, key))
    if isinstance(value, (list, tuple)):
        if not all(is_style(style) for style in value):
            raise _wrong_type(value, key)
        return pb.PlanValue(styles=pb.PlanValue.Styles(
            styles=[_style(style, f"{where}[{i}]")
                    for i, style in enumerate(value)]))
    raise _wrong_type(value, key)


def _none():
    # "None" cannot be written as an attribute of PlanValue.
    value = pb.PlanValue()
    value.none.SetInParent()
    return value


def _entries(plan, outer=None):
    message = pb.ParallelizePlan()
    for pattern, value in plan.items():
        key = pattern if outer in (None, "") else f"{outer}.{pattern}"
        if not isinstance(pattern, str):
            raise invalid(
                f"plan key {pattern!r}: expected a string, got: "
                f"{type(pattern).__name__}", reason="PLAN_TYPE",
                cls=PlanTypeError, field="plan", pattern=repr(pattern))
        message.entries.add(pattern=pattern, value=_value(value, key))
    return message


def to_proto_plan(plan):
    """None for None (nothing is sharded, with a warning)."""
    if plan is None:
        return None
    if isinstance(plan, str) and plan == "auto":
        raise unimplemented('plan "auto"')
    if isinstance(plan, Mapping):
        return _entries(plan)
    if not is_style(plan) and not isinstance(plan, (list, tuple)):
        raise _wrong_type(plan, None)
    return pb.ParallelizePlan(
        entries=[pb.PlanEntry(pattern="", value=_value(plan, ""))])


def _styles_of(message):
    for entry in message.entries:
        value = entry.value
        yield from [value.style] if value.HasField("style") else []
        yield from value.styles.styles
        yield from _styles_of(value.plan)


def mesh_dims(message):
    """The mesh dim that each style names, "" where it names none."""
    return [] if message is None else [
        style.mesh_dim for style in _styles_of(message)]


def needs_call_signatures(message, has_attention=False):
    """Whether a style speaks of a module's inputs or outputs one by one.
    `has_attention`: the module has an nn.MultiheadAttention."""
    if message is None:
        return False
    for style in _styles_of(message):
        # Of an attention it is query, key and value that lie so, and no mask;
        # and what it gives, not its weights.
        if style.HasField("pairwise_sequence") or (
                style.pairwise.input_layouts.HasField("shard")) or (
                has_attention and style.HasField("pairwise")):
            return True
        both = style.prepare_module_input_output
        for inputs in (style.prepare_module_input, both.input):
            if len(inputs.input_layouts) > 1 or inputs.input_kwarg_layouts:
                return True
        for outputs in (style.prepare_module_output, both.output):
            if len(outputs.output_layouts) > 1:
                return True
    return False
