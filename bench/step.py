"""Step time beside PyTorch: forward, backward and update of the same model.

All sides train one after the other within each round, on the same machine,
with one thread a process, from the same parameters and on the same batch; the
order changes from round to round. A step ends when its loss has been read, on
all ranks. Warm-up and torch.compile's compilation are left out for all alike;
the latter is printed. Before the clock runs, the losses of the warm-up must
agree. Sides:

  shardplane  a cluster of this machine, through m.train; the batch travels
              with each step
  one_by_one  the same through m.step: a step is sent when the one before is
              answered and its loss read
  eager       PyTorch's parallelize_module, DTensor over Gloo, as many ranks
  compile     the same with torch.compile (of a Transformer, block by block)
  plain       PyTorch in one process, the model not cut
  local       the operators that one rank has, in PyTorch and without
              collectives, on as many processes at once: what they take at
              least on this machine

A ratio is the other side's time over Shardplane's, of the same round: above 1
Shardplane is the faster one.
"""

import argparse
import os
import pathlib

MODELS = ["digits", "small", "mlp", "transformer"]


def set_environment():
    """For torch, here and in all child processes."""
    cache = os.environ.get("SHARDPLANE_CACHE") or (
        pathlib.Path.home() / ".cache" / "shardplane")
    os.environ["OMP_NUM_THREADS"] = "1"
    # Ranks compile at the same time: enough work for the cores.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    # What was compiled once; a second run compiles less.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR",
                          os.path.join(cache, "inductor"))


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return value


def models(text):
    names = text.split(",")
    for name in names:
        if name not in MODELS:
            raise argparse.ArgumentTypeError(
                f"expected some of {','.join(MODELS)}, got: {name}")
    return names


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="./shardplane bench step", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=models, default=MODELS,
                        metavar="A,B", help=f"default: {','.join(MODELS)}")
    parser.add_argument("--ranks", type=positive, default=4)
    parser.add_argument("--rounds", type=positive, default=11)
    parser.add_argument("--steps", type=positive, metavar="N",
                        help="of each side in a round; default: as many as "
                             "it does in --round-seconds")
    parser.add_argument("--round-seconds", type=float, default=0.5)
    parser.add_argument("--no-compile", action="store_true",
                        help="leave torch.compile out")
    parser.add_argument("--overlaps", action="store_true",
                        help="instead: data parallel over all ranks, with "
                             "each overlap of communication on and off")
    parser.add_argument("--json", metavar="FILE",
                        help="also write the figures, one object each")
    options = parser.parse_args(arguments)
    set_environment()
    # Not above: torch reads the environment when it is imported.
    if options.overlaps:
        from measure.overlaps import compare_overlaps as compare
    else:
        from measure.step_comparison import compare
    figures = compare(options)
    if options.json:
        figures.write(options.json)


if __name__ == "__main__":
    main()
