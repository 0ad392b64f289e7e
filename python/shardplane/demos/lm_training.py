"""How the language model is trained, judged and let speak: sharded or not.

Both runs take the same batches and the same hyperparameters, step by step.
"""

import math

import torch
from torch.nn import functional as F

import shardplane as sp
from shardplane.demos.lm_model import (NORMS, cross_entropy,
                                           parameter_groups)

BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
WARM_UP = 20  # steps
TEMPERATURE = 0.5


def learning_rate(step, steps, peak):
    """Of step 0, 1, ...: up in WARM_UP steps, down to a tenth as a cosine."""
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    part = (step - WARM_UP) / max(steps - WARM_UP, 1)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * part)))


def _finite(loss, step):
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"loss of step {step + 1}: expected a finite "
                                 f"number, got: {value}")
    return value


def train_sharded(m, batches, peak, progress):
    """A loss and a StepTiming for each step. FloatingPointError: a loss that
    is not finite."""
    losses, timings, steps = [], [], len(batches)
    for step, (x, y) in enumerate(batches):
        optimizer = sp.AdamW(
            lr=learning_rate(step, steps, peak), betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            groups={NORMS: {"weight_decay": 0.0}})
        loss = m.step(x, targets=y, optimizer=optimizer, clip_norm=CLIP_NORM)
        losses.append(_finite(loss, step))
        timings.append(m.last_timing())
        progress.show(step + 1, losses[-1])
    return losses, timings


def train_plain(module, batches, peak, progress):
    """A loss for each step, or FloatingPointError."""
    optimizer = torch.optim.AdamW(parameter_groups(module, WEIGHT_DECAY),
                                  betas=BETAS)
    losses, steps = [], len(batches)
    for step, (x, y) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        optimizer.zero_grad()
        loss = cross_entropy(module(x), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
        optimizer.step()
        losses.append(_finite(loss, step))
        progress.show(step + 1, losses[-1])
    return losses


@torch.no_grad()
def perplexity(forward, batches):
    """Over all targets but -1; `forward`: tokens -> logits."""
    total, count = 0.0, 0
    for x, y in batches:
        total += F.cross_entropy(forward(x).flatten(0, 1).double(),
                                 y.flatten(), ignore_index=-1,
                                 reduction="sum").item()
        count += (y != -1).sum().item()
    return math.exp(total / count)


@torch.no_grad()
def generate(forward, prompt, count, window, seed):
    """`prompt` (tokens) and `count` sampled ones after it.

    Each call of `forward` is i64[1, window] -> logits, so that one program
    serves all: what stands right of the last token cannot be seen by it.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = list(prompt)
    for _ in range(count):
        seen = tokens[-window:]
        padded = torch.tensor([seen + [0] * (window - len(seen))])
        logits = forward(padded)[0, len(seen) - 1].double()
        chances = (logits / TEMPERATURE).softmax(-1)
        tokens.append(torch.multinomial(chances, 1,
                                        generator=generator).item())
    return tokens
