"""Where the time of a step went."""

from __future__ import annotations

import dataclasses

from shardplane.v1 import coordinator_pb2 as pb


@dataclasses.dataclass(frozen=True)
class StepTiming:
    """In seconds, as the coordinator and its workers measure. What is left
    of `seconds` without run and commit is RPC and the coordinator's own."""

    seconds: float              # the whole step, in the coordinator
    run_seconds: float          # forward and backward, on the slowest rank
    collective_seconds: float   # of those; waiting for other ranks included
    commit_call_seconds: float  # the update on all ranks, RPC included

    @classmethod
    def from_proto(cls, result: pb.StepResult) -> StepTiming:
        """Of a StepResult."""
        return cls(seconds=result.duration_seconds,
                   run_seconds=result.timing.run_seconds,
                   collective_seconds=result.timing.collective_seconds,
                   commit_call_seconds=result.timing.commit_call_seconds)
