"""Shardplane: tensor parallelism as a service. The Python client.

    import shardplane as sp

    with sp.LocalCluster(workers=4) as cluster:
        m = cluster.parallelize_module(model, {"tp": 4}, plan,
                                       example_inputs=(x,))
        y = m(x)
        loss = m.step(x, loss="sum", optimizer=sp.SGD(lr=0.25))

Only `parallelize_module` of a torch module needs torch; a description, a
module as JSON, needs none (docs/descriptions.md).
"""

# Generated code (shardplane/v1) lies in another folder of the path.
__path__ = __import__("pkgutil").extend_path(__path__, __name__)

from shardplane.connection import Connection, connect
from shardplane.data_parallel import FullyShard
from shardplane.description import Description
from shardplane.errors import (
    AbortedError, AlreadyExistsError, Code, DataLossError,
    DeadlineExceededError, FailedPreconditionError, InternalError,
    InvalidArgumentError, NotFoundError, PermissionDeniedError, PlanTypeError,
    ResourceExhaustedError, ShardplaneError, UnauthenticatedError,
    UnavailableError, UnimplementedError)
from shardplane.explanation import Explanation
from shardplane.local_cluster import LocalCluster
from shardplane.mesh import device_mesh
from shardplane.old_api import (
    enable_2d_with_fsdp, loss_parallel, pre_dp_module_transform)
from shardplane.optimizers import SGD, Adam, AdamW
from shardplane.placements import Partial, Replicate, Shard
from shardplane.prepare import (
    make_input_replicate_1d, make_input_reshard_replicate,
    make_input_shard_1d, make_input_shard_1d_last_dim,
    make_output_replicate_1d, make_output_reshard_tensor,
    make_output_shard_1d, make_output_tensor, make_sharded_output_tensor)
from shardplane.report import Report
from shardplane.styles import (
    ColwiseParallel, InputReshard, LossParallel, PairwiseParallel,
    PairwiseSequenceParallel, ParallelStyle, PrepareModuleInput,
    PrepareModuleInputOutput, PrepareModuleOutput, RowwiseParallel,
    SequenceParallel)
from shardplane.watch import Watch
from shardplane.weights import Weights

__all__ = [name for name in dir() if not name.startswith("_")]


def __getattr__(name):
    # A torch module: torch is imported for it, and for it alone.
    if name == "TensorParallelMultiheadAttention":
        from shardplane.attention import TensorParallelMultiheadAttention
        return TensorParallelMultiheadAttention
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
