"""What a step costs beside the workers' own time, from the C++ client, and what
gRPC alone costs on this machine.

A cluster of this machine trains an MLP 10-16-10, batch 8. Beside it, in turns,
messages of the same sizes go to servers that do nothing: one that answers at
once, and one that passes each message on to as many further servers as there
are workers, and waits for them. All are processes of their own; client and
bare servers use gRPC's synchronous API.

  one by one  a step, or message, is sent when the one before is answered
  stream      some thousands, with a few of them unanswered at any time: the
              time of all over their number

The workers' own time is that of the slowest rank: forward, backward and
commit, collectives included. What is left of a step is the coordinator's and
the RPCs' time. In a stream it may come out below what the processors spend
for it: the workers run meanwhile.
"""

import argparse
import contextlib
import json
import os
import subprocess

import shardplane as sp
from measure.figures import Figures, machine, print_table

# figure -> (what it is, in words; microseconds of the samples by name)
ONE_BY_ONE = {
    "step": ("step", lambda t: t["step"]),
    "step_workers": ("  the workers' own", lambda t: t["step_in_workers"]),
    "step_overhead": ("  coordinator and RPC",
                      lambda t: less(t["step"], t["step_in_workers"])),
    "step_client": ("    of it client and its RPC",
                    lambda t: less(t["step"], t["step_in_coordinator"])),
    "echo_call": ("gRPC: call", lambda t: t["echo_call"]),
    "echo_message": ("gRPC: message on a stream",
                     lambda t: t["echo_message"]),
    "relay_by_calls": ("gRPC: call, passed on by calls",
                       lambda t: t["relay_by_calls"]),
    "relay_by_streams": ("gRPC: call, passed on by streams",
                         lambda t: t["relay_by_streams"]),
    "relay_of_streams": ("gRPC: message, passed on by streams",
                         lambda t: t["relay_of_streams"]),
}
STREAM = {
    "train": ("step", lambda t: t["train"]),
    "train_workers": ("  the workers' own", lambda t: t["train_in_workers"]),
    "train_overhead": ("  coordinator and RPC",
                       lambda t: less(t["train"], t["train_in_workers"])),
    "echo_stream": ("gRPC: message", lambda t: t["echo_stream"]),
    "relay_stream": ("gRPC: message, passed on by streams",
                     lambda t: t["relay_stream"]),
}


def less(whole, part):
    return [a - b for a, b in zip(whole, part, strict=True)]


def binary():
    return os.path.join(os.environ["SHARDPLANE_BIN_DIR"], "bench", "rpc")


@contextlib.contextmanager
def servers(count, *options):
    """Addresses of that many bare servers."""
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen(
                [binary(), "--serve", *options], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            stack.callback(process.stdin.close)  # which ends it
            processes.append(process)
        yield [p.stdout.readline().strip() for p in processes]


def run(options):
    """Microseconds by name."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(sp.LocalCluster(workers=options.workers))
        behind = ",".join(stack.enter_context(servers(options.workers)))
        echo, = stack.enter_context(servers(1))
        calls, = stack.enter_context(servers(1, f"--pass_to={behind}"))
        streams, = stack.enter_context(
            servers(1, f"--pass_to={behind}", "--pass_by=streams"))
        done = subprocess.run(
            [binary(), f"--coordinator={cluster.address}",
             f"--workers={options.workers}", f"--echo={echo}",
             f"--relay_calls={calls}", f"--relay_streams={streams}",
             f"--rounds={options.rounds}", f"--steps={options.steps}",
             f"--train_steps={options.train_steps}",
             f"--ahead={options.ahead}"],
            check=True, text=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def add(figures, kinds, times):
    rows = [["microseconds", "p50", "p90", "p99"]]
    for figure, (words, of) in kinds.items():
        percentiles = figures.add_percentiles(figure, "us", of(times))
        rows.append([words, *(f"{value:.0f}" for value in percentiles)])
    print_table(rows)


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return value


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="./shardplane bench rpc", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=positive, default=4)
    parser.add_argument("--rounds", type=positive, default=11)
    parser.add_argument("--steps", type=positive, default=200,
                        help="of each side in a round, one by one")
    parser.add_argument("--train-steps", type=positive, default=2000,
                        help="of each side in a round, in a stream")
    parser.add_argument("--ahead", type=positive, default=32,
                        help="steps of a stream without an answer, at most")
    parser.add_argument("--json", metavar="FILE",
                        help="also write the figures, one object each")
    options = parser.parse_args(arguments)
    figures = Figures("rpc")
    print(f"{machine()}; {options.workers} workers; {options.rounds} rounds")
    times = run(options)
    print(f"\nOne by one, {options.steps} a round")
    add(figures, ONE_BY_ONE, times)
    print(f"\nStreams of {options.train_steps}, at most {options.ahead} "
          "unanswered")
    add(figures, STREAM, times)
    if options.json:
        figures.write(options.json)


if __name__ == "__main__":
    main()
