"""Self-attention with one projection for query, key and value."""

import warnings

import torch
from torch import nn
from torch.nn import functional as F

from shardplane.errors import invalid


def _warn_ignored(options, level):
    names = [name for name, changes in options.items() if changes]
    if names:
        warnings.warn(
            "TensorParallelMultiheadAttention ignores, as PyTorch's did, "
            f"{', '.join(names)}; nn.MultiheadAttention does not",
            UserWarning, stacklevel=level + 1)


class TensorParallelMultiheadAttention(nn.Module):
    """nn.MultiheadAttention of the releases in which that could not be cut.

    `qkv` makes query, key and value head by head, so that a part of its rows
    is whole heads; `proj` joins the heads. sp.PairwiseParallel makes the one
    colwise and the other rowwise. `forward` returns the output alone.

    `bias` is of all projections. `batch_first`: inputs are [batch, sequence,
    embed_dim] unless it is False. `tp_size`: the ranks that share the heads,
    for a check; the mesh says how many there are. With `self_attention=False`
    query, key and value have projections of their own. dropout, add_bias_kv,
    add_zero_attn and masks change nothing, with a warning.
    """

    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True,
                 add_bias_kv=False, add_zero_attn=False, kdim=None, vdim=None,
                 batch_first=None, device=None, dtype=None, tp_size=1,
                 self_attention=True):
        super().__init__()
        _check_sizes(embed_dim, num_heads, tp_size)
        _warn_ignored({
            f"dropout={dropout}": dropout, "add_bias_kv=True": add_bias_kv,
            "add_zero_attn=True": add_zero_attn,
            f"kdim={kdim}": self_attention and kdim not in (None, embed_dim),
            f"vdim={vdim}": self_attention and vdim not in (None, embed_dim)},
            level=2)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.batch_first = batch_first is None or bool(batch_first)
        self.self_attention = self_attention

        def linear(inputs, outputs):
            made = nn.Linear(inputs, outputs, bias=bias, device=device,
                             dtype=dtype)
            nn.init.xavier_uniform_(made.weight)
            if bias:
                nn.init.zeros_(made.bias)
            return made

        if self_attention:
            self.qkv = linear(embed_dim, 3 * embed_dim)
        else:
            self.query = linear(embed_dim, embed_dim)
            self.key = linear(kdim or embed_dim, embed_dim)
            self.value = linear(vdim or embed_dim, embed_dim)
        self.proj = linear(embed_dim, embed_dim)

    def forward(self, query, key=None, value=None, key_padding_mask=None,
                need_weights=None, attn_mask=None, average_attn_weights=None,
                is_causal=False):
        _warn_ignored({
            "key_padding_mask": key_padding_mask is not None,
            "need_weights=True": need_weights, "attn_mask":
            attn_mask is not None, "average_attn_weights=True":
            average_attn_weights, "is_causal=True": is_causal}, level=2)
        key = query if key is None else key
        value = key if value is None else value
        q, k, v = (
            self._joint(query, key, value) if self.self_attention else
            self._apart(query, key, value))
        x = F.scaled_dot_product_attention(
            *(self._by_head(part) for part in (q, k, v)))
        if self.batch_first:  # [batch, head, sequence, head_dim]
            x = x.transpose(1, 2)
        else:
            x = x.permute(2, 0, 1, 3)
        return self.proj(x.flatten(2))

    def _joint(self, query, key, value):
        if _one_input(query, key, value):
            return self._heads(query)
        # Traced as three inputs: each gives its part, whatever it holds.
        return tuple(self._heads(x)[i]
                     for i, x in enumerate((query, key, value)))

    def _heads(self, x):
        heads = self.qkv(x).unflatten(
            -1, (self.num_heads, 3 * self.head_dim))
        return heads.split(self.head_dim, -1)

    def _apart(self, query, key, value):
        return tuple(
            x.unflatten(-1, (self.num_heads, self.head_dim))
            for x in (self.query(query), self.key(key), self.value(value)))

    def _by_head(self, x):
        return (x.transpose(1, 2) if self.batch_first else
                x.permute(1, 2, 0, 3))

    @classmethod
    def from_multihead_attention(cls, module, tp_size=1):
        """The same function as this nn.MultiheadAttention, in this layout:
        where that has all queries, then all keys, then all values, qkv has
        them head by head. Its dropout is lost, with a warning."""
        if module.bias_k is not None or module.add_zero_attn:
            raise invalid(
                "from_multihead_attention: expected a module without "
                "add_bias_kv and add_zero_attn, got: one with them",
                reason="ATTENTION_OPTIONS")
        joint = module.in_proj_weight is not None
        bias = module.in_proj_bias is not None
        made = cls(module.embed_dim, module.num_heads, module.dropout,
                   bias=bias, kdim=module.kdim, vdim=module.vdim,
                   batch_first=module.batch_first, tp_size=tp_size,
                   device=module.out_proj.weight.device,
                   dtype=module.out_proj.weight.dtype, self_attention=joint)
        with torch.no_grad():
            made._copy(module, joint, bias)
        return made.train(module.training)

    def _copy(self, module, joint, bias):
        self.proj.load_state_dict(module.out_proj.state_dict())
        if joint:
            self.qkv.weight.copy_(self._interleaved(module.in_proj_weight))
            if bias:
                self.qkv.bias.copy_(self._interleaved(module.in_proj_bias))
            return
        parts = (self.query, self.key, self.value)
        for i, linear in enumerate(parts):
            name = ("q", "k", "v")[i] + "_proj_weight"
            linear.weight.copy_(getattr(module, name))
            if bias:
                linear.bias.copy_(module.in_proj_bias.chunk(3)[i])

    def _interleaved(self, stacked):
        """[query; key; value] -> the three of each head side by side."""
        heads = stacked.unflatten(0, (3, self.num_heads, self.head_dim))
        return heads.transpose(0, 1).flatten(0, 2)


def _check_sizes(embed_dim, num_heads, tp_size):
    if embed_dim % num_heads or num_heads % tp_size:
        raise invalid(
            "TensorParallelMultiheadAttention: expected num_heads to divide "
            f"embed_dim and to be divisible by tp_size, got: embed_dim "
            f"{embed_dim}, num_heads {num_heads}, tp_size {tp_size}",
            reason="ATTENTION_SIZES")


def _one_input(query, key, value):
    """Whether they are one tensor; False where they have no values yet, as
    when a module is exported that takes three."""
    others = [x for x in (key, value) if x is not query]
    if others and torch.compiler.is_compiling():
        return False
    for x in others:
        if x.shape != query.shape or not torch.equal(x, query):
            raise invalid(
                "TensorParallelMultiheadAttention: inputs are different for "
                "self-attention; expected query, key and value to be equal, "
                "or self_attention=False, got: others",
                reason="ATTENTION_INPUTS")
    return True
