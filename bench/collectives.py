"""Collectives between processes of this machine: shared memory, Gloo, a limit.

The same collective of c10d through Shardplane's backend over shared memory and
through Gloo, in turns, by as many processes as there are ranks; and beside them
the limit, which is what moves the bytes in shared memory with a bare barrier
and no protocol: nobody can be told anything faster. Results of the two
backends are compared before the clock runs. A time is that of rank 0, of one
collective, of many that follow one another without a pause.
"""

import argparse

from measure.collective_times import run
from measure.figures import Figures, machine, print_table, spread

SIDES = ["shm", "gloo", "limit"]
SIZES = [4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20]
OPS = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"]


def size_of(text):
    units = {"K": 1 << 10, "M": 1 << 20}
    try:
        number, unit = ((text[:-1], units[text[-1]]) if text[-1:] in units
                        else (text, 1))
        return int(number) * unit
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected bytes, as 4096, 64K or 1M, got: {text}") from None


def names(text):
    chosen = text.split(",")
    for name in chosen:
        if name not in OPS:
            raise argparse.ArgumentTypeError(
                f"expected some of {','.join(OPS)}, got: {name}")
    return chosen


def label_of(size):
    for unit, bytes_ in (("MB", 1 << 20), ("KB", 1 << 10)):
        if size >= bytes_:
            return f"{size // bytes_} {unit}"
    return f"{size} B"


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="./shardplane bench collectives", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=lambda text: list(map(
        int, text.split(","))), default=[2, 4], metavar="N,M")
    parser.add_argument("--ops", type=names, default=OPS, metavar="A,B",
                        help=f"default: {','.join(OPS)}")
    parser.add_argument("--sizes", type=lambda text: list(map(
        size_of, text.split(","))), default=SIZES, metavar="N,M",
        help="bytes of a rank's buffer, the larger one where they differ; "
             "default: 4K,64K,1M,16M,64M")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--round-seconds", type=float, default=0.05,
                        help="of each side in a round, about")
    parser.add_argument("--json", metavar="FILE",
                        help="also write the figures, one object each")
    options = parser.parse_args(arguments)
    figures = Figures("collectives")
    print(f"{machine()}\n\nMicroseconds a collective: median (quartiles)")
    rows = [["collective", "ranks", "bytes", "shared memory", "Gloo", "limit",
             "Gloo / shm", "shm / limit", "GB/s"]]
    for op in options.ops:
        for ranks in options.ranks:
            for size in options.sizes:
                of = {"op": op, "ranks": ranks, "bytes": size}
                seconds = run(ranks, op, size, options.rounds,
                              options.round_seconds)
                triples = {side: figures.add("seconds", "s", seconds[side],
                                             side=side, **of)
                           for side in SIDES}
                slower = figures.add("gloo_over_shm", "1", [
                    a / b for a, b in zip(seconds["gloo"], seconds["shm"])],
                    **of)
                over = figures.add("shm_over_limit", "1", [
                    a / b for a, b in zip(seconds["shm"], seconds["limit"])],
                    **of)
                bandwidth = size / triples["shm"][1] / 1e9
                rows.append([op, str(ranks), label_of(size),
                             *(spread(triples[side], 1e6) for side in SIDES),
                             f"{slower[1]:.1f}", spread(over, digits=2),
                             f"{bandwidth:.2f}"])
    print_table(rows)
    if options.json:
        figures.write(options.json)


if __name__ == "__main__":
    main()
