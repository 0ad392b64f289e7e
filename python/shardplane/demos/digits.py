"""Handwritten digits, learnt by a model that is cut over workers.

A small MLP is deployed on a cluster of this machine under a plan of PyTorch's
own styles, trained on scikit-learn's digits, and compared with the same run
in plain PyTorch. Exit code 1 if it did not learn, or learnt something else.
"""

import argparse
import sys
import warnings

import torch
from torch import nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel
from torch.nn import functional as F

import shardplane as sp
from shardplane.demos.progress import (Progress, print_step_collectives,
                                       title)

PLAN = {
    "net1": ColwiseParallel(),
    "net2": RowwiseParallel(),
    "net3": ColwiseParallel(output_layouts=Replicate()),
}
HIDDEN = 256
BATCH = 64
LR = 0.1
MOMENTUM = 0.9
MIN_ACCURACY = 0.95
# Sums of float32 in another order; they drift apart over some hundred steps.
MAX_LOSS_DIFFERENCE = 1e-3


class Digits(nn.Module):
    """64 pixels -> 10 classes."""

    def __init__(self):
        super().__init__()
        self.net1 = nn.Linear(64, HIDDEN)
        self.net2 = nn.Linear(HIDDEN, HIDDEN)
        self.net3 = nn.Linear(HIDDEN, 10)

    def forward(self, x):
        x = torch.relu(self.net1(x))
        x = torch.relu(self.net2(x))
        return self.net3(x)


def cross_entropy(logits, target):
    return F.cross_entropy(logits, target)


def load_digits(seed=0):
    """(train x, train y, held-out x, held-out y): 1438 and 359 images."""
    from sklearn.datasets import load_digits as load
    data = load()
    x = torch.tensor(data.data / 16, dtype=torch.float32)
    y = torch.tensor(data.target, dtype=torch.int64)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(
        seed))
    x, y = x[order], y[order]
    held_out = len(x) // 5
    return x[held_out:], y[held_out:], x[:held_out], y[:held_out]


def batches(x, y, steps, seed=1):
    """Mini-batches, shuffled anew each epoch."""
    generator = torch.Generator().manual_seed(seed)
    done = 0
    while True:
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - BATCH + 1, BATCH):
            if done == steps:
                return
            done += 1
            rows = order[start:start + BATCH]
            yield x[rows], y[rows]


def train_sharded(m, data, steps):
    """Losses, and steps per second."""
    optimizer = sp.SGD(lr=LR, momentum=MOMENTUM)
    progress, losses = Progress("Shardplane", steps), []
    for x, y in data:
        losses.append(m.step(x, targets=y, optimizer=optimizer).item())
        progress.show(len(losses), losses[-1])
    return losses, progress.rate()


def train_plain(module, data, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=LR,
                                momentum=MOMENTUM)
    progress, losses = Progress("PyTorch", steps), []
    for x, y in data:
        optimizer.zero_grad()
        loss = cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        progress.show(len(losses), losses[-1])
    return losses, progress.rate()


def accuracy(module, x, y):
    with torch.no_grad():
        return (module(x).argmax(-1) == y).double().mean().item()


def run(cluster, workers, steps):
    train_x, train_y, held_x, held_y = load_digits()
    torch.manual_seed(0)
    module = Digits()
    data = list(batches(train_x, train_y, steps))

    title(f"A 64-{HIDDEN}-{HIDDEN}-10 MLP on {workers} workers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they stand in the report
        m = cluster.parallelize_module(
            module, {"tp": workers}, PLAN, example_inputs=(data[0][0],),
            example_targets=(data[0][1],), loss=cross_entropy)
    print(m.report)

    title(f"Training on {len(train_x)} digits, {steps} steps of {BATCH}")
    losses, rate = train_sharded(m, data, steps)
    print_step_collectives(m)
    reached = accuracy(m, held_x, held_y)
    m.close()

    title("The same run in plain PyTorch, in this process")
    plain_losses, plain_rate = train_plain(module, data, steps)
    plain_reached = accuracy(module, held_x, held_y)
    difference = max(abs(a - b) for a, b in zip(losses, plain_losses))

    title("Result")
    print(f"{'':24}{'Shardplane':>12}{'PyTorch':>12}")
    print(f"{'held-out accuracy':24}{reached:>12.2%}{plain_reached:>12.2%}")
    print(f"{'last loss':24}{losses[-1]:>12.6f}{plain_losses[-1]:>12.6f}")
    print(f"{'steps per second':24}{rate:>12.1f}{plain_rate:>12.1f}")
    print(f"largest loss difference over {steps} steps: {difference:.2e}")
    return check(reached, difference)


def check(reached, difference):
    """The exit code, and why."""
    code = 0
    if not reached > MIN_ACCURACY:
        print(f"FAILED: held-out accuracy: expected above {MIN_ACCURACY:.0%},"
              f" got: {reached:.2%}")
        code = 1
    if not difference < MAX_LOSS_DIFFERENCE:
        print("FAILED: loss difference: expected below "
              f"{MAX_LOSS_DIFFERENCE:.0e}, got: {difference:.2e}")
        code = 1
    return code


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="shardplane demo digits",
                                     description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # as each worker: the machine is small
    with sp.LocalCluster(workers=options.workers) as cluster:
        return run(cluster, options.workers, options.steps)


if __name__ == "__main__":
    sys.exit(main())
