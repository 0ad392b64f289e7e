"""Titles, a bar while a model trains, and what its steps communicated."""

import sys
import time

from shardplane.report import human_bytes

_COLUMNS = 79


def title(text):
    print(f"\n{text}\n{'=' * len(text)}", flush=True)


def duration(seconds):
    """95.2 -> "1:35"."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"


class Progress:
    """A bar that moves on a terminal; a line now and then elsewhere.

    `tokens`: of one step, where a rate of them is to be shown.
    """

    def __init__(self, name, steps, tokens=0):
        self._name, self._steps, self._tokens = name, steps, tokens
        self._live = sys.stdout.isatty()
        self.started = self._shown = time.monotonic()
        self._step = 0

    def show(self, step, loss):
        self._step, now = step, time.monotonic()
        last = step == self._steps
        if self._live:
            if now - self._shown < 0.1 and not last:
                return
        elif step % max(self._steps // 5, 1) and not last:
            return
        self._shown = now
        line = self.line(step, loss, now)
        print("\r" + line.ljust(_COLUMNS) if self._live else line,
              end="" if self._live and not last else "\n", flush=True)

    def line(self, step, loss, now):
        """At most 79 columns: a longer one would not be overwritten."""
        seconds = max(now - self.started, 1e-9)
        if self._tokens:
            left = seconds * (self._steps / step - 1)
            width, rate = 12, (f"{self._tokens * step / seconds:6.0f} "
                               f"tokens/s  {duration(left)} left")
        else:
            width, rate = 30, f"{step / seconds:6.1f} steps/s"
        filled = width * step // self._steps
        return (f"{self._name:10} [{'#' * filled}{'.' * (width - filled)}] "
                f"{step:4}/{self._steps}  loss {loss:.4f}  {rate}")

    def rate(self):
        """Steps per second until now."""
        return self._step / max(time.monotonic() - self.started, 1e-9)


def print_step_collectives(m):
    counts, moved = m.comm_counts(), m.comm_bytes()
    print("Collectives of one step, as they ran, on each rank:")
    for phase in ("forward", "backward", "optimizer"):
        kinds = [f"{count} {kind} ({human_bytes(moved[phase][kind])})"
                 for kind, count in counts[phase].items()]
        print(f"  {phase:10}{', '.join(kinds) or 'none'}")
