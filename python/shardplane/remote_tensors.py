"""The tensors that a deployment holds, by the names of the client's module."""

from shardplane.errors import NotFoundError, invalid
from shardplane.transfer import download, upload
from shardplane.v1 import coordinator_pb2 as pb


class RemoteTensors:
    """A part of the handle. `codec`: tensors or arrays."""

    def __init__(self, rpc, deployment, tree, codec):
        self._rpc = rpc
        self._deployment = deployment
        self._tree = tree
        self._codec = codec

    def download(self, ref, rank=None):
        """The global tensor, or what a rank has of it."""
        return download(self._rpc, self._deployment, ref, self._codec, rank)

    def download_gradient(self, ref):
        """None where the loss does not depend on it."""
        try:
            return self.download(ref)
        except NotFoundError as error:
            if error.details.get("reason") != "GRADIENT_NOT_FOUND":
                raise
            return None

    def of_ranks(self, ref):
        """One local tensor a rank."""
        return [self.download(ref, rank)
                for rank in range(len(self._deployment.workers))]

    def gradients(self):
        """Those that there are."""
        return self._by_name(lambda fqn: pb.TensorRef(gradient=fqn),
                             self._tree.trainable(), optional=True)

    def state_dict(self):
        return self._by_name(lambda fqn: pb.TensorRef(parameter=fqn),
                             self._tree.state_types())

    def shards(self, fqn):
        return self.of_ranks(
            pb.TensorRef(parameter=self._tree.canonical(fqn) or fqn))

    def _by_name(self, make_ref, names, optional=False):
        """Each tensor is downloaded once."""
        values, result = {}, {}
        for name in names:
            fqn = self._tree.canonical(name)
            if fqn not in values:
                try:
                    values[fqn] = self.download(make_ref(fqn))
                except NotFoundError:
                    if not optional:
                        raise
                    values[fqn] = None
            if values[fqn] is not None:
                result[name] = values[fqn]
        return result

    def upload_state(self, state_dict, strict):
        """The action that makes these the values, each uploaded once."""
        own = self._tree.state_types()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        if strict and (missing or unexpected):
            raise invalid(
                f"state_dict: expected the names of the module, got: missing "
                f"{missing}, unexpected {unexpected}", reason="STATE_DICT",
                field="state_dict")
        uploads = {}
        for name, tensor in state_dict.items():
            fqn = self._tree.canonical(name) if name in own else None
            if fqn is not None and fqn not in uploads:
                uploads[fqn] = self._upload(name, tensor, own[name])
        return pb.StepRequest.LoadState(entries=[
            pb.StepRequest.LoadState.Entry(fqn=fqn, upload=upload_id)
            for fqn, upload_id in uploads.items()])

    def _upload(self, name, value, type_):
        where = f"state_dict[{name!r}]"
        if not self._codec.is_tensor(value) or (
                list(value.shape) != list(type_.shape)):
            got = (list(value.shape) if self._codec.is_tensor(value)
                   else type(value).__name__)
            raise invalid(
                f"{where}: expected a tensor of shape {list(type_.shape)}, "
                f"got: {got}", reason="STATE_DICT_SHAPE", field=where,
                fqn=name)
        return upload(self._rpc, self._deployment,
                      self._codec.converted(value, type_),
                      f"parameter {name!r}", self._codec)
