"""The Transformer of section Q of behaviour.md under its two plans: values,
placements, counts (L2 to L10) and frozen parameters (L9)."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

import shardplane as sp
from tests.models import (
    Transformer, TransformerArgs, tokens, transformer_cuts, transformer_plan)
from tests.parity import (
    Packed, assert_at_most, assert_bytes, assert_close, assert_counts,
    check_gradients, parallelized, total)

F64 = 8
BATCH, LENGTH = 8, 8
ARGS = TransformerArgs()
N = ARGS.layers

# q, k and v share the all-reduce of their input's gradient (L4 has one each).
COUNTS = {
    False: {"forward": {"all_reduce": 2 + 2 * N, "all_gather": 1},
            "backward": {"all_reduce": 1 + 2 * N}},
    True: {"forward": {"reduce_scatter": 2 + 2 * N, "all_gather": 2 + 2 * N},
           "backward": {"reduce_scatter": 1 + 2 * N, "all_gather": 2 + 2 * N,
                        "all_reduce": 1}},  # all norm gradients, in a bucket
}
# L2 and L3: PyTorch's forward, and backward and optimizer together.
PYTORCH = {False: (7, 9), True: (12, 41)}

both_plans = pytest.mark.parametrize("sequence_parallel", [False, True],
                                     ids=["q6", "q7"])


def cross_entropy(logits, target):
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def transformer(cluster, ranks, sequence_parallel, module, x):
    return parallelized(cluster, module, {"tp": ranks},
                        transformer_plan(sequence_parallel),
                        cuts=cuts_by_heads(module, ranks), x=x)


def cuts_by_heads(module, ranks):
    """Heads stay whole: 4 on 3 ranks are 2, 2 and none."""
    cuts = transformer_cuts(module)
    if ARGS.heads % ranks == 0:
        return cuts
    own = -(-ARGS.heads // ranks) * (ARGS.dim // ARGS.heads)
    return {name: Packed(cut, ((ARGS.dim, own),)) if "attention" in name
            else cut for name, cut in cuts.items()}


def padded_to(size, ranks):
    return -(-size // ranks) * ranks


def expected_bytes(ranks, sequence_parallel):
    """(forward, backward): each collective moves one activation [batch,
    sequence, dim], but for positions, logits and norm gradients."""
    whole = BATCH * LENGTH * ARGS.dim * F64
    logits = BATCH * LENGTH * padded_to(ARGS.vocabulary, ranks) * F64
    norms = (2 * N + 1) * 2 * ARGS.dim * F64
    row = LENGTH * ARGS.dim * F64
    if sequence_parallel:  # positions, too, are padded to equal parts
        row = padded_to(LENGTH, ranks) * ARGS.dim * F64
        whole = BATCH * row
    forward = (1 + 2 * N) * whole + row + logits
    backward = (1 + 2 * N) * whole
    if sequence_parallel:
        forward += (1 + 2 * N) * whole
        backward += (1 + 2 * N) * whole + row + norms
    return forward, backward


def check_collectives(m, ranks, sequence_parallel):
    """Of a forward and backward, at a number of ranks."""
    if ranks == 1:
        assert_counts(m, forward={}, backward={}, optimizer={})
        assert_bytes(m, forward=0, backward=0, optimizer=0)
        return
    assert_counts(m, **COUNTS[sequence_parallel], optimizer={})
    forward, backward = expected_bytes(ranks, sequence_parallel)
    assert_bytes(m, forward=forward, backward=backward, optimizer=0)
    forward, rest = PYTORCH[sequence_parallel]  # where heads divide
    counts = m.comm_counts()
    assert total(counts, ["forward"]) <= forward
    assert total(counts, ["backward", "optimizer"]) <= rest


@both_plans
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_transformer(cluster, no_warnings, ranks, tied, sequence_parallel):
    module = Transformer(TransformerArgs(tied=tied))
    x = tokens(BATCH, LENGTH)
    with transformer(cluster, ranks, sequence_parallel, module, x) as case:
        case.check_start()
        cut = len(case.cuts)
        whole = len(list(module.parameters())) - cut
        assert_counts(case.m, materialize={
            "scatter": cut, "broadcast": whole} if ranks > 1 else {})
        case.check_forward(x)
        case.check_backward(x)
        check_collectives(case.m, ranks, sequence_parallel)
        case.check_adam_steps(x, tokens(BATCH, LENGTH, seed=1), cross_entropy)
        check_collectives(case.m, ranks, sequence_parallel)


def test_l10_a_tied_weight_is_one_parameter(cluster):
    """Both names give the one gradient, the sum of its two uses."""
    module = Transformer(TransformerArgs(tied=True))
    x = tokens(BATCH, LENGTH)
    with transformer(cluster, 4, False, module, x) as case:
        case.check_backward(x)
        gradients = case.m.gradients()
        both = [gradients[f"{name}.weight"]
                for name in ("tok_embeddings", "output")]
        assert torch.equal(*both)
        case.m.step(x, loss="sum", optimizer=sp.SGD(lr=0.1))
        state = case.m.state_dict()
        assert torch.equal(state["tok_embeddings.weight"],
                           state["output.weight"])
        assert_close(state["output.weight"],
                     module.output.weight - 0.1 * both[0])


# L9: what is trained (None: everything), and what PyTorch's backward and
# optimizer then run with sequence parallelism.
MIXED = ("tok_embeddings.weight", "layers.0.attention.wv.weight",
         "layers.0.feed_forward.w1.bias", "layers.1.ffn_norm.bias",
         "layers.1.feed_forward.w2.weight", "output.weight")
ENDS = ("tok_embeddings.weight", "output.weight")
NORM = ("norm.weight", "norm.bias")
FFN_NORM = ("layers.1.ffn_norm.weight", "layers.1.ffn_norm.bias")


@dataclasses.dataclass
class Thaw:
    trained: tuple
    backward: dict    # with sequence parallelism
    optimizer: int    # all-reduces there, with sequence parallelism
    whole: int        # backward all-reduces without sequence parallelism


RS5_AG5 = {"reduce_scatter": 5, "all_gather": 5}
THAWED = {
    "all": Thaw(None, {"reduce_scatter": 5, "all_gather": 6}, 30, 9),
    "output_and_norm": Thaw((*NORM, "output.weight"),
                            {"reduce_scatter": 1}, 6, 1),
    "both_ends": Thaw(ENDS, RS5_AG5, 0, 9),
    "both_ends_and_norm": Thaw((*ENDS, *NORM), RS5_AG5, 6, 9),
    "and_a_norm_within": Thaw((*ENDS, *NORM, *FFN_NORM), RS5_AG5, 12, 9),
    "six_of_all_kinds": Thaw(MIXED, RS5_AG5, 3, 9),
}


def freeze_all_but(module, trained):
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained is None or name in trained)


def check_thawed_counts(m, thaw, sequence_parallel):
    """At most PyTorch's; its all-reduces of the optimizer are our bucket."""
    if sequence_parallel:
        bucket = {"all_reduce": 1} if thaw.optimizer else {}
        assert_at_most(m, backward=thaw.backward | bucket, optimizer={})
    else:
        assert_at_most(m, backward={"all_reduce": min(thaw.whole, 1 + 2 * N)},
                       optimizer={})
    assert_counts(m, forward=COUNTS[sequence_parallel]["forward"])
    forward, backward = expected_bytes(4, sequence_parallel)
    assert_bytes(m, forward=forward, backward=backward, optimizer=0)


@both_plans
@pytest.mark.parametrize("name", THAWED)
def test_l9_partly_frozen(cluster, name, sequence_parallel):
    thaw = THAWED[name]
    module = Transformer(ARGS)
    freeze_all_but(module, thaw.trained)
    x, target = tokens(BATCH, LENGTH), tokens(BATCH, LENGTH, seed=1)
    with transformer(cluster, 4, sequence_parallel, module, x) as case:
        case.check_start()
        case.check_adam_steps(x, target, cross_entropy, steps=1)
        check_thawed_counts(case.m, thaw, sequence_parallel)
        trained = {n for n, p in module.named_parameters() if p.requires_grad}
        assert set(case.m.gradients()) == trained
        state = case.m.state_dict()
        for n, before in module.state_dict().items():
            assert torch.equal(state[n], before) == (n not in trained), n


def pytorch_transformer():
    """PyTorch's own, which ends in float(): float32 logits."""
    from torch.testing._internal.distributed._tensor import common_dtensor
    torch.manual_seed(5)
    args = common_dtensor.ModelArgs(dropout_p=0.0, weight_tying=True)
    return common_dtensor.Transformer(args).double()


@both_plans
def test_pytorchs_own_transformer(cluster, no_warnings, sequence_parallel):
    """Its plan as it is: heads are not divided by hand. The gradient of a sum
    is exact in float32, so gradients are as exact as ever."""
    module = pytorch_transformer()
    x = tokens(BATCH, LENGTH)
    with transformer(cluster, 4, sequence_parallel, module, x) as case:
        case.check_start()
        actual, expected = case.m(x), case.reference(x)
        assert actual.dtype == torch.float32
        assert_close(actual, expected)
        case.reference(x).sum().backward()
        case.m.forward_backward(x, loss="sum")
        check_gradients(case.m, case.reference)
        check_collectives(case.m, 4, sequence_parallel)
