"""./shardplane python -m tests.differential seed N | run | summary"""

import argparse
import sys

import torch

from tests.differential.generate import random_case
from tests.differential.results import Results, default_path, summary
from tests.differential.run import (
    Workers, explained, failure_of, run_seeds, seeds_for)

FIRST_SEED = 1000  # of runs that take new ones


def parse(arguments):
    parser = argparse.ArgumentParser(prog="tests.differential")
    parser.add_argument("--results", default=default_path(), metavar="FILE")
    commands = parser.add_subparsers(dest="command", required=True)
    seed = commands.add_parser("seed", help="one case again")
    seed.add_argument("seed", type=int)
    run = commands.add_parser("run", help="new seeds, added to the results")
    run.add_argument("--minutes", type=float, default=1)
    commands.add_parser("summary", help="what has been tried")
    return parser.parse_args(arguments)


def one(seed):
    case = random_case(seed)
    print(case)
    with Workers() as workers:
        failure = failure_of(workers.cluster(), case)
        print(explained(failure, workers) if failure else "passed")
    return failure is not None


def main(arguments):
    options = parse(arguments)
    results = Results(options.results)
    torch.set_num_threads(1)
    if options.command == "seed":
        return one(options.seed)
    failures = []
    if options.command == "run":
        failures = run_seeds(seeds_for(
            options.minutes, results.next_seed(FIRST_SEED)), results)
    print(summary(results.read()))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
