"""The tensors that a deployment holds, by the names of the client's module."""

import math

from shardplane.errors import invalid
from shardplane.transfer import download, download_all, upload_all
from shardplane.v1 import coordinator_pb2 as pb

_NO_GRADIENT = "GRADIENT_NOT_FOUND"
_MOST_ELEMENT_BYTES = 16  # of complex128


def _most_bytes(type_):
    return (math.inf if type_ is None else
            math.prod(type_.shape) * _MOST_ELEMENT_BYTES)


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

    def download_gradients(self, refs):
        """None where the loss does not depend on it."""
        return self._download_all([(ref, None, math.inf) for ref in refs],
                                  _NO_GRADIENT)

    def of_ranks(self, ref):
        """One local tensor a rank."""
        first = self.download(ref, 0)
        return [first, *self._download_all(
            [(ref, rank, first.nbytes)
             for rank in range(1, len(self._deployment.workers))])]

    def gradients(self):
        """Those that there are."""
        types = self._tree.state_types()
        return self._by_name(
            lambda fqn: pb.TensorRef(gradient=fqn),
            {name: types.get(name) for name in self._tree.trainable()},
            _NO_GRADIENT)

    def state_dict(self):
        return self._by_name(lambda fqn: pb.TensorRef(parameter=fqn),
                             self._tree.state_types())

    def shards(self, fqn):
        return self.of_ranks(
            pb.TensorRef(parameter=self._tree.canonical(fqn) or fqn))

    def _by_name(self, make_ref, types, missing=None):
        """Each tensor is downloaded once. `types`: name -> TensorType, None
        where it is not known."""
        own = {name: self._tree.canonical(name) for name in types}
        wanted = {own[name]: (make_ref(own[name]), None, _most_bytes(type_))
                  for name, type_ in types.items()}
        values = dict(zip(wanted, self._download_all(wanted.values(), missing)))
        return {name: values[fqn] for name, fqn in own.items()
                if values[fqn] is not None}

    def _download_all(self, wanted, missing=None):
        return download_all(self._rpc, self._deployment, wanted, self._codec,
                            missing)

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
        values = {}
        for name, tensor in state_dict.items():
            fqn = self._tree.canonical(name) if name in own else None
            if fqn is not None and fqn not in values:
                self._expect_value(name, tensor, own[name])
                values[fqn] = name
        ids = upload_all(
            self._rpc, self._deployment,
            ((self._codec.converted(state_dict[name], own[name]),
              f"parameter {name!r}") for name in values.values()), self._codec)
        return pb.StepRequest.LoadState(entries=[
            pb.StepRequest.LoadState.Entry(fqn=fqn, upload=upload_id)
            for fqn, upload_id in zip(values, ids)])

    def _expect_value(self, name, value, type_):
        if not self._codec.is_tensor(value) or (
                list(value.shape) != list(type_.shape)):
            where = f"state_dict[{name!r}]"
            got = (list(value.shape) if self._codec.is_tensor(value)
                   else type(value).__name__)
            raise invalid(
                f"{where}: expected a tensor of shape {list(type_.shape)}, "
                f"got: {got}", reason="STATE_DICT_SHAPE", field=where,
                fqn=name)
