"""Training on one GPU beside PyTorch: forward, backward and AdamW in bf16.

All sides train the same Llama-style stack one after the other within each
round, on the same GPU, from the same parameters and on the same batch; the
order changes from round to round. Each side has a process of its own. A step
ends when its loss has been read. Warm-up and compilation are left out; the
latter is printed. Before the clock runs, the losses of the warm-up must agree.
Sides:

  shardplane    a cluster with one worker, through m.train; the batch travels
                with each step
  one_by_one    the same through m.step: a step is sent when the one before is
                answered and its loss read
  eager         PyTorch, with the fused AdamW
  eager_graphs  the same, a whole step captured in one CUDA graph
  compile       torch.compile of forward and loss, with the fused AdamW

"Over Shardplane" is the other side's time over ours, of the same round: above
1 Shardplane is the faster one. "Host %" is the share of a step in which the
host did not wait for the GPU: issuing operators, messages, the client. "Tensors
GiB" is the most that tensors took, "taken GiB" what the GPU's free memory fell
by when the side had taken its first steps: its context and what its allocator
keeps are in it.

A side that fails or does not answer in its time is a line, and the code at the
end is 1; the others go on. Figures are written as soon as they are known.
"""

import argparse
import os
import re
import sys

MODELS = ["tiny", "llama1b"]
SIDES = ["shardplane", "one_by_one", "eager", "eager_graphs", "compile"]
COMPILE_MODES = ["default", "reduce-overhead", "max-autotune",
                 "max-autotune-no-cudagraphs"]


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return value


def device(text):
    """"cuda:N" with its number."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(
            f"expected cpu, cuda or cuda:N, got: {text}")
    return "cuda:0" if text == "cuda" else text


def some_of(names):
    """A type: names out of these, with commas."""
    def parse(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(
                    f"expected some of {','.join(names)}, got: {name}")
        return chosen
    return parse


def parser():
    made = argparse.ArgumentParser(
        prog="./shardplane bench gpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--device", type=device, default="cuda:0", metavar="cuda:N|cpu")
    add("--models", type=some_of(MODELS), default=MODELS, metavar="A,B",
        help=f"default: {','.join(MODELS)}; llama1b has 1.1 B parameters")
    add("--sides", type=some_of(SIDES), default=SIDES, metavar="A,B",
        help="default: all")
    add("--minutes", type=float, default=8, help="for everything; default: 8")
    add("--rounds", type=positive, default=7, help="at most; default: 7")
    add("--round-seconds", type=float, default=2.0,
        help="of each side in a round; default: 2")
    add("--steps", type=positive, metavar="N",
        help="of each side in a round, instead")
    add("--batch", type=positive, help="default: 4, of tiny 1")
    add("--length", type=positive, help="default: 2048, of tiny 128")
    add("--kernels", type=positive, metavar="STEPS",
        help="then trace so many steps of each side: which kernels take how "
             "long")
    add("--written-norm", action="store_true",
        help="norms written out as in Llama's code, not nn.RMSNorm")
    add("--fused-operators", action=argparse.BooleanOptionalAction,
        default=True, help="of the coordinator")
    add("--cuda-graphs", action=argparse.BooleanOptionalAction,
        default=True, help="of the worker; CPUs have none")
    add("--coordinator-arg", action="append", default=[], metavar="FLAG",
        dest="coordinator_args", help="a further flag; may be repeated")
    add("--worker-arg", action="append", default=[], metavar="FLAG",
        dest="worker_args", help="the same for the worker")
    add("--compile-mode", choices=COMPILE_MODES, default="default")
    add("--json", metavar="FILE",
        help="also write the figures, one object each")
    return made


def main(arguments=None):
    options = parser().parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.fused_operators:
        options.coordinator_args.append("--fused_operators")
    if options.cuda_graphs:
        options.worker_args.append("--cuda_graphs")
    if options.kernels:
        options.worker_args.append("--profiling")
    # Not above: torch reads the environment when it is imported.
    from measure.gpu_comparison import compare
    sys.exit(0 if compare(options) else 1)


if __name__ == "__main__":
    main()
