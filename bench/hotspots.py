"""Where a worker's processor time goes in a training step, by perf.

Trains each model for a while, as `bench step` does, and samples the worker of
rank 0 with its stacks. Prints the time of a step and rank by group, and the
symbols that took most. It is the time that processors worked, not the time
that passed: waiting that sleeps is not in it. Needs perf (Debian: linux-perf)
and the right to use it.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from step import models, positive, set_environment

WARM_UP = 20
SAMPLES_A_SECOND = 997
# Of each stack. Frames beyond are lost; those that tell are inner ones.
STACK_BYTES = 16384


def cpu_seconds(pid):
    """Of all threads that the process has."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat",
                  encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9


class Sampler:
    """perf on one process, within `with`."""

    def __init__(self, pid, path):
        self._command = ["perf", "record", f"--freq={SAMPLES_A_SECOND}",
                         f"--call-graph=dwarf,{STACK_BYTES}",
                         f"--pid={pid}", f"--output={path}"]
        self._path = path

    def __enter__(self):
        """Returns when samples are taken."""
        told, tell = os.pipe()
        heard, answer = os.pipe()
        # pylint: disable=consider-using-with
        self._process = subprocess.Popen(
            [*self._command, "--delay=-1", f"--control=fd:{told},{answer}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            pass_fds=(told, answer))
        os.close(told)
        os.close(answer)
        self._control = os.fdopen(tell, "w")
        self._control.write("enable\n")
        self._control.flush()
        with os.fdopen(heard) as answers:
            answers.readline()  # none where perf has ended: see lines
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGINT)
        self._errors = self._process.communicate()[1]
        self._control.close()

    def lines(self):
        """Of the stacks; exits where perf could not."""
        if not os.path.exists(self._path):
            sys.exit(f"expected perf to sample, got: {self._errors}")
        return subprocess.run(
            ["perf", "script", f"--input={self._path}", "--no-inline",
             "--fields=ip,sym,dso"],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True).stdout.splitlines()


def sample(side, name, options):
    """(CPU seconds a step of rank 0, lines of its stacks)."""
    side.prepare(name, WARM_UP)
    steps = WARM_UP
    seconds, _ = side.run("shardplane", steps)
    if seconds < options.seconds / 4:  # mostly the stream's beginning
        steps *= 10
        seconds, _ = side.run("shardplane", steps)
    steps = max(1, round(options.seconds * steps / seconds))
    pid = side.worker_pids()[0]
    with tempfile.TemporaryDirectory() as folder:
        sampler = Sampler(pid, os.path.join(folder, "perf.data"))
        with sampler:
            before = cpu_seconds(pid)
            side.run("shardplane", steps)
            cpu = (cpu_seconds(pid) - before) / steps
        lines = sampler.lines()
    side.forget()
    return cpu, lines


def show(figures, name, cpu, lines, symbols_shown):
    from measure.figures import print_table
    from measure.stacks import GROUPS, count_groups
    groups, symbols = count_groups(lines)
    samples = sum(groups.values())
    if samples == 0:
        sys.exit(f"{name}: expected samples, got: none")
    print(f"\n{name}: {cpu * 1e3:.2f} ms of CPU a step on rank 0; {samples} "
          "samples")
    rows = [["group", "%", "ms", "what it is"]]
    for group, count in groups.items():
        share = count / samples
        figures.add_summary("cpu_seconds", "s", (share * cpu,) * 3, count,
                            model=name, group=group)
        rows.append([group, f"{share * 100:.1f}", f"{share * cpu * 1e3:.2f}",
                     GROUPS[group]])
    print_table(rows)
    print()
    print_table([[f"{count / samples * 100:.1f}%", symbol[:100]]
                 for symbol, count in symbols.most_common(symbols_shown)])


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="./shardplane bench hotspots", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=models,
                        default=["digits", "mlp", "transformer"],
                        metavar="A,B", help="default: digits,mlp,transformer")
    parser.add_argument("--ranks", type=positive, default=4)
    parser.add_argument("--seconds", type=float, default=6.0,
                        help="about as long each model is sampled")
    parser.add_argument("--symbols", type=positive, default=12)
    parser.add_argument("--json", metavar="FILE",
                        help="also write the figures, one object each")
    options = parser.parse_args(arguments)
    if shutil.which("perf") is None:
        sys.exit("expected perf (Debian: apt-get install linux-perf), got: "
                 "none")
    set_environment()
    # Not above: torch reads the environment when it is imported.
    import torch
    from measure.figures import Figures, machine
    from measure.shardplane_side import ShardplaneSide
    torch.set_num_threads(1)
    figures = Figures("hotspots")
    print(f"{machine()}; {options.ranks} ranks of 1 thread", flush=True)
    side = ShardplaneSide(options.ranks)
    try:
        for name in options.models:
            show(figures, name, *sample(side, name, options), options.symbols)
    finally:
        side.close()
    if options.json:
        figures.write(options.json)


if __name__ == "__main__":
    main()
