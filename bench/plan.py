"""What planning takes, beside PyTorch's parallelize_module on the meta device.

No worker takes part, no parameter has data. Shardplane reads the request,
matches the plan, resolves it, compiles a training step (forward, backward,
collectives with their bytes) and reports placements, memory and the program;
PyTorch only places the parameters, on a process group that does nothing. Both
get the same module and plan for tensor parallelism over 8 ranks, in turns.

  llama    Llama 3.1 405B's shape, exported by torch.export
  linears  a tree of linears, as a description: no export

Milliseconds; the first round of each side warms up and is not counted.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import parallelize_module
from torch.testing._internal.distributed.fake_pg import FakeStore

from measure.figures import Figures, machine, print_table, quartiles, spread
from measure.planned import TP, linears, llama

PARTS = {"read": "read", "match": "match", "resolve": "resolve",
         "compile": "compile", "report": "report"}


def plan_once(path, rounds):
    """Part -> milliseconds by round, and sizes."""
    binary = os.path.join(os.environ["SHARDPLANE_BIN_DIR"], "bench", "plan")
    done = subprocess.run([binary, path, str(rounds)], check=True, text=True,
                          stdout=subprocess.PIPE)
    return json.loads(done.stdout)


class Torch:
    """parallelize_module by 8 ranks of which this process is one."""

    def __enter__(self):
        dist.init_process_group("fake", store=FakeStore(), rank=0,
                                world_size=TP)
        self._mesh = init_device_mesh("cpu", (TP,), mesh_dim_names=("tp",))
        return self

    def __exit__(self, *error):
        dist.destroy_process_group()

    def milliseconds(self, case):
        """Of one call, on a new module; and how many parameters it cut."""
        module = case.build()
        begin = time.perf_counter()
        parallelize_module(module, self._mesh, case.plan)
        took = 1e3 * (time.perf_counter() - begin)
        cut = sum(any(p.is_shard() for p in getattr(tensor, "placements", ()))
                  for tensor in module.parameters())
        return took, cut


def compare(case, rounds, torch_rounds):
    """Part -> milliseconds by round; sizes; PyTorch's milliseconds."""
    parts, theirs = {}, []
    with tempfile.TemporaryDirectory() as folder, Torch() as side:
        path = os.path.join(folder, "request")
        begin = time.perf_counter()
        request = case.asked()
        exported = time.perf_counter() - begin
        with open(path, "wb") as file:
            file.write(request.SerializeToString())
        size = os.path.getsize(path)
        for index in range(max(rounds, torch_rounds)):
            if index < torch_rounds:
                took, cut = side.milliseconds(case)
                theirs.append(took)
            if index < rounds:
                result = plan_once(path, 2)  # the first one warms up
                for part in PARTS:
                    parts.setdefault(part, []).append(result[part][1])
        if result["cut_parameters"] != cut:
            raise SystemExit(f"{case.text}: PyTorch cuts {cut} parameters, "
                             f"Shardplane {result['cut_parameters']}")
    return parts, result, theirs, exported, size


def report(case, name, figures, compared):
    parts, result, theirs, exported, size = compared
    whole = [sum(values) for values in zip(*parts.values())]
    row = [name]
    for part, values in [*parts.items(), ("all", whole)]:
        figures.add(f"plan_{part}", "ms", values, case=name)
        row.append(spread(quartiles(values)))
    figures.add("torch_parallelize_module", "ms", theirs, case=name)
    figures.add("peak_memory", "MB", [result["peak_mb"]], case=name)
    print(f"{name}: {case.text}: {result['modules']} modules, "
          f"{result['assignments']} assignments, {result['cut_parameters']} "
          f"parameters cut, {result['instructions']} instructions, "
          f"{result['distinct_calls']} calls of operators decided; a request "
          f"of {size / 1e6:.1f} MB made in {exported:.1f} s; "
          f"{result['peak_mb']:.0f} MB at the most", flush=True)
    return row + [spread(quartiles(theirs))]


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="./shardplane bench plan", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", metavar="A,B", default="llama,linears")
    parser.add_argument("--layers", type=int, default=126)
    parser.add_argument("--linears", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--torch-rounds", type=int, default=1,
                        help="PyTorch takes more than half a minute for "
                             "100,000 linears")
    parser.add_argument("--json", metavar="FILE",
                        help="also write the figures, one object each")
    options = parser.parse_args(arguments)
    cases = {"llama": llama(options.layers), "linears": linears(
        options.linears)}
    chosen = options.cases.split(",")
    for name in chosen:
        if name not in cases:
            parser.error(f"--cases: expected {', '.join(cases)}, got: {name}")
    torch.set_num_threads(1)
    figures = Figures("plan")
    print(machine())
    rows = [["case", *PARTS.values(), "all", "PyTorch's parallelize_module"]]
    for name in chosen:
        rows.append(report(cases[name], name, figures, compare(
            cases[name], options.rounds, options.torch_rounds)))
    print("\nMilliseconds: median (quartiles)")
    print_table(rows)
    if options.json:
        figures.write(options.json)


if __name__ == "__main__":
    main()
