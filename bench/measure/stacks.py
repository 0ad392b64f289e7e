"""Stacks that perf has sampled, by what a worker was doing."""

import collections
import re

FRAME = re.compile(r"\s*[0-9a-f]+ (?P<symbol>.*) \((?P<object>[^()]*)\)$")

# On what a stack is about, anywhere in it: the first that fits.
_WITHIN = [
    ("collectives", re.compile(
        r"shardplane::Communicator::|shardplane::Shm|gloo::")),
    ("update", re.compile(r"shardplane::Optimizers::")),
]
# Else the innermost frame, its symbol and object in one line.
_INNERMOST = [
    ("memory", re.compile(
        r"malloc|calloc|memalign|aligned_alloc|\bfree\b|cfree|_int_free"
        r"|unlink_chunk|operator (new|delete)|BlockCache|page_fault"
        r"|clear_page")),
    ("kernels", re.compile(
        r"Vectorized|[kK]ernel\w*(<|\(|$| )|_kernel_|flash_attention|Sleef_"
        r"|vml_|RowwiseMoments|loop_2d|serial_vec|outer_sum|vec::map"
        r"|perf-\d+\.map|\[JIT\]")),
]
# Else whose call it is: the first frame that is in one of these.
_CALLERS = [("LibTorch", re.compile(r"libtorch|libc10")),
            ("messages", re.compile(r"libgrpc|libprotobuf")),
            ("executor", re.compile(r"shardplane_worker"))]
_MATRIX_PRODUCT = re.compile(r"mkl_blas|gemm")
_EXECUTOR = re.compile(r"shardplane::(ExecutorThread|GangWorker|TorchExecutor"
                       r"|GangTensors|Prepared|WalkGraph)")

GROUPS = {
    "matrix products": "MKL",
    "kernels": "all other kernels of LibTorch",
    "LibTorch": "around its kernels: dispatcher, recording, views, iterators",
    "memory": "allocating and freeing, page faults",
    "collectives": "moving, reducing, waiting, copies for it",
    "update": "the optimizer",
    "executor": "our own code between operators",
    "messages": "gRPC, conversion, and all else",
}


def stacks(lines):
    """Lists of (symbol, object), the innermost frame first, from the lines of
    `perf script -F ip,sym,dso`."""
    frames = []
    for line in lines:
        match = FRAME.match(line.rstrip("\n"))
        if match:
            frames.append((match["symbol"],
                           match["object"].rsplit("/", 1)[-1]))
        elif frames:
            yield frames
            frames = []
    if frames:
        yield frames


def group_of(frames):
    """One of GROUPS."""
    symbols = [symbol for symbol, _ in frames]
    for group, pattern in _WITHIN:
        if any(map(pattern.search, symbols)):
            return group
    # MKL's frames do not lead to their callers.
    if _MATRIX_PRODUCT.search(symbols[0]):
        return "matrix products"
    innermost = " ".join(frames[0])
    for group, pattern in _INNERMOST:
        if pattern.search(innermost):
            return group
    if not any(map(_EXECUTOR.search, symbols)):
        return "messages"
    return next(group for _, where in frames for group, pattern in _CALLERS
                if pattern.search(where))


def count_groups(lines):
    """(samples by group, all GROUPS in their order; by innermost symbol)."""
    groups, symbols = dict.fromkeys(GROUPS, 0), collections.Counter()
    for frames in stacks(lines):
        groups[group_of(frames)] += 1
        symbols[frames[0][0]] += 1
    return groups, symbols
