"""Times of single collectives, by the program that bench/collectives.cc is."""

import functools
import json
import os
import statistics
import subprocess


def run(ranks, op, size, rounds, round_seconds):
    """Side ("shm", "gloo", "limit") -> seconds of a collective, one a round.
    `size`: bytes of a rank's buffer, the larger one where they differ."""
    binary = os.path.join(os.environ["SHARDPLANE_BIN_DIR"], "bench",
                          "collectives")
    done = subprocess.run(
        [binary, f"--ranks={ranks}", f"--op={op}", f"--bytes={size}",
         f"--rounds={rounds}", f"--seconds={round_seconds}"],
        check=True, text=True, stdout=subprocess.PIPE,
        env=dict(os.environ, OMP_NUM_THREADS="1"))
    return json.loads(done.stdout)


@functools.cache
def _alone(ranks, op, size):
    return statistics.median(run(ranks, op, size, 5, 0.02)["shm"])


def sum_of(ranks, counts, sizes):
    """Seconds that a step's collectives take one after the other, over shared
    memory, with nothing else to do. `counts`, `sizes`: phase -> kind -> number,
    and -> bytes of all together; each is taken for as large as their mean."""
    return sum(
        count * _alone(ranks, kind, max(4, sizes[phase][kind] // count))
        for phase, kinds in counts.items() for kind, count in kinds.items()
        if count)
