"""The models that `bench gpu` trains: Llama-style stacks, alike for every
side."""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

ROTARY_BASE = 10_000.0
INITIAL_STD = 0.02


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a stack and its batch. `dim` is `heads` times an even head size;
    `kv_heads` divides `heads`."""

    title: str
    layers: int
    dim: int
    hidden: int
    heads: int
    kv_heads: int
    vocabulary: int
    batch: int
    length: int
    written_norm: bool = False  # Llama's own code, not nn.RMSNorm

    @property
    def tokens(self):
        """Of a batch."""
        return self.batch * self.length

    @property
    def weights(self):
        """Of matrix products: parameters without norms and embedding."""
        head_dim = self.dim // self.heads
        attention = 2 * self.dim * (self.dim + self.kv_heads * head_dim)
        block = attention + 3 * self.dim * self.hidden
        return self.layers * block + self.dim * self.vocabulary

    @property
    def step_flops(self):
        """Of forward and backward; attention sees half of its square."""
        attention = self.layers * self.dim * self.length * self.tokens
        return 6 * (self.weights * self.tokens + attention)


SHAPES = {
    "tiny": Shape(
        title="2 layers of 256, 8 heads of which 4 for keys and values, "
              "hidden 1024, vocabulary 2048",
        layers=2, dim=256, hidden=1024, heads=8, kv_heads=4, vocabulary=2048,
        batch=1, length=128),
    # Llama 3.2 1B's blocks; its vocabulary of 128256 would make the head a
    # fifth of the work.
    "llama1b": Shape(
        title="16 layers of 2048, 32 heads of which 8 for keys and values, "
              "hidden 8192, vocabulary 32000",
        layers=16, dim=2048, hidden=8192, heads=32, kv_heads=8,
        vocabulary=32000, batch=4, length=2048),
}


def rotary_tables(length, head_dim):
    """cos and sin, each f32[length, head_dim]."""
    rates = ROTARY_BASE ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(length), rates).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """x[batch, heads, length, head_dim], turned by its position."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


class WrittenNorm(nn.Module):
    """nn.RMSNorm as Llama's code writes it out: in f32, then rounded."""

    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        h = x.to(torch.float32)
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * h.to(x.dtype)


def make_norm(shape):
    kind = WrittenNorm if shape.written_norm else nn.RMSNorm
    return kind(shape.dim, eps=1e-5)


class Attention(nn.Module):
    """Causal; a key and a value for each group of heads."""

    def __init__(self, shape):
        super().__init__()
        self.head_dim = shape.dim // shape.heads
        inner = shape.kv_heads * self.head_dim
        self.wq = nn.Linear(shape.dim, shape.dim, bias=False)
        self.wk = nn.Linear(shape.dim, inner, bias=False)
        self.wv = nn.Linear(shape.dim, inner, bias=False)
        self.wo = nn.Linear(shape.dim, shape.dim, bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        q, k, v = (w(x).view(batch, length, -1, self.head_dim).transpose(1, 2)
                   for w in (self.wq, self.wk, self.wv))
        y = F.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True,
            enable_gqa=True)
        return self.wo(y.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.gate = nn.Linear(shape.dim, shape.hidden, bias=False)
        self.up = nn.Linear(shape.dim, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.dim, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.attention_norm = make_norm(shape)
        self.attention = Attention(shape)
        self.ffn_norm = make_norm(shape)
        self.feed_forward = FeedForward(shape)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(nn.Module):
    """Token ids i64[batch, length] -> logits [batch, length, vocabulary].
    Embedding and head have weights of their own. The tables of positions are
    buffers that travel with the state."""

    def __init__(self, shape):
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.dim)
        self.layers = nn.ModuleList(
            Block(shape) for _ in range(shape.layers))
        self.norm = make_norm(shape)
        self.head = nn.Linear(shape.dim, shape.vocabulary, bias=False)
        cos, sin = rotary_tables(shape.length, shape.dim // shape.heads)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.head(self.norm(x))


def loss_of(logits, targets):
    """The mean over all tokens, in f32."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def batch_of(shape):
    """(ids, targets)."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randint(shape.vocabulary, (shape.batch, shape.length),
                               generator=generator) for _ in range(2))


def save_state(shape, device, path):
    """Parameters in bf16 that every side begins with. `device`: where they
    are drawn, since a billion takes a CPU half a minute."""
    torch.manual_seed(0)
    with torch.device(device), torch.no_grad():
        module = Llama(shape).bfloat16()
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=INITIAL_STD)
    torch.save({name: tensor.cpu()
                for name, tensor in module.state_dict().items()}, path)


def load_module(shape, path):
    """The module with what save_state has written; on the CPU, its memory
    the file's."""
    with torch.device("meta"):
        module = Llama(shape).bfloat16()
    module.load_state_dict(torch.load(path, mmap=True, weights_only=True),
                           assign=True)
    return module
