"""What bench/plan.py plans: modules without data, and requests for them."""

import dataclasses

import torch
from torch import nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

from shardplane.export import export
from shardplane.mesh import to_proto_mesh
from shardplane.module_tree import ModuleTree
from shardplane.plan import to_proto_plan
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2

TP = 8


@dataclasses.dataclass
class Planned:
    """One case: what PyTorch parallelizes, and what Shardplane is asked."""

    text: str
    build: callable    # () -> a module on the meta device
    plan: dict
    request: callable  # (module) -> CreateDeploymentRequest

    def asked(self):
        return self.request(self.build())


def _request(module, plan, inputs, **signature):
    """Planning a training step on the sum of the output, and no more."""
    return pb.CreateDeploymentRequest(
        validate_only=True,
        deployment=pb.Deployment(module=module, plan=to_proto_plan(plan),
                                 mesh=to_proto_mesh({"tp": TP})),
        signature=pb.ProgramSignature(
            inputs=inputs,
            loss=pb.Loss(reduction=pb.Loss.REDUCTION_SUM), **signature))


# ------------------------------------------------------- Llama 3.1 405B

LLAMA_PLAN = {
    "model.embed_tokens": RowwiseParallel(input_layouts=Replicate()),
    "model.layers.*.self_attn.q_proj": ColwiseParallel(),
    "model.layers.*.self_attn.k_proj": ColwiseParallel(),
    "model.layers.*.self_attn.v_proj": ColwiseParallel(),
    "model.layers.*.self_attn.o_proj": RowwiseParallel(),
    "model.layers.*.mlp.gate_proj": ColwiseParallel(),
    "model.layers.*.mlp.up_proj": ColwiseParallel(),
    "model.layers.*.mlp.down_proj": RowwiseParallel(),
    "lm_head": ColwiseParallel(output_layouts=Replicate()),
}


def llama(layers):
    def build():
        from transformers import LlamaConfig, LlamaForCausalLM
        config = LlamaConfig(
            vocab_size=128256, hidden_size=16384, intermediate_size=53248,
            num_hidden_layers=layers, num_attention_heads=128,
            num_key_value_heads=8, max_position_embeddings=131072,
            use_cache=False)
        with torch.device("meta"):
            return LlamaForCausalLM(config).bfloat16()

    def request(module):
        ids = torch.zeros(1, 4096, dtype=torch.long, device="meta")
        exported = export(ModuleTree(module), (), {"input_ids": ids})
        assert exported.input_names == ["input_ids"]
        for parameter in exported.module.parameters:
            parameter.meta = False  # a checkpoint's data would be uploaded
        return _request(exported.module, LLAMA_PLAN, [pb.InputSpec(
            name="input_ids", type=types_pb2.TensorType(
                dtype=types_pb2.DTYPE_INT64, shape=ids.shape))])

    return Planned(f"Llama 3.1 405B's shape, {layers} layers, sequence 4096",
                   build, LLAMA_PLAN, request)


# -------------------------------------------------------- many linears

LINEARS_PLAN = {"*.*.up": ColwiseParallel(), "*.*.down": RowwiseParallel()}
_WIDTH, _HIDDEN, _ROWS, _BRANCHES = 64, 128, 16, 100


class Pair(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(_WIDTH, _HIDDEN)
        self.down = nn.Linear(_HIDDEN, _WIDTH)


def _add(message, fqn, type_, **attributes):
    node = message.modules.add(fqn=fqn, type=type_)
    for name, value in attributes.items():
        node.attributes[name].int_value = value


def _describe_linears(branches, pairs):
    """As a description: exporting so many modules takes torch minutes."""
    message = types_pb2.Module()
    _add(message, "", "torch.nn.Sequential")
    for i in range(branches):
        _add(message, f"{i}", "torch.nn.Sequential")
        for j in range(pairs):
            _add(message, f"{i}.{j}", "torch.nn.Sequential")
            _add(message, f"{i}.{j}.up", "torch.nn.Linear",
                 in_features=_WIDTH, out_features=_HIDDEN)
            _add(message, f"{i}.{j}.down", "torch.nn.Linear",
                 in_features=_HIDDEN, out_features=_WIDTH)
    return message


def linears(count):
    pairs = max(1, count // (2 * _BRANCHES))
    count = 2 * _BRANCHES * pairs

    def build():
        with torch.device("meta"):
            return nn.Sequential(*(
                nn.Sequential(*(Pair() for _ in range(pairs)))
                for _ in range(_BRANCHES)))

    def request(module):
        del module
        return _request(
            _describe_linears(_BRANCHES, pairs), LINEARS_PLAN,
            [pb.InputSpec(name="input", type=types_pb2.TensorType(
                dtype=types_pb2.DTYPE_FLOAT32, shape=[_ROWS, _WIDTH]))])

    return Planned(f"a tree of {count:,} linears", build, LINEARS_PLAN,
                   request)
