"""A language model, trained by workers that each hold a part of it.

A decoder (rotary positions, RMSNorm, SwiGLU, grouped-query attention) is cut
by a plan of PyTorch's own styles: tensor, sequence and loss parallel. It
learns from the licence texts of Debian's base-files, beside the same run in
plain PyTorch. Exit code 1 if it learnt too little, or something else.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings

import torch

import shardplane as sp
from shardplane.demos import lm_training as training
from shardplane.demos.chart import save_picture, text_chart
from shardplane.demos.lm_model import PLAN, Decoder, Sizes, cross_entropy
from shardplane.demos.lm_text import HELD_OUT, RUN, TRAINING, Corpus
from shardplane.demos.progress import (Progress, duration,
                                       print_step_collectives, title)
from shardplane.report import human_bytes

DTYPES = {"float32": torch.float32, "float64": torch.float64}
# Rounding alone, over 200 steps in float32: plain PyTorch that cuts two sums a
# layer in four differs from itself by 1e-6, and the workers, which cut them
# all, differ from it by 1e-5. In float64 it is 1e-14.
MAX_LOSS_DIFFERENCE = {"float32": 1e-4, "float64": 1e-9}
PROMPT = "You may"
GENERATED = 48  # tokens


def parser():
    result = argparse.ArgumentParser(
        prog="shardplane demo lm", description=__doc__.split("\n\n")[1])
    add = result.add_argument

    def add_number(name, default, text):
        add(name, type=type(default), default=default, metavar="N",
            help=f"{text} (%(default)s)")

    add_number("--workers", 4, "processes to cut it over")
    add_number("--steps", 200, "optimizer steps")
    add_number("--batch", 8, "sequences a step")
    add_number("--sequence", 128, "tokens a sequence")
    add_number("--vocabulary", 1021,
               "tokens, at least 256; a prime cuts unevenly")
    add_number("--layers", 3, "blocks")
    add_number("--dim", 256, "width of the stream between them")
    add_number("--heads", 8, "query heads")
    add_number("--kv-heads", 4, "key and value heads")
    add_number("--lr", 1e-3, "highest learning rate")
    add_number("--threads", len(os.sched_getaffinity(0)),
               "threads of the run in plain PyTorch")
    add_number("--seed", 0, "of initial weights, batches and sampled text")
    add("--dtype", choices=sorted(DTYPES), default="float32",
        help="of the parameters (%(default)s)")
    add("--no-torch", action="store_true",
        help="leave out the run in plain PyTorch")
    add("--picture", metavar="FILE",
        help="where the curves go as a PNG (a new file in the temporary "
             "folder)")
    return result


def sizes_of(options):
    """SwiGLU's hidden size is 8/3 of the width, rounded up to 16."""
    return Sizes(vocabulary=options.vocabulary, sequence=options.sequence,
                 layers=options.layers, dim=options.dim, heads=options.heads,
                 kv_heads=options.kv_heads,
                 hidden=-(-options.dim * 8 // (3 * 16)) * 16)


def check_options(refuse, options):
    for name in ("workers", "steps", "batch", "sequence", "layers", "heads",
                 "kv_heads", "threads"):
        if getattr(options, name) < 1:
            refuse(f"--{name.replace('_', '-')}: expected at least 1, got: "
                   f"{getattr(options, name)}")
    if options.vocabulary < 256:
        refuse(f"--vocabulary: expected at least 256, got: "
               f"{options.vocabulary}")
    if options.dim < 1 or options.dim % (2 * options.heads):
        refuse(f"--dim: expected a multiple of {2 * options.heads} (twice "
               f"--heads), got: {options.dim}")
    if options.heads % options.kv_heads:
        refuse(f"--heads: expected a multiple of --kv-heads "
               f"{options.kv_heads}, got: {options.heads}")
    if options.picture:
        try:
            with open(options.picture, "ab"):
                pass
        except OSError as error:
            refuse(f"--picture: {error}")


def new_picture():
    handle, path = tempfile.mkstemp(prefix="shardplane-lm-", suffix=".png")
    os.close(handle)
    return path


def print_plan(report):
    """Each pattern's style once, with what it cuts; then what that costs."""
    patterns = {}
    for a in report.assignments:
        cut = ", ".join(f"{p.name} {p.text}" for p in a.parameters)
        modules, _ = patterns.get(a.pattern, (0, None))
        patterns[a.pattern] = (modules + 1, f"{a.style:20} {cut}")
    for pattern, (modules, line) in patterns.items():
        print(f"  {pattern:28} {modules:2} x {line}".rstrip())
    for m in report.memory:
        print(f"  rank {m.rank}: {human_bytes(m.parameter_bytes)} of "
              f"parameters, {human_bytes(m.peak_activation_bytes)} of "
              "activations")
    for d in report.warnings:
        print(f"  warning: {d.message}")
    for d in report.notes:
        print(f"  note: {d.message}")


def print_times(timings, rate):
    """Where a step's time goes, as the mean over all steps."""
    def mean(name):
        return 1e3 * sum(getattr(t, name) for t in timings) / len(timings)

    whole, run = 1e3 / rate, mean("run_seconds")
    waits, update = mean("collective_seconds"), mean("commit_call_seconds")
    print(f"A step of {whole:.0f} ms: {run - waits:.0f} ms of forward and "
          f"backward, {waits:.0f} ms of collectives (with waiting for other "
          f"ranks), {update:.0f} ms of update, {whole - run - update:.0f} ms "
          "between")


class Run:
    """What one way of training gave."""

    def __init__(self, losses, rate, perplexity):
        self.losses = losses
        self.rate = rate              # steps per second
        self.perplexity = perplexity  # held-out


class Demo:
    """Corpus, model and batches, which both runs share."""

    def __init__(self, options):
        self._options = options
        self._sizes = sizes_of(options)
        self.corpus = Corpus.load(options.vocabulary)
        shape = (options.batch, options.sequence)
        self._batches = list(self.corpus.batches(options.steps, *shape,
                                                 options.seed))
        self._held_out = self.corpus.held_out_batches(*shape)
        torch.manual_seed(options.seed)
        self._module = Decoder(self._sizes).to(DTYPES[options.dtype])

    def describe(self):
        options, sizes, corpus = self._options, self._sizes, self.corpus
        count = sum(p.numel() for p in self._module.parameters())
        title(f"A decoder of {count / 1e6:.1f} million parameters on "
              f"{options.workers} workers")
        print(f"{sizes.layers} layers, dim {sizes.dim}, {sizes.heads} heads, "
              f"{sizes.kv_heads} kv heads, hidden {sizes.hidden}, vocabulary "
              f"{corpus.tokenizer.vocabulary}; {options.steps} steps of "
              f"{options.batch} x {options.sequence} tokens, {options.dtype}")
        print(f"trained on {len(corpus.train)} tokens: {', '.join(TRAINING)}")
        print(f"held out: {len(corpus.held_out)} tokens: "
              f"{', '.join(HELD_OUT)} ({corpus.shared:.1%} of their runs of "
              f"{RUN} words also stand in the training texts)")

    def _progress(self, name):
        options = self._options
        return Progress(name, options.steps, options.batch * options.sequence)

    def run_sharded(self, cluster):
        options = self._options
        x, y = self._batches[0]
        began = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they stand in the report
            m = cluster.parallelize_module(
                self._module, {"tp": options.workers}, PLAN,
                example_inputs=(x,), example_targets=(y,),
                loss=cross_entropy)
        print(f"exported, planned and handed out in "
              f"{time.monotonic() - began:.1f} s:")
        with m:
            print_plan(m.report)
            title("Training on the workers: tensor, sequence and loss "
                  "parallel")
            progress = self._progress("Shardplane")
            losses, timings = training.train_sharded(
                m, self._batches, options.lr, progress)
            rate = progress.rate()
            print_times(timings, rate)
            print_step_collectives(m)
            result = Run(losses, rate, training.perplexity(m, self._held_out))
            self._speak(m)
        return result

    def _speak(self, forward):
        tokenizer = self.corpus.tokenizer
        tokens = training.generate(
            forward, tokenizer.encode(PROMPT), GENERATED,
            self._options.sequence, self._options.seed)
        text = tokenizer.decode(tokens).replace("\n", " / ")
        print(f"It goes on after {PROMPT!r}:\n  {text}")

    def run_plain(self):
        torch.set_num_threads(self._options.threads)
        title("The same run in plain PyTorch, in this process "
              f"(threads: {self._options.threads})")
        progress = self._progress("PyTorch")
        losses = training.train_plain(self._module, self._batches,
                                      self._options.lr, progress)
        return Run(losses, progress.rate(),
                   training.perplexity(self._module, self._held_out))


def print_results(runs, demo, options):
    title("Result")
    print(text_chart({name: run.losses for name, run in runs.items()}))
    print()
    tokens = options.batch * options.sequence

    def row(name, form, value):
        print(f"{name:26}" + "".join(f"{format(value(run), form):>12}"
                                     for run in runs.values()))

    print(" " * 26 + "".join(f"{name:>12}" for name in runs))
    row("held-out perplexity", ".2f", lambda run: run.perplexity)
    row("last loss", ".6f", lambda run: run.losses[-1])
    row("steps per second", ".2f", lambda run: run.rate)
    row("tokens per second", ".0f", lambda run: run.rate * tokens)
    print(f"held-out perplexity of one who only counts how often each token "
          f"stands in the training texts: "
          f"{demo.corpus.unigram_perplexity():.2f}")
    if len(runs) == 2:
        sharded, plain = runs.values()
        print(f"largest loss difference over {options.steps} steps: "
              f"{difference(sharded, plain):.2e}")
        print(f"a step on {options.workers} workers takes "
              f"{plain.rate / sharded.rate:.2f} times as long as in plain "
              f"PyTorch, on the same {len(os.sched_getaffinity(0))} cores")


def difference(one, other):
    return max(abs(a - b) for a, b in zip(one.losses, other.losses))


def check(runs, demo, options):
    """The exit code, and why."""
    code = 0
    bound = demo.corpus.unigram_perplexity()
    for name, run in runs.items():
        if not run.perplexity < bound:
            print(f"FAILED: held-out perplexity of {name}: expected below "
                  f"{bound:.2f}, got: {run.perplexity:.2f}")
            code = 1
    allowed = MAX_LOSS_DIFFERENCE[options.dtype]
    if len(runs) == 2 and not difference(*runs.values()) < allowed:
        print(f"FAILED: loss difference: expected below {allowed:.0e}, got: "
              f"{difference(*runs.values()):.2e}")
        code = 1
    return code


def run(options):
    began = time.monotonic()
    torch.set_num_threads(1)  # the workers have the cores
    demo = Demo(options)
    demo.describe()
    with sp.LocalCluster(workers=options.workers) as cluster:
        runs = {"Shardplane": demo.run_sharded(cluster)}
    if not options.no_torch:
        runs["PyTorch"] = demo.run_plain()
    print_results(runs, demo, options)
    picture = options.picture or new_picture()
    save_picture(picture, {name: run.losses for name, run in runs.items()},
                 f"{options.workers} workers, {options.steps} steps")
    print(f"the curves as a picture: {picture}")
    print(f"all in all: {duration(time.monotonic() - began)}")
    return check(runs, demo, options)


def main(arguments=None):
    options_parser = parser()
    options = options_parser.parse_args(arguments)
    check_options(options_parser.error, options)
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\ninterrupted: the cluster has ended", flush=True)
        return 130
    except (sp.ShardplaneError, FloatingPointError) as error:
        print(f"FAILED: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
