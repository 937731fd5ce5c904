"""Small networks of linear layers, attention and embeddings whose coupled groups are known."""

from __future__ import annotations

import math
from typing import Any

import torch
from structured_zoo import Case, Net, case
from torch import Tensor, nn
from torch.nn import functional as F

TOKENS = (2, 5, 6)
END = "an output of the network"
L = nn.Linear


class Attention(nn.Module):
    """Separate queries, keys and values; with fewer key heads if asked for."""

    def __init__(self, how: str, heads: int = 4, keys: int = 4, size: int = 3) -> None:
        super().__init__()
        self.how, self.num_heads, self.num_kv_heads, self.head_dim = how, heads, keys, size
        self.q, self.k, self.v = (L(6, n * size) for n in (heads, keys, keys))
        self.gate = L(6, heads * size) if how == "gate" else nn.Identity()
        self.o = L(heads * size, 6)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.k(x).view(b, t, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(x).view(b, t, self.num_kv_heads, self.head_dim).transpose(1, 2)
        if self.num_heads != self.num_kv_heads and self.how != "enable_gqa":
            share = self.num_heads // self.num_kv_heads
            k, v = (
                each[:, :, None]
                .expand(b, self.num_kv_heads, share, t, self.head_dim)
                .reshape(b, self.num_heads, t, self.head_dim)
                for each in (k, v)
            )
        if self.how == "softmax":
            y = (q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)).softmax(-1) @ v
        elif self.how == "mask":
            mask = torch.ones(t, t, dtype=torch.bool).tril()
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        elif self.how == "enable_gqa":
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        elif self.how == "einsum":
            scores = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
            y = torch.einsum("bhij,bhjd->bhid", scores, v)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.how == "causal")
        y = y.transpose(1, 2).reshape(b, t, -1)
        if self.how == "local":
            y = y + v.transpose(1, 2).reshape(b, t, -1)
        if self.how == "flat":
            y = y + self.v(x)
        if self.how == "gate":
            y = y * torch.sigmoid(self.gate(x))
        return self.o(y)


class Fused(nn.Module):
    """One layer for queries, keys and values."""

    def __init__(self, how: str, heads: int = 4, size: int = 3) -> None:
        super().__init__()
        self.how, self.heads, self.qkv = how, heads, L(6, 3 * heads * size)
        self.proj = L(heads * size, 6)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        if self.how == "reshape":
            q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        else:
            parts = self.qkv(x).chunk(3, -1)
            q, k, v = (p.reshape(b, t, self.heads, -1).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, t, -1))


class Block(nn.Module):
    """A transformer's layer with a residual stream that it was given."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.n1, self.n2, self.attn = nn.LayerNorm(6), nn.LayerNorm(6), attention
        self.up, self.down = L(6, 7), L(7, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.n1(x))
        return x + self.down(F.gelu(self.up(self.n2(x))))


class Tied(nn.Module):
    """An embedding that is the head too, around a gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.head = nn.Embedding(11, 6), L(6, 11, bias=False)
        self.gate, self.up, self.down = (L(6, 7, False), L(6, 7, False), L(7, 6, False))
        self.head.weight = self.emb.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.emb(words)
        return self.head(x + self.down(F.silu(self.gate(x)) * self.up(x)))


class Hard(nn.Module):
    """A size in the code itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.z = L(6, 8), L(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.z(self.a(x).view(2, 5, 2, 4).sum(-1))


class Shared(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.z = L(6, 8), L(8, 8), L(8, 8), L(8, 2)
        self.c.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.z(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))


class Lens(nn.Module):
    """Single-head attention, whose inside can go as far as no size of it is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.z = L(6, 5), L(6, 5), L(6, 4), L(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.z((self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1) @ self.v(x))


def line(forward: Any, **parts: Any) -> Net:
    return Net(forward, **{"a": L(6, 8), "z": L(8, 2), **parts})


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(6, 2, 7, batch_first=True)


def decoder() -> nn.Module:
    return nn.TransformerDecoderLayer(6, 2, 7, batch_first=True)


def parts() -> Net:
    def forward(s: Any, x: Tensor) -> Tensor:
        h = s.a(x)
        half = h.shape[-1] // 2
        return s.z(torch.cat([h[..., :half] * h[..., half:], h[..., :half]], -1))

    return line(forward)


def unequal() -> Net:
    def forward(s: Any, x: Tensor) -> Tensor:
        p, q = torch.split(s.a(x), [3, 5], -1)
        return s.z(torch.cat([q, p], -1))

    return line(forward)


def transposed() -> Net:
    """An autoencoder whose decoder is the encoder turned round."""
    return Net(lambda s, x: F.linear(torch.relu(s.a(x)), s.a.weight.t()), a=L(6, 8))


def mixer() -> Net:
    def forward(s: Any, x: Tensor) -> Tensor:
        x = x + s.t2(F.gelu(s.t1(x.transpose(1, 2)))).transpose(1, 2)
        return s.c2(F.gelu(s.c1(x)))

    return Net(forward, t1=L(5, 7), t2=L(7, 5), c1=L(6, 8), c2=L(8, 6))


def experts() -> Net:
    def forward(s: Any, x: Tensor) -> Tensor:
        each = torch.stack([s.b(F.relu(s.a(x))), s.d(F.relu(s.c(x)))], -1)
        return (each * s.route(x).softmax(-1).unsqueeze(-2)).sum(-1)

    return Net(forward, a=L(6, 8), b=L(8, 2), c=L(6, 5), d=L(5, 2), route=L(6, 2))


def of_keywords() -> Net:
    return Net(
        lambda s, x, y: {"sum": s.z(torch.relu(s.a(x) + s.b(y)))}, a=L(6, 8), b=L(6, 8), z=L(8, 2)
    )


HEADS = {"z": END}
TOKEN_NETS: dict[str, Case] = {
    "linear 2d": case(lambda: line(lambda s, x: s.z(F.relu(s.a(x)))), (3, 6), a=8, bound=HEADS),
    "linear 3d": case(lambda: line(lambda s, x: s.z(F.relu(s.a(x)))), TOKENS, a=8, bound=HEADS),
    "linear 4d": case(lambda: line(lambda s, x: s.z(F.relu(s.a(x)))), (2, 3, 4, 6), a=8),
    "linear 1d": case(lambda: line(lambda s, x: s.z(F.relu(s.a(x)))), (6,), a=8),
    "batch norm": case(
        lambda: line(lambda s, x: s.z(s.n(s.a(x))), n=nn.BatchNorm1d(8)), (3, 6), a=8
    ),
    "layer norm": case(
        lambda: line(lambda s, x: s.z(s.n(s.a(x))), n=nn.LayerNorm(8)),
        TOKENS,
        bound={"a": "normalised over", "z": END},
    ),
    "rms norm": case(
        lambda: line(lambda s, x: s.z(s.n(s.a(x))), n=nn.RMSNorm(8)), TOKENS, bound={"a": "over"}
    ),
    "embedding": case(
        lambda: Net(
            lambda s, w: s.z(s.e(w) + s.p[: w.shape[1]]),
            e=nn.Embedding(9, 8),
            p=nn.Parameter(torch.randn(7, 8)),
            z=L(8, 2),
        ),
        (2, 5),
        words=9,
        bound={"z": END},
        e=8,
    ),
    "tied embedding": case(Tied, (2, 5), words=11, emb=6, gate=7),
    "tied layers": case(Shared, TOKENS, a=8, bound=HEADS),
    "tied transposed": case(transposed, TOKENS, a=8),
    "scale": case(
        lambda: line(lambda s, x: s.z(s.a(x) * s.w), w=nn.Parameter(torch.randn(8))), TOKENS, w=8
    ),
    "table": case(
        lambda: line(lambda s, x: s.z(F.relu(s.a(x) + s.w)), w=torch.randn(5, 8)), TOKENS, a=8
    ),
    "product": case(lambda: line(lambda s, x: s.z(s.a(x) * s.b(x)), b=L(6, 8)), TOKENS, a=8),
    "equal parts": case(parts, TOKENS, a=4),
    "hard-coded parts": case(
        lambda: line(lambda s, x: s.z(torch.cat([s.a(x)[..., :4]] * 2, -1))),
        TOKENS,
        bound={"a": "does not follow", "z": END},
    ),
    "unequal parts": case(unequal, TOKENS, bound={"a": "unequal", "z": END}),
    "stack": case(
        lambda: line(lambda s, x: s.z(torch.stack([s.a(x), s.b(x)]).amax(0)), b=L(6, 8)),
        TOKENS,
        a=8,
    ),
    "mixer": case(mixer, TOKENS, t1=7, c1=8, bound={"t2": "", "c2": END}),
    "experts": case(experts, TOKENS, a=8, c=5, bound={"route": "softmax", "b": END, "d": END}),
    "lens": case(Lens, TOKENS, q=5, v=4, bound={"z": END}),
    "attention": case(lambda: Attention(""), TOKENS, q=4, bound={"o": END}),
    "causal": case(lambda: Attention("causal"), TOKENS, q=4),
    "mask": case(lambda: Attention("mask"), TOKENS, q=4),
    "softmax attention": case(lambda: Attention("softmax"), TOKENS, q=4),
    "einsum attention": case(lambda: Attention("einsum"), TOKENS, q=4),
    "values added": case(lambda: Attention("local"), TOKENS, q=4),
    "values added before": case(lambda: Attention("flat"), TOKENS, q=4),
    "gated attention": case(lambda: Attention("gate"), TOKENS, q=4),
    "grouped queries": case(lambda: Attention("", keys=2), TOKENS, q=2),
    "grouped softmax": case(lambda: Attention("softmax", keys=2), TOKENS, q=2),
    "enable_gqa": case(lambda: Attention("enable_gqa", keys=2), TOKENS, q=2),
    "fused by reshape": case(lambda: Fused("reshape"), TOKENS, qkv=4, bound={"proj": END}),
    "fused by chunk": case(lambda: Fused("chunk"), TOKENS, qkv=4, bound={"proj": END}),
    "blocks": case(
        lambda: nn.Sequential(Block(Attention("")), Block(Fused("reshape", heads=2))),
        TOKENS,
        **{"0.attn.q": 4, "0.up": 7, "1.attn.qkv": 2, "1.up": 7},
    ),
    "multihead": case(
        lambda: Net(
            lambda s, x: s.z(s.m(s.a(x), s.a(x), s.a(x), need_weights=False)[0]),
            a=L(6, 8),
            m=nn.MultiheadAttention(8, 2, batch_first=True),
            z=L(8, 2),
        ),
        TOKENS,
        bound={"a": "width", "z": END},
    ),
    "encoder layer": case(encoder, TOKENS, linear1=7, bound={"linear2": ""}),
    "decoder layer": case(decoder, TOKENS, (2, 4, 6), linear1=7),
    "hard-coded": case(Hard, (2, 5, 6), bound={"a": "", "z": END}),
    "keywords": case(
        of_keywords, (3, 6), (3, 6), form=lambda x, y: {"x": x, "y": y}, a=8, bound=HEADS
    ),
    "weight norm": case(
        lambda: line(
            lambda s, x: s.z(s.b(s.a(x))),
            b=nn.utils.parametrizations.weight_norm(L(8, 7)),
            z=L(7, 2),
        ),
        TOKENS,
        a=8,
    ),
}
