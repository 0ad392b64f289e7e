"""A connection to a coordinator, and what can be asked of it."""

import time

from shardplane.errors import unimplemented
from shardplane.rpc import Rpc, request_id
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.watch import Watch


class Calls:
    """What can be asked of the coordinator that `rpc` reaches. Messages are
    those of proto/shardplane/v1/coordinator.proto."""

    def parallelize_module(self, module, mesh=None, plan=None, **options):
        """A module on a mesh under a plan: see CLIENT.md.

        `module`: a torch module, or a description of one (a path, a dict, an
        sp.Description), which needs no torch here.
        """
        from shardplane.deploy import deploy
        return deploy(self.rpc, module, mesh, plan, **options)

    def restore(self, path, *, mesh=None, plan=None):
        del path, mesh, plan
        raise unimplemented("restore")

    def workers(self):
        """The WorkerNode messages of all workers."""
        return self._list("ListWorkers", pb.ListWorkersRequest(), "workers")

    def deployments(self):
        return self._list("ListDeployments", pb.ListDeploymentsRequest(),
                          "deployments")

    def modules(self):
        return self._list("ListModules", pb.ListModulesRequest(), "modules")

    def operations(self):
        """What lasts, and has lasted in the last 24 hours."""
        return self._list("ListOperations", pb.ListOperationsRequest(),
                          "operations")

    def wait_operation(self, name, timeout=600):
        """The operation once it is over, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            request = pb.WaitOperationRequest(name=name)
            request.timeout.FromMilliseconds(int(1e3 * min(left, 30)))
            operation = self.rpc.call("WaitOperation", request)
            if operation.state != pb.Operation.STATE_RUNNING or left == 0:
                return operation

    def cancel_operation(self, name):
        """Ends it; its deployment is then FAILED."""
        return self.rpc.call("CancelOperation", pb.CancelOperationRequest(
            name=name, request_id=request_id()))

    def events(self, resource=""):
        """What has happened, oldest first; of one resource or of all."""
        return self._list("ListEvents",
                          pb.ListEventsRequest(resource=resource), "events")

    def steps(self, deployment, after=0):
        """Losses and times of a deployment's last steps."""
        return self._list("ListSteps", pb.ListStepsRequest(
            parent=deployment, after=after), "steps")

    def step_timeline(self, name):
        """Where one of the last training steps spent its time: `name` is
        deployments/{d}/steps/{n}. A StepTimeline message; `m.timeline(n)` of a
        handle draws it."""
        return self.rpc.call("GetStepTimeline",
                             pb.GetStepTimelineRequest(name=name))

    def drain(self, worker, undo=False):
        """No further gang gets the worker; `undo` gives it back."""
        return self.rpc.call("DrainWorker", pb.DrainWorkerRequest(
            name=worker, undo=undo, request_id=request_id()))

    def watch(self, *collections, name="", resume_version=""):
        """What there is and then what changes, as an iterator of WatchEvent
        messages: `sp.Watch` tells the rest."""
        return Watch(self.rpc, collections, name, resume_version)

    def delete(self, name):
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

    def __init__(self, address, credentials=None):
        self.rpc = Rpc(address, credentials)

    @property
    def address(self):
        return self.rpc.address

    def close(self):
        self.rpc.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def connect(address, credentials=None):
    """`credentials`: grpc.ChannelCredentials; None is plaintext."""
    return Connection(address, credentials)
