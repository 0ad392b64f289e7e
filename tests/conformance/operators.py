"""Several operators in one deployment, over tensors that are cut in given ways,
beside the same calls on whole tensors: values and gradients.
"""

from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import PrepareModuleInput

from tests.models import rand
from tests.parity import assert_bytes, assert_close

F64 = 8
# x and y; 6 on 4 ranks are 2, 2, 2 and none.
A, B, C = 4, 6, 8


class Several(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, y, w, v):
        return self.function(x, y, w, v)


def inputs():
    return [rand(*shape, seed=seed, requires_grad=True)
            for seed, shape in enumerate([(A, B, C), (A, B, C), (C, 5), (C,)])]


def loss(outputs):
    """Of all that there are: those without a gradient do no harm."""
    return sum(square_sum(part) for y in outputs
               for part in ((y.real, y.imag) if y.is_complex() else (y,)))


def square_sum(y):
    return (y.double() * y.double()).sum()


def check(cluster, function, ranks, layouts, inputs=inputs):
    """`layouts`: of x, y [A, B, C], w [C, 5] and v [C], which `inputs`
    gives."""
    module = Several(function)
    style = PrepareModuleInput(input_layouts=layouts,
                               desired_input_layouts=layouts)
    values, twins = inputs(), inputs()
    with cluster.parallelize_module(module, {"tp": ranks}, style,
                                    example_inputs=tuple(values)) as m:
        assert not m.report.warnings  # each of them has a rule
        expected = module(*twins)
        for i, (y, own) in enumerate(zip(m(*values), expected, strict=True)):
            assert y.dtype == own.dtype, i
            assert_close(y, own, f"output {i}")
        loss(expected).backward()
        m.forward_backward(*values, loss=loss)
        for i, (gradient, twin) in enumerate(zip(m.input_gradients(), twins)):
            if twin.grad is None:
                assert gradient is None
            else:
                assert_close(gradient, twin.grad, f"gradient {i}")
        largest = 4 * 8 * 12 * 8 * F64  # repeated by heads, and padded
        assert_bytes(m, forward=len(expected) * 2 * largest,
                     backward=len(expected) * 3 * largest)


def check_cut_alike(cluster, function, dim, ranks=4, inputs=inputs):
    """x and y are cut along `dim`; None: not at all."""
    cut = Replicate() if dim is None else Shard(dim)
    check(cluster, function, ranks, (cut, cut, Replicate(), Replicate()),
          inputs)
