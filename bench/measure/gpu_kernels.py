"""Where a device's time goes in a step: what PyTorch's profiler has traced."""

import collections
import json

from measure.figures import print_table

_SHOWN = 15
_NAME_LENGTH = 100
# Of a GPU: all that runs there. Of a CPU: operators, each with those within it.
_CATEGORIES = {True: {"kernel", "gpu_memcpy", "gpu_memset"},
               False: {"cpu_op"}}


def kernel_times(trace, steps, on_gpu):
    """[(name, how often in a step, seconds of a step)], the longest first.
    `trace`: the JSON of so many steps."""
    counts, seconds = collections.Counter(), collections.Counter()
    for event in json.loads(trace)["traceEvents"]:
        if event.get("ph") == "X" and (
                event.get("cat") in _CATEGORIES[on_gpu]):
            counts[event["name"]] += 1
            seconds[event["name"]] += event["dur"] / 1e6
    return [(name, counts[name] / steps, total / steps)
            for name, total in seconds.most_common()]


def print_kernels(model_name, side, kernels):
    """A table of those that take longest, and the sum of all."""
    total = sum(seconds for _, _, seconds in kernels)
    calls = sum(count for _, count, _ in kernels)
    print(f"\n{model_name}: {side}: {total * 1e3:.2f} ms of a step in "
          f"{calls:.0f} kernels", flush=True)
    print_table([["ms", "%", "calls", "kernel"]] + [
        [f"{seconds * 1e3:.3f}", f"{100 * seconds / total:.1f}",
         f"{count:.0f}", name[:_NAME_LENGTH]]
        for name, count, seconds in kernels[:_SHOWN]])
