"""Where the time of a step went."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class StepTiming:
    """In seconds, as the coordinator and its workers measure. What is left
    of `seconds` without run and commit is RPC and the coordinator's own."""

    seconds: float              # the whole step, in the coordinator
    run_seconds: float          # forward and backward, on the slowest rank
    collective_seconds: float   # of those; waiting for other ranks included
    commit_call_seconds: float  # the update on all ranks, RPC included

    @classmethod
    def from_proto(cls, result):
        """Of a StepResult."""
        return cls(seconds=result.duration_seconds,
                   run_seconds=result.timing.run_seconds,
                   collective_seconds=result.timing.collective_seconds,
                   commit_call_seconds=result.timing.commit_call_seconds)
