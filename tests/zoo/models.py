"""Models that people have, small: of `transformers` and of torch.nn, with
random weights in float64, each with the plan that is usual for it."""

import dataclasses

import torch
from torch import nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel, RowwiseParallel)

from tests.parity import Packed

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
    # Last two parts of a parameter's name -> its packed cut over so many ranks,
    # None where it is a plain one.
    packed: dict = dataclasses.field(default_factory=dict)

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


def _shared_key_heads(heads):
    """Llama with fewer key heads, which groups of ranks share."""
    from transformers import LlamaConfig, LlamaForCausalLM
    plain = llama()
    module = LlamaForCausalLM(LlamaConfig(
        num_key_value_heads=heads, **_LLAMA_SIZES))
    width = WIDTH // HEADS

    def cut(ranks):
        shared = ranks > heads
        return Packed(0, ((heads * width, width, ranks // heads),)) if (
            shared) else None
    return dataclasses.replace(plain, module=module, packed={
        "k_proj.weight": cut, "v_proj.weight": cut})


def llama_two_key_heads():
    return _shared_key_heads(2)


def llama_one_key_head():
    return _shared_key_heads(1)


def phi3():
    """q, k and v in one projection, gate and up in another; two key heads."""
    from transformers import Phi3Config, Phi3ForCausalLM
    key_heads, width = 2, WIDTH // HEADS
    plan = {
        "model.embed_tokens": _embedding(),
        **_colwise(_ATTENTION, "qkv_proj"), **_rowwise(_ATTENTION, "o_proj"),
        **_colwise("model.layers.*.mlp", "gate_up_proj"),
        **_rowwise("model.layers.*.mlp", "down_proj"),
        "lm_head": _head()}
    module = Phi3ForCausalLM(Phi3Config(
        num_key_value_heads=key_heads, pad_token_id=0, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0,
        attention_dropout=0.0, **_LLAMA_SIZES))

    def fused(ranks):
        keys = (key_heads * width, width, ranks // key_heads) if (
            ranks > key_heads) else (key_heads * width,)
        return Packed(0, ((HEADS * width,), keys, keys))
    return Model(module, plan, {"input_ids": tokens()},
                 sums=1 + 2 * LAYERS, gathers=1, packed={
                     "qkv_proj.weight": fused,
                     "gate_up_proj.weight": lambda ranks: Packed(
                         0, ((HIDDEN,), (HIDDEN,)))})


def gpt_neox():
    """q, k and v of each head one after the other: a plain cut has heads."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
    layer = "gpt_neox.layers.*"
    plan = {
        "gpt_neox.embed_in": _embedding(),
        **_colwise(f"{layer}.attention", "query_key_value"),
        **_rowwise(f"{layer}.attention", "dense"),
        **_colwise(f"{layer}.mlp", "dense_h_to_4h"),
        **_rowwise(f"{layer}.mlp", "dense_4h_to_h"),
        "lm_head": _head()}
    module = GPTNeoXForCausalLM(GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        max_position_embeddings=32, bos_token_id=0, eos_token_id=0,
        use_parallel_residual=False, use_cache=False))
    return Model(module, plan, {"input_ids": tokens()},
                 sums=1 + 2 * LAYERS, gathers=1)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel
    plan = {
        "transformer.wte": _embedding(),
        **_colwise("transformer.h.*.attn", "c_attn"),
        **_rowwise("transformer.h.*.attn", "c_proj"),
        **_colwise("transformer.h.*.mlp", "c_fc"),
        **_rowwise("transformer.h.*.mlp", "c_proj"),
        "lm_head": _head()}
    module = GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=WIDTH, n_layer=LAYERS,
        n_head=HEADS, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0, use_cache=False))
    return Model(module, plan, {"input_ids": tokens()},
                 sums=1 + 2 * LAYERS, gathers=1, packed={
                     f"c_attn.{name}": lambda ranks, dim=dim: Packed(
                         dim, ((WIDTH,),) * 3)
                     for name, dim in (("weight", 1), ("bias", 0))})


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
    llama, llama_two_key_heads, llama_one_key_head, phi3, gpt_neox, gpt2,
    bert, t5, mixtral, encoder, decoder)}


def model(name):
    """One of ZOO: seeded, float64, training."""
    torch.manual_seed(0)
    built = ZOO[name]()
    built.module.double().train()
    return built
