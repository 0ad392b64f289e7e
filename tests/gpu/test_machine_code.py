"""What nvcc makes of our kernels, as far as their speed hangs on it: what a GPU
does with it is not seen here."""

import collections
import importlib.util
import os
import pathlib
import re
import subprocess

import pytest

IMAGE = (pathlib.Path(os.environ["SHARDPLANE_BIN_DIR"])
         / "worker/kernels/fused.fatbin")
GPU = "sm_90"


def _cuobjdump():
    triton = pathlib.Path(importlib.util.find_spec("triton").origin).parent
    return triton / "backends/nvidia/bin/cuobjdump"


@pytest.fixture(scope="module")
def instructions():
    """Kernel -> its instructions, how often each; none without nvcc."""
    found = {}
    if not IMAGE.stat().st_size:
        return found
    listing = subprocess.run(
        [_cuobjdump(), "-arch", GPU, "-sass", IMAGE], check=True,
        capture_output=True, text=True, timeout=60).stdout
    for line in listing.splitlines():
        if name := re.search(r"Function : (\w+)", line):
            counts = found[name[1]] = collections.Counter()
        elif op := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([\w.]+)",
                            line):
            counts[op[1].removesuffix(".CONSTANT")] += 1
    assert len(found) > 20
    return found


def of(counts, op):
    """Those of a kind -> how often."""
    return {name: count for name, count in counts.items()
            if name.split(".")[0] == op}


@pytest.mark.parametrize("kernel, loads, stores", [
    ("swiglu", 2, 1), ("swiglu_backward", 3, 2), ("rotary", 6, 2)])
def test_packs_are_loaded_and_stored_whole(instructions, kernel, loads, stores):
    """And else one by one, where they are not aligned."""
    if not instructions:
        return
    counts = instructions[kernel + "_bf16"]
    assert of(counts, "LDG") == {"LDG.E.128": loads, "LDG.E.U16": loads}
    assert of(counts, "STG") == {"STG.E.128": stores, "STG.E.U16": stores}


@pytest.mark.parametrize("kernel, stores", [
    ("rms_norm_bf16_1", 2), ("rms_norm_backward_bf16_1", 1),
    ("loss_backward_bf16", 1), ("cross_entropy_backward_bf16", 1),
    ("adam_bf16", 4)])
def test_rows_are_stored_in_packs(instructions, kernel, stores):
    if instructions:
        assert instructions[kernel]["STG.E.128"] == stores


def test_nothing_is_kept_in_memory_of_a_thread(instructions):
    """But by dropout, which indexes its words."""
    for kernel, counts in instructions.items():
        kept = of(counts, "STL") or of(counts, "LDL")
        assert not kept or kernel.startswith("dropout"), kernel


def test_exponentials_of_bf16_are_quick(instructions):
    """The GPU's own: with the careful ones it was 400."""
    if instructions:
        assert instructions["swiglu_bf16"].total() <= 240
