"""A connection to a coordinator, and what can be asked of it."""

from shardplane.errors import unimplemented
from shardplane.rpc import Rpc, request_id
from shardplane.v1 import coordinator_pb2 as pb


class Connection:
    """Made by `sp.connect`; `LocalCluster` has one."""

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
        return self._list("ListWorkers", pb.ListWorkersRequest, "workers")

    def deployments(self):
        return self._list("ListDeployments", pb.ListDeploymentsRequest,
                          "deployments")

    def delete(self, name):
        """Ends a deployment, also one that another client has left."""
        self.rpc.call("DeleteDeployment", pb.DeleteDeploymentRequest(
            name=name, request_id=request_id(), allow_missing=True))

    def _list(self, method, request, field):
        items, token = [], ""
        while True:
            answer = self.rpc.call(method, request(page_token=token))
            items += getattr(answer, field)
            token = answer.next_page_token
            if not token:
                return items


def connect(address, credentials=None):
    """`credentials`: grpc.ChannelCredentials; None is plaintext."""
    return Connection(address, credentials)
