"""Keeps deployments as wished: an orchestrator's loop over the public API.

    ./shardplane python docs/examples/orchestrator/controller.py \
        --coordinator HOST:PORT WISHES.json

WISHES.json: {"NAME": a CreateDeploymentRequest as JSON, ...}; it is read again
with every event, at the latest after 15 seconds. For each name there is one deployment that is READY, as it says:
- none: it is created and materialized (parameters: meta, or initializers);
- it has FAILED, since a worker was lost: it is deleted and made anew, as soon as
  there are workers enough;
- the wish is another one: one that is made beside it takes over its parameters,
  and it goes; without workers enough for both it goes first, and the new one
  begins with initial values.

It keeps nothing to itself: what it made has labels, so that it may be restarted
at any moment. It does not step the deployments: whoever does looks for the one
that has the name as a label.
"""

import argparse
import hashlib
import json
import pathlib
import sys
import uuid

import grpc
from google.protobuf import json_format

import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb

OWNER = "controller"
State = pb.Deployment


def digest(wish):
    text = json.dumps(wish, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:12]


class Controller:
    """`wishes`: a callable that returns NAME -> CreateDeploymentRequest, as a
    dict. `say`: told of each thing done."""

    def __init__(self, connection, wishes, say=print):
        self._connection = connection
        self._wishes = wishes
        self._say = say

    def run(self, stop=lambda: False):
        """Until `stop`. Every change of a worker or a deployment is a reason
        to look again; what is there counts, not what has changed."""
        while not stop():
            try:
                with self._connection.watch("workers", "deployments") as watch:
                    for event in watch:
                        self.reconcile()
                        if stop():
                            return
            except sp.ShardplaneError as error:
                if error.code != "OUT_OF_RANGE":
                    raise
                self._say("another coordinator: looking again")

    def reconcile(self):
        wishes = self._wishes()
        mine = {}
        for deployment in self._connection.deployments():
            if deployment.labels.get("owner") == OWNER:
                mine.setdefault(deployment.labels["name"], []).append(
                    deployment)
        for name in mine.keys() - wishes.keys():
            for deployment in mine[name]:
                self._delete(deployment, "nobody wishes it")
        for name, wish in sorted(wishes.items()):
            try:
                self._reconcile_one(name, wish, mine.get(name, []))
            except (sp.FailedPreconditionError, sp.UnavailableError) as error:
                # Too few workers now: their coming is the next event.
                self._say(f"{name}: {error.message}")

    def _reconcile_one(self, name, wish, there):
        wished = digest(wish)
        for deployment in there:
            if deployment.state == State.STATE_FAILED:
                self._delete(deployment, deployment.state_reason)
        there = [d for d in there if d.state != State.STATE_FAILED]
        new = [d for d in there if d.labels["wish"] == wished]
        old = [d for d in there if d.labels["wish"] != wished]
        if not new:
            try:
                new = [self._create(name, wish, wished)]
            except sp.FailedPreconditionError:
                if not old:
                    raise
                for deployment in old:
                    self._delete(deployment, "no room for both")
                old, new = [], [self._create(name, wish, wished)]
        if new[0].state == State.STATE_AWAITING_DATA:
            self._fill(new[0], old[0] if old else None)
        for deployment in old:
            self._delete(deployment, f"replaced by {new[0].name}")

    def _create(self, name, wish, wished):
        request = json_format.ParseDict(wish, pb.CreateDeploymentRequest())
        # One id for one wish: another controller cannot make it twice.
        request.deployment_id = f"{name}-{wished}"
        request.request_id = str(uuid.uuid4())
        request.deployment.labels.update(
            {"owner": OWNER, "name": name, "wish": wished})
        deployment = self._connection.rpc.call("CreateDeployment", request)
        self._say(f"{name}: made {deployment.name}")
        return self._connection.rpc.call("GetDeployment",
                                         pb.GetDeploymentRequest(
                                             name=deployment.name))

    def _fill(self, deployment, old):
        """Materializes; with the parameters of `old` if there is one."""
        rpc = self._connection.rpc
        operation = rpc.call("MaterializeDeployment",
                             pb.MaterializeDeploymentRequest(
                                 name=deployment.name, no_wait=True,
                                 request_id=str(uuid.uuid4()))).operation
        done = self._connection.wait_operation(operation)
        if done.state != pb.Operation.STATE_SUCCEEDED:
            raise sp.UnavailableError(done.error.message)
        if old is not None and old.state == State.STATE_READY:
            self._take_over(deployment, old)
        self._say(f"{deployment.labels['name']}: {deployment.name} is ready")

    def _take_over(self, deployment, old):
        """All parameters at once, as the first step of the new one."""
        rpc = self._connection.rpc
        module = rpc.call("GetDeployment", pb.GetDeploymentRequest(
            name=deployment.name)).module
        step = pb.StepRequest(deployment=deployment.name, step=1,
                              request_id=str(uuid.uuid4()))
        for parameter in module.parameters:
            chunks = rpc.download(pb.DownloadTensorRequest(
                deployment=old.name,
                tensor=pb.TensorRef(parameter=parameter.fqn)), list)
            header = pb.UploadTensorRequest.Header(
                deployment=deployment.name, upload=parameter.fqn,
                type=parameter.type, request_id=str(uuid.uuid4()))
            messages = [pb.UploadTensorRequest(header=header)] + [
                pb.UploadTensorRequest(chunk=each.chunk)
                for each in chunks[1:]]
            rpc.upload(lambda messages=messages: iter(messages))
            step.load_state.entries.add(fqn=parameter.fqn,
                                        upload=parameter.fqn)
        rpc.call("Step", step)

    def _delete(self, deployment, why):
        self._connection.delete(deployment.name)
        self._say(f"{deployment.labels['name']}: deleted {deployment.name}: "
                  f"{why}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wishes", type=pathlib.Path)
    parser.add_argument("--coordinator", default="127.0.0.1:7070")
    options = parser.parse_args(arguments)

    def wishes():
        return json.loads(options.wishes.read_text(encoding="utf-8"))

    with sp.connect(options.coordinator) as connection:
        try:
            Controller(connection, wishes).run()
        except (sp.ShardplaneError, grpc.RpcError) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
