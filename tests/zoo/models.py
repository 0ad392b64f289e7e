"""Models that people have, small: of `transformers` and of torch.nn, with
random weights in float64, each with the plan that is usual for it."""

import dataclasses

import torch
from torch import nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel, RowwiseParallel)

VOCABULARY, WIDTH, HIDDEN, LAYERS, HEADS = 64, 32, 48, 2, 4
BATCH, LENGTH = 2, 8


@dataclasses.dataclass
class Model:
    """A module, how it is called, and how it is cut."""

    module: nn.Module
    plan: dict
    inputs: dict  # keyword arguments of forward
    # Forward's all-reduces of a step without sequence parallelism: one for each
    # rowwise projection and each vocabulary-cut embedding.
    sums: int
    # All-gathers of forward: logits, and what a plan makes necessary.
    gathers: int
    # Calls of nn.MultiheadAttention that no style cuts: they join sequence and
    # batch into one dim, the batch inside, where a cut of it cannot stay.
    joined: int = 0

    def output(self, result):
        """The tensor to compare: logits, or what there is."""
        return result.logits if hasattr(result, "logits") else result

    def loss(self, result):
        return self.output(result).square().mean()


def tokens(length=LENGTH, seed=0):
    return torch.randint(0, VOCABULARY, (BATCH, length),
                         generator=torch.Generator().manual_seed(seed))


def numbers(length=LENGTH, seed=0):
    return torch.rand(BATCH, length, WIDTH, dtype=torch.float64,
                      generator=torch.Generator().manual_seed(seed))


def _colwise(prefix, *names):
    return {f"{prefix}.{name}": ColwiseParallel() for name in names}


def _rowwise(prefix, *names):
    return {f"{prefix}.{name}": RowwiseParallel() for name in names}


def _embedding():
    return RowwiseParallel(input_layouts=Replicate())


def _head():
    return ColwiseParallel(output_layouts=Replicate())


_LLAMA_SIZES = dict(
    vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=HIDDEN,
    num_hidden_layers=LAYERS, num_attention_heads=HEADS,
    max_position_embeddings=32, use_cache=False)
_ATTENTION = "model.layers.*.self_attn"


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM
    plan = {
        "model.embed_tokens": _embedding(),
        **_colwise(_ATTENTION, "q_proj", "k_proj", "v_proj"),
        **_rowwise(_ATTENTION, "o_proj"),
        **_colwise("model.layers.*.mlp", "gate_proj", "up_proj"),
        **_rowwise("model.layers.*.mlp", "down_proj"),
        "lm_head": _head()}
    module = LlamaForCausalLM(LlamaConfig(
        num_key_value_heads=HEADS, **_LLAMA_SIZES))
    return Model(module, plan, {"input_ids": tokens()},
                 sums=1 + 2 * LAYERS, gathers=1)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel
    plan = {
        "transformer.wte": _embedding(),
        **_colwise("transformer.h.*.mlp", "c_fc"),
        **_rowwise("transformer.h.*.mlp", "c_proj"),
        "lm_head": _head()}
    module = GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=WIDTH, n_layer=LAYERS,
        n_head=HEADS, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0, use_cache=False))
    return Model(module, plan, {"input_ids": tokens()},
                 sums=1 + LAYERS, gathers=1)


def bert():
    from transformers import BertConfig, BertForMaskedLM
    layer = "bert.encoder.layer.*"
    plan = {
        "bert.embeddings.word_embeddings": _embedding(),
        **_colwise(f"{layer}.attention.self", "query", "key", "value"),
        **_rowwise(f"{layer}.attention.output", "dense"),
        **_colwise(f"{layer}.intermediate", "dense"),
        **_rowwise(f"{layer}.output", "dense"),
        "cls.predictions.decoder": _head()}
    module = BertForMaskedLM(BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        max_position_embeddings=32, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0))
    mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
    mask[1, LENGTH - 3:] = 0
    return Model(module, plan,
                 {"input_ids": tokens(), "attention_mask": mask},
                 sums=1 + 2 * LAYERS, gathers=1)


def t5():
    from transformers import T5Config, T5ForConditionalGeneration
    plan = {"shared": _embedding(), "lm_head": _head()}
    for stack, attentions, mlp in (
            ("encoder", ("layer.0.SelfAttention",), "layer.1"),
            ("decoder", ("layer.0.SelfAttention", "layer.1.EncDecAttention"),
             "layer.2")):
        for attention in attentions:
            prefix = f"{stack}.block.*.{attention}"
            plan.update(_colwise(prefix, "q", "k", "v"))
            plan.update(_rowwise(prefix, "o"))
        prefix = f"{stack}.block.*.{mlp}.DenseReluDense"
        plan.update(_colwise(prefix, "wi_0", "wi_1"))
        plan.update(_rowwise(prefix, "wo"))
        plan.update(_colwise(f"{stack}.block.0.layer.0.SelfAttention",
                             "relative_attention_bias"))
    module = T5ForConditionalGeneration(T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=HIDDEN,
        num_layers=LAYERS, num_heads=HEADS, dropout_rate=0.0, use_cache=False,
        feed_forward_proj="gated-gelu"))
    return Model(module, plan, {"input_ids": tokens(),
                                "decoder_input_ids": tokens(6, seed=1)},
                 sums=2 + (2 + 3) * LAYERS, gathers=1)


def mixtral():
    """Attention and head are cut; experts are whole."""
    from transformers import MixtralConfig, MixtralForCausalLM
    plan = {
        "model.embed_tokens": _embedding(),
        **_colwise(_ATTENTION, "q_proj", "k_proj", "v_proj"),
        **_rowwise(_ATTENTION, "o_proj"),
        "lm_head": _head()}
    module = MixtralForCausalLM(MixtralConfig(
        num_key_value_heads=HEADS, num_local_experts=4, num_experts_per_tok=2,
        experts_implementation="batched_mm", **_LLAMA_SIZES))
    return Model(module, plan, {"input_ids": tokens()},
                 sums=1 + LAYERS, gathers=1)


def _layer(cls):
    return cls(WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True)


def _mlp_plan():
    return {**_colwise("layers.*", "linear1"),
            **_rowwise("layers.*", "linear2")}


def encoder():
    module = nn.TransformerEncoder(_layer(nn.TransformerEncoderLayer), LAYERS,
                                   enable_nested_tensor=False)
    plan = _mlp_plan()
    return Model(module, plan, {"src": numbers()}, sums=LAYERS, gathers=0,
                 joined=LAYERS)


def decoder():
    module = nn.TransformerDecoder(_layer(nn.TransformerDecoderLayer), LAYERS)
    plan = _mlp_plan()
    return Model(module, plan,
                 {"tgt": numbers(6), "memory": numbers(seed=1)},
                 sums=LAYERS, gathers=0, joined=2 * LAYERS)


ZOO = {build.__name__: build for build in (
    llama, gpt2, bert, t5, mixtral, encoder, decoder)}


def model(name):
    """One of ZOO: seeded, float64, training."""
    torch.manual_seed(0)
    built = ZOO[name]()
    built.module.double().train()
    return built
