"""Parallel styles under PyTorch's names, for scripts without torch.

A style is a value. The attributes are PyTorch's, so that plan.py reads both
kinds alike. Those that this release lacks can be written down: using one is
UNIMPLEMENTED, and the error names it.
"""

from shardplane.errors import invalid, unimplemented
from shardplane.placements import Replicate, Shard


class ParallelStyle:
    """What a plan does to one module. `mesh_dim`: default, the plan's."""

    mesh_dim = None

    def __repr__(self):
        values = ", ".join(f"{name}={value!r}"
                           for name, value in vars(self).items()
                           if value is not None)
        return f"{type(self).__name__}({values})"

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None


class ColwiseParallel(ParallelStyle):
    def __init__(self, *, input_layouts=None, output_layouts=None,
                 use_local_output=True, mesh_dim=None):
        self.input_layouts = (input_layouts or Replicate(),)
        self.output_layouts = (output_layouts or Shard(-1),)
        self.use_local_output = use_local_output
        self.mesh_dim = mesh_dim


class RowwiseParallel(ParallelStyle):
    def __init__(self, *, input_layouts=None, output_layouts=None,
                 use_local_output=True, mesh_dim=None):
        self.input_layouts = (input_layouts or Shard(-1),)
        self.output_layouts = (output_layouts or Replicate(),)
        self.use_local_output = use_local_output
        self.mesh_dim = mesh_dim


def _as_tuple(layouts):
    if layouts is None or isinstance(layouts, (tuple, list)):
        return layouts
    return (layouts,)


def _check_pairs(style, name, given, desired):
    """Where `given` is present, `desired` must pair with it."""
    if given is None:
        return
    if desired is None or len(given) != len(desired):
        count = "none" if desired is None else len(desired)
        raise invalid(
            f"{style}: {name} and desired_{name} must have the same length, "
            f"got: {len(given)} and {count}", reason="INVALID_LAYOUT",
            field=f"desired_{name}")


class SequenceParallel(ParallelStyle):
    """The first input cut along `sequence_dim`; parameters replicated."""

    def __init__(self, *, sequence_dim=1, use_local_output=False,
                 mesh_dim=None):
        self.sequence_sharding = (Shard(sequence_dim),)
        self.use_local_output = use_local_output
        self.mesh_dim = mesh_dim


class PrepareModuleInput(ParallelStyle):
    def __init__(self, *, input_layouts=None, desired_input_layouts=None,
                 input_kwarg_layouts=None, desired_input_kwarg_layouts=None,
                 use_local_output=False, mesh_dim=None):
        self.input_layouts = _as_tuple(input_layouts)
        self.desired_input_layouts = _as_tuple(desired_input_layouts)
        self.input_kwarg_layouts = input_kwarg_layouts or {}
        self.desired_input_kwarg_layouts = desired_input_kwarg_layouts or {}
        self.use_local_output = use_local_output
        self.mesh_dim = mesh_dim
        name = type(self).__name__
        _check_pairs(name, "input_layouts", self.input_layouts,
                     self.desired_input_layouts)
        _check_pairs(name, "input_kwarg_layouts", self.input_kwarg_layouts,
                     self.desired_input_kwarg_layouts)


class PrepareModuleOutput(ParallelStyle):
    def __init__(self, *, output_layouts, desired_output_layouts,
                 use_local_output=True, mesh_dim=None):
        self.output_layouts = _as_tuple(output_layouts)
        self.desired_output_layouts = _as_tuple(desired_output_layouts)
        self.use_local_output = use_local_output
        self.mesh_dim = mesh_dim
        _check_pairs(type(self).__name__, "output_layouts",
                     self.output_layouts, self.desired_output_layouts)


class PrepareModuleInputOutput(ParallelStyle):
    def __init__(self, *, input_layouts=None, desired_input_layouts=None,
                 input_kwarg_layouts=None, desired_input_kwarg_layouts=None,
                 use_local_input=False, output_layouts,
                 desired_output_layouts, use_local_output=True,
                 mesh_dim=None):
        self.prepare_module_input = PrepareModuleInput(
            input_layouts=input_layouts,
            desired_input_layouts=desired_input_layouts,
            input_kwarg_layouts=input_kwarg_layouts,
            desired_input_kwarg_layouts=desired_input_kwarg_layouts,
            use_local_output=use_local_input)
        self.prepare_module_output = PrepareModuleOutput(
            output_layouts=output_layouts,
            desired_output_layouts=desired_output_layouts,
            use_local_output=use_local_output)
        self.mesh_dim = mesh_dim


class InputReshard(ParallelStyle):
    """Activations that the module, or one within it, keeps for the backward
    pass and that every rank has whole are cut along this tensor dim until
    then, and gathered again. None leaves them alone. Those that are cut, or
    differ by rank, stay as they are."""

    def __init__(self, input_reshard_dim=0, *, mesh_dim=None):
        self.input_reshard_dim = input_reshard_dim
        self.mesh_dim = mesh_dim


class _Later(ParallelStyle):
    """A style of a later release: the coordinator refuses it by name."""

    def __init__(self, *args, **kwargs):
        self.args = args or None
        self.kwargs = kwargs or None


class PairwiseParallel(_Later):
    pass


class PairwiseSequenceParallel(_Later):
    pass


class LossParallel(_Later):
    pass


class TensorParallelMultiheadAttention(_Later):
    pass


def _later(name):
    def refuse(*args, **kwargs):
        del args, kwargs
        raise unimplemented(name)

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = "Not in this release: raises UnimplementedError."
    return refuse


make_input_replicate_1d = _later("make_input_replicate_1d")
make_input_reshard_replicate = _later("make_input_reshard_replicate")
make_input_shard_1d = _later("make_input_shard_1d")
make_input_shard_1d_last_dim = _later("make_input_shard_1d_last_dim")
make_output_replicate_1d = _later("make_output_replicate_1d")
make_output_reshard_tensor = _later("make_output_reshard_tensor")
make_output_shard_1d = _later("make_output_shard_1d")
make_output_tensor = _later("make_output_tensor")
make_sharded_output_tensor = _later("make_sharded_output_tensor")
enable_2d_with_fsdp = _later("enable_2d_with_fsdp")
pre_dp_module_transform = _later("pre_dp_module_transform")
