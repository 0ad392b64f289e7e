"""Parallel styles under PyTorch's names, for scripts without torch.

A style is a value. The attributes are PyTorch's, so that plan.py reads both
kinds alike. docs/styles.md tells what each does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shardplane.errors import invalid
from shardplane.hints import Layout, Layouts
from shardplane.placements import Partial, Replicate, Shard
from shardplane.prepare import INPUT, OUTPUT, layout


class ParallelStyle:
    """What a plan does to one module. `mesh_dim`: default, the plan's."""

    mesh_dim: str | None = None

    def __repr__(self):
        values = ", ".join(f"{name}={value!r}"
                           for name, value in vars(self).items()
                           if value is not None)
        return f"{type(self).__name__}({values})"

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None


def _block_sizes(sizes):
    """Of tensors that are packed into one, in elements of the dim that is
    cut; None: found from what the program takes apart."""
    if sizes is None:
        return None
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise invalid(
                f"block_sizes: expected sizes above 0, got: {size!r}",
                reason="BLOCK_SIZES", field="block_sizes")
    return tuple(sizes)


class ColwiseParallel(ParallelStyle):
    """PyTorch's, and `block_sizes`: of what is packed into the weight, such
    as [queries, keys, values]; each is cut by itself."""

    def __init__(self, _prepare_input: Callable | None = None,
                 _prepare_output: Callable | None = None, *,
                 input_layouts: Layout = None, output_layouts: Layout = None,
                 use_local_output: bool = True, mesh_dim: str | None = None,
                 block_sizes: Sequence[int] | None = None) -> None:
        self.block_sizes = _block_sizes(block_sizes)
        self.input_layouts = layout(self, INPUT, _prepare_input,
                                    input_layouts, Replicate(), None)
        self.output_layouts = layout(self, OUTPUT, _prepare_output,
                                     output_layouts, Shard(-1), Shard(-1))
        self.use_local_output = use_local_output
        self.mesh_dim = mesh_dim


class RowwiseParallel(ParallelStyle):
    """PyTorch's, and `block_sizes` as ColwiseParallel has them, of inputs."""

    def __init__(self, _prepare_input: Callable | None = None,
                 _prepare_output: Callable | None = None, *,
                 input_layouts: Layout = None, output_layouts: Layout = None,
                 use_local_output: bool = True, mesh_dim: str | None = None,
                 block_sizes: Sequence[int] | None = None) -> None:
        self.block_sizes = _block_sizes(block_sizes)
        self.input_layouts = layout(self, INPUT, _prepare_input,
                                    input_layouts, Shard(-1), None)
        self.output_layouts = layout(self, OUTPUT, _prepare_output,
                                     output_layouts, Replicate(), Partial())
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

    def __init__(self, *, sequence_dim: int = 1, use_local_output: bool = False,
                 mesh_dim: str | None = None) -> None:
        self.sequence_sharding = (Shard(sequence_dim),)
        self.use_local_output = use_local_output
        self.mesh_dim = mesh_dim


def _positional(style, given, named, default):
    """PyTorch 2.1's positional form: (layouts, desired=default)."""
    if len(given) > 2 or any(value is not None for value in named):
        raise TypeError(f"{type(style).__name__}: expected layouts and the "
                        "desired ones, either by position or by name")
    return given + (default,) * (2 - len(given))


class PrepareModuleInput(ParallelStyle):
    """PyTorch's: how inputs come (`input_layouts`) and how the module gets
    them (`desired_input_layouts`), by position or, of keywords, by name."""

    def __init__(self, *positional: Layouts, input_layouts: Layouts = None,
                 desired_input_layouts: Layouts = None,
                 input_kwarg_layouts: dict[str, Layout] | None = None,
                 desired_input_kwarg_layouts: dict[str, Layout] | None = None,
                 use_local_output: bool = False,
                 mesh_dim: str | None = None) -> None:
        if positional:
            input_layouts, desired_input_layouts = _positional(
                self, positional, (input_layouts, desired_input_layouts),
                Replicate())
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
    """PyTorch's: how outputs come and how they are handed on."""

    def __init__(self, *positional: Layouts, output_layouts: Layouts = None,
                 desired_output_layouts: Layouts = None,
                 use_local_output: bool = True,
                 mesh_dim: str | None = None) -> None:
        if positional:
            output_layouts, desired_output_layouts = _positional(
                self, positional, (output_layouts, desired_output_layouts),
                Shard(0))
        if output_layouts is None or desired_output_layouts is None:
            raise TypeError("PrepareModuleOutput: expected output_layouts and "
                            "desired_output_layouts")
        self.output_layouts = _as_tuple(output_layouts)
        self.desired_output_layouts = _as_tuple(desired_output_layouts)
        self.use_local_output = use_local_output
        self.mesh_dim = mesh_dim
        _check_pairs(type(self).__name__, "output_layouts",
                     self.output_layouts, self.desired_output_layouts)


class PrepareModuleInputOutput(ParallelStyle):
    """PyTorch's: both of PrepareModuleInput and PrepareModuleOutput."""

    def __init__(self, *, input_layouts: Layouts = None,
                 desired_input_layouts: Layouts = None,
                 input_kwarg_layouts: dict[str, Layout] | None = None,
                 desired_input_kwarg_layouts: dict[str, Layout] | None = None,
                 use_local_input: bool = False, output_layouts: Layouts,
                 desired_output_layouts: Layouts, use_local_output: bool = True,
                 mesh_dim: str | None = None) -> None:
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

    def __init__(self, input_reshard_dim: int | None = 0, *,
                 mesh_dim: str | None = None) -> None:
        self.input_reshard_dim = input_reshard_dim
        self.mesh_dim = mesh_dim


class PairwiseParallel(ParallelStyle):
    """The linears within the module, paired as it calls them: one colwise, what
    reads it rowwise; an nn.MultiheadAttention by its heads. The report says
    what was paired.

    `_prepare_input`, `_prepare_output`: sp.make_input_* and sp.make_output_*;
    or `input_layouts` and `output_layouts`, of the first linear's input and
    the last one's output. Both whole by default.
    """

    def __init__(self, _prepare_input: Callable | None = None,
                 _prepare_output: Callable | None = None, *,
                 input_layouts: Layout = None, output_layouts: Layout = None,
                 mesh_dim: str | None = None) -> None:
        self.input_layouts = layout(self, INPUT, _prepare_input,
                                    input_layouts, Replicate(), None)
        self.output_layouts = layout(self, OUTPUT, _prepare_output,
                                     output_layouts, Replicate(), Partial())
        self.mesh_dim = mesh_dim


class PairwiseSequenceParallel(ParallelStyle):
    """PairwiseParallel whose input and output are cut along `sequence_dim`.
    That is 0, as in PyTorch; SequenceParallel's is 1."""

    def __init__(self, *, sequence_dim: int = 0,
                 mesh_dim: str | None = None) -> None:
        self.sequence_dim = sequence_dim
        self.mesh_dim = mesh_dim


class LossParallel(ParallelStyle):
    """The module's output goes to a loss, and stays cut along the dim of its
    classes: the cross-entropy runs on the parts, and no logits travel."""

    def __init__(self, class_dim: int = -1, *,
                 mesh_dim: str | None = None) -> None:
        self.class_dim = class_dim
        self.mesh_dim = mesh_dim
