"""What the executor adds to an operator, beside direct calls of LibTorch.

A segment of 200 tiny operators runs as a worker runs it, and as a plain loop
of at:: calls that does the same, in turns: forward alone (nothing recorded),
with recording on, and with its backward. Times are CPU time of the thread that
runs it, so that other processes do not count.
"""

import argparse
import json
import os
import subprocess

from measure.figures import Figures, machine, print_table, spread

MODES = {"forward": "forward", "recorded": "forward, recorded",
         "train": "forward and backward"}


def run(rounds):
    """One object an operator and mode, as bench/ops.cc prints them."""
    binary = os.path.join(os.environ["SHARDPLANE_BIN_DIR"], "bench", "ops")
    done = subprocess.run([binary, str(rounds)], check=True, text=True,
                          stdout=subprocess.PIPE)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="./shardplane bench ops", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=201)
    parser.add_argument("--json", metavar="FILE",
                        help="also write the figures, one object each")
    options = parser.parse_args(arguments)
    figures = Figures("ops")
    print(machine())
    print("\nNanoseconds an operator: median (quartiles)")
    rows = [["operator", "mode", "executor", "direct", "difference"]]
    for result in run(options.rounds):
        row = [result["op"], MODES[result["mode"]]]
        for what in ("executor", "direct", "difference"):
            figures.add_summary(f"{what}_per_op", "ns", result[what],
                                result["samples"], op=result["op"],
                                mode=result["mode"])
            row.append(spread(result[what], digits=0))
        rows.append(row)
    print_table(rows)
    if options.json:
        figures.write(options.json)


if __name__ == "__main__":
    main()
