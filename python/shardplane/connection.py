"""A connection to a coordinator, and what can be asked of it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import grpc

from shardplane.errors import unimplemented
from shardplane.rpc import Rpc, request_id
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.watch import Watch

if TYPE_CHECKING:
    from shardplane.handle import DeployedModule
    from shardplane.report import Report


class Calls:
    """What can be asked of the coordinator that `rpc` reaches. Messages are
    those of proto/shardplane/v1/coordinator.proto."""

    rpc: Rpc

    @overload
    def parallelize_module(
            self, module: Any, mesh: Any = None, plan: Any = None, *,
            validate_only: Literal[True], **options: Any) -> Report: ...

    @overload
    def parallelize_module(
            self, module: Any, mesh: Any = None, plan: Any = None,
            **options: Any) -> DeployedModule: ...

    def parallelize_module(self, module: Any, mesh: Any = None,
                           plan: Any = None,
                           **options: Any) -> DeployedModule | Report:
        """A module on a mesh under a plan: see CLIENT.md.

        `module`: a torch module, or a description of one (a path, a dict, an
        sp.Description), which needs no torch here.
        """
        from shardplane.deploy import deploy
        return deploy(self.rpc, module, mesh, plan, **options)

    def restore(self, path: str | os.PathLike, *, mesh: Any = None,
                plan: Any = None) -> DeployedModule:
        """Not in this release: UNIMPLEMENTED."""
        del path, mesh, plan
        raise unimplemented("restore")

    def workers(self) -> list[pb.WorkerNode]:
        """The WorkerNode messages of all workers."""
        return self._list("ListWorkers", pb.ListWorkersRequest(), "workers")

    def deployments(self) -> list[pb.Deployment]:
        """The Deployment messages of all that there are."""
        return self._list("ListDeployments", pb.ListDeploymentsRequest(),
                          "deployments")

    def modules(self) -> list[pb.ModuleResource]:
        """The ModuleResource messages of modules that are kept by name."""
        return self._list("ListModules", pb.ListModulesRequest(), "modules")

    def operations(self) -> list[pb.Operation]:
        """What lasts, and has lasted in the last 24 hours."""
        return self._list("ListOperations", pb.ListOperationsRequest(),
                          "operations")

    def wait_operation(self, name: str, timeout: float = 600) -> pb.Operation:
        """The operation once it is over, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            request = pb.WaitOperationRequest(name=name)
            request.timeout.FromMilliseconds(int(1e3 * min(left, 30)))
            operation = self.rpc.call("WaitOperation", request)
            if operation.state != pb.Operation.STATE_RUNNING or left == 0:
                return operation

    def cancel_operation(self, name: str) -> pb.Operation:
        """Ends it; its deployment is then FAILED."""
        return self.rpc.call("CancelOperation", pb.CancelOperationRequest(
            name=name, request_id=request_id()))

    def events(self, resource: str = "") -> list[pb.Event]:
        """What has happened, oldest first; of one resource or of all."""
        return self._list("ListEvents",
                          pb.ListEventsRequest(resource=resource), "events")

    def steps(self, deployment: str, after: int = 0) -> list[pb.StepResult]:
        """Losses and times of a deployment's last steps."""
        return self._list("ListSteps", pb.ListStepsRequest(
            parent=deployment, after=after), "steps")

    def step_timeline(self, name: str) -> pb.StepTimeline:
        """Where one of the last training steps spent its time: `name` is
        deployments/{d}/steps/{n}. A StepTimeline message; `m.timeline(n)` of a
        handle draws it."""
        return self.rpc.call("GetStepTimeline",
                             pb.GetStepTimelineRequest(name=name))

    def drain(self, worker: str, undo: bool = False) -> pb.WorkerNode:
        """No further gang gets the worker; `undo` gives it back."""
        return self.rpc.call("DrainWorker", pb.DrainWorkerRequest(
            name=worker, undo=undo, request_id=request_id()))

    def watch(self, *collections: str, name: str = "",
              resume_version: str = "") -> Watch:
        """What there is and then what changes, as an iterator of WatchEvent
        messages: `sp.Watch` tells the rest."""
        return Watch(self.rpc, collections, name, resume_version)

    def delete(self, name: str) -> None:
        """Ends a deployment, also one that another client has left."""
        self.rpc.call("DeleteDeployment", pb.DeleteDeploymentRequest(
            name=name, request_id=request_id(), allow_missing=True))

    def _list(self, method, request, field):
        items = []
        while True:
            answer = self.rpc.call(method, request)
            items += getattr(answer, field)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return items


class Connection(Calls):
    """Made by `sp.connect`."""

    def __init__(self, address: str,
                 credentials: grpc.ChannelCredentials | None = None) -> None:
        self.rpc = Rpc(address, credentials)

    @property
    def address(self) -> str:
        """HOST:PORT of the coordinator."""
        return self.rpc.address

    def close(self) -> None:
        """Ends the connection; deployments go on."""
        self.rpc.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def connect(address: str,
            credentials: grpc.ChannelCredentials | None = None) -> Connection:
    """`credentials`: grpc.ChannelCredentials; None is plaintext."""
    return Connection(address, credentials)
