"""What a step costs beside the workers' own time, from the C++ client, and what
gRPC alone costs on this machine.

A cluster of this machine trains an MLP 10-16-10, batch 8. Beside it, in turns,
messages of the same sizes go to servers that do nothing: one that answers at
once, and one that passes each message on to as many further servers as there
are workers, and waits for all of them. All are processes of their own; clients
and servers of bare gRPC use its synchronous API, one message a step.

  one by one  a step, or message, is sent when the one before is answered
  stream      thousands, some of them unanswered at any time: the time of all
              over their number

The workers' own time is that of the slowest one: forward, backward and commit,
waiting for the other ranks included. What is left of a step is the time of the
coordinator, of the client and of what lies between. In a stream this goes on
beside the workers, so the processor time is shown too: of a step, in all
threads of the client, of the coordinator, and of all workers together.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import time
import urllib.request

import shardplane as sp
from measure.figures import Figures, machine, print_table

# Measurements, by the names that bench/rpc.cc has for them, in words.
BARE_ONE_BY_ONE = {
    "echo_call": "gRPC: call",
    "echo_message": "gRPC: message on a stream",
    "relay_by_calls": "gRPC: call, passed on by calls",
    "relay_by_streams": "gRPC: call, passed on by streams",
    "relay_of_streams": "gRPC: message, passed on by streams",
}
BARE_STREAMS = {
    "echo_stream": "gRPC: message",
    "relay_stream": "gRPC: message, passed on by streams",
}
# Parts of a step, in words.
STEP_PARTS = {
    "time": "step",
    "workers": "  the workers' own",
    "overhead": "  coordinator and RPC",
    "client": "    of it client and its RPC",
    "client_processor": "  processor time: client",
    "coordinator_processor": "  processor time: coordinator",
    "workers_processor": "  processor time: workers",
}


def binary():
    return os.path.join(os.environ["SHARDPLANE_BIN_DIR"], "bench", "rpc")


@contextlib.contextmanager
def processes(*commands):
    """Processes of the binary that end with their input."""
    with contextlib.ExitStack() as stack:
        started = []
        for command in commands:
            process = stack.enter_context(subprocess.Popen(
                [binary(), *command], text=True, bufsize=1,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            stack.callback(process.stdin.close)
            started.append(process)
        yield started


@contextlib.contextmanager
def servers(*commands):
    """Addresses of bare servers."""
    with processes(*(["--serve", *command] for command in commands)) as all_:
        yield [process.stdout.readline().strip() for process in all_]


def own_seconds(worker):
    """Of a worker's steps so far, as its metrics say."""
    url = f"http://{worker.http_address}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(value) for phase, value in re.findall(
        r'^shardplane_step_duration_seconds_sum\{.*phase="(\w+)".*\} (\S+)$',
        text, re.MULTILINE) if phase in ("train", "commit"))


def processor_seconds(pid):
    """Of all its threads: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


class Bench:
    """A cluster, bare servers, and the client of both."""

    def __init__(self, options, stack):
        enter = stack.enter_context
        self.cluster = enter(sp.LocalCluster(workers=options.workers))
        behind = ",".join(enter(servers(*[[]] * options.workers)))
        echo, calls, streams = enter(servers(
            [], [f"--pass_to={behind}"],
            [f"--pass_to={behind}", "--pass_by=streams"]))
        self.client, = enter(processes([
            f"--coordinator={self.cluster.address}",
            f"--workers={options.workers}", f"--echo={echo}",
            f"--relay_calls={calls}", f"--relay_streams={streams}"]))

    def ask(self, name, count, ahead=1):
        """Microseconds by name, lists."""
        self.client.stdin.write(f"{name} {count} {ahead}\n")
        line = self.client.stdout.readline()
        if not line:
            raise RuntimeError(f"the client ended in {name}: it says why above")
        return json.loads(line)

    def measure(self, name, count, ahead=1):
        """The same of steps of the cluster; also their parts that are one
        number for all `count`, in lists of one."""
        before = self._counters()
        times = self.ask(name, count, ahead)
        spent = {key: 1e6 * (value - before[key]) / count
                 for key, value in self._counters().items()}
        own = max(value for key, value in spent.items() if key[0] == "own")
        return times, {
            "workers": [own],
            "client_processor": [spent["processor", "client"]],
            "coordinator_processor": [spent["processor", "coordinator"]],
            "workers_processor": [sum(
                spent["processor", w.name] for w in self._workers())]}

    def _workers(self):
        return self.cluster.processes[1:]

    def _counters(self):
        """Seconds so far."""
        pids = {"client": self.client.pid}
        pids.update((p.name, p.pid) for p in self.cluster.processes)
        counters = {("own", w.name): own_seconds(w) for w in self._workers()}
        counters.update((("processor", name), processor_seconds(pid))
                        for name, pid in pids.items())
        return counters


def less(whole, part):
    return [a - b for a, b in zip(whole, part, strict=True)]


def one_by_one(bench, options):
    """Part -> microseconds."""
    times, parts = bench.measure("step", options.steps)
    return {**parts, "time": times["call"], "workers": times["workers"],
            "overhead": less(times["call"], times["workers"]),
            "client": less(times["call"], times["coordinator"])}


def stream(bench, options):
    times, parts = bench.measure("train", options.train_steps, options.ahead)
    return {**parts, "time": times["call"],
            "overhead": less(times["call"], parts["workers"])}


def sides(bench, options):
    """Name -> what one round of it yields: microseconds by part."""
    found = {"step": lambda: one_by_one(bench, options),
             "train": lambda: stream(bench, options)}
    for name in BARE_ONE_BY_ONE:
        found[name] = lambda name=name: {
            "time": bench.ask(name, options.steps)["call"]}
    for name in BARE_STREAMS:
        found[name] = lambda name=name: {"time": bench.ask(
            name, options.train_steps, options.ahead)["call"]}
    return found


def run(options):
    """Name -> part -> microseconds, of all rounds."""
    samples = {}
    with contextlib.ExitStack() as stack:
        found = sides(Bench(options, stack), options)
        order = list(found)
        for side in found.values():  # to warm up
            side()
        for _ in range(options.rounds):
            for name in order:
                parts = samples.setdefault(name, {})
                for part, values in found[name]().items():
                    parts.setdefault(part, []).extend(values)
            order.append(order.pop(0))
    return samples


def table(figures, title, samples, step, bare):
    """Prints it, and adds its figures."""
    rows = [["microseconds", "p50", "p90", "p99"]]

    def add(side, part, words):
        percentiles = figures.add_percentiles(
            "time", "us", samples[side][part], side=side, part=part)
        rows.append([words, *(f"{value:.0f}" for value in percentiles)])

    for part, words in STEP_PARTS.items():
        if part in samples[step]:
            add(step, part, words)
    for side, words in bare.items():
        add(side, "time", words)
    print(f"\n{title}")
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
    print(f"{machine()}; {options.workers} workers; {options.rounds} rounds",
          flush=True)
    samples = run(options)
    table(figures, f"One by one, {options.steps} a round", samples, "step",
          BARE_ONE_BY_ONE)
    table(figures, f"Streams of {options.train_steps}, at most "
          f"{options.ahead} unanswered", samples, "train", BARE_STREAMS)
    if options.json:
        figures.write(options.json)


if __name__ == "__main__":
    main()
