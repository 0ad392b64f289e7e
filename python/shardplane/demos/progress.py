"""Titles, and a bar while a model trains."""

import sys
import time

_WIDTH = 30


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
        print(("\r" if self._live else "") + self.line(step, loss, now),
              end="" if self._live and not last else "\n", flush=True)

    def line(self, step, loss, now):
        seconds = max(now - self.started, 1e-9)
        filled = _WIDTH * step // self._steps
        parts = [f"{self._name:10} [{'#' * filled}{'.' * (_WIDTH - filled)}] "
                 f"{step:4}/{self._steps}", f"loss {loss:.4f}",
                 f"{step / seconds:6.1f} steps/s"]
        if self._tokens:
            left = seconds * (self._steps / step - 1)
            parts += [f"{self._tokens * step / seconds:6.0f} tokens/s",
                      f"{duration(left)} left"]
        return "  ".join(parts)

    def rate(self):
        """Steps per second until now."""
        return self._step / max(time.monotonic() - self.started, 1e-9)
