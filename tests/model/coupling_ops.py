"""Every operator with a rule, between a layer that computes eight features and one that reads them.

An operator is expected to leave so many units of the eight features, or to bind them for a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

aten = torch.ops.aten


@dataclass(frozen=True)
class Op:
    """An operator.

    Attributes:
        run: from features to what is read, or to outputs of the network.
        expected: units of the first layer, or part of the reason for none.
        kind: of the features: vectors (4, 8), tokens (2, 5, 8), images (2, 8, 6, 6), signals
            (2, 8, 6) or volumes (2, 8, 4, 4, 4).
        axis: the dimension that a layer reads afterwards; None if nothing does.
    """

    run: Callable[[Tensor], Any]
    expected: int | str
    kind: str
    axis: int | None


SHAPES = {
    "vectors": (4, 6),
    "tokens": (2, 5, 6),
    "signals": (2, 3, 6),
    "images": (2, 3, 6, 6),
    "volumes": (2, 3, 4, 4, 4),
}


class Around(nn.Module):
    """A layer, the operator and a layer that reads what it gives."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.run, self.axis = op.run, op.axis
        rank = len(SHAPES[op.kind]) - 2
        many = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        linear = op.kind in ("vectors", "tokens")
        self.a = nn.Linear(6, 8) if linear else many[rank - 1](3, 8, 3, padding=1)
        if op.axis is not None:
            with torch.no_grad():
                size = op.run(self.a(torch.randn(SHAPES[op.kind]))).shape[op.axis]
            self.z = nn.Linear(size, 2)

    def forward(self, x: Tensor) -> Any:
        y = self.run(self.a(x))
        return y if self.axis is None else self.z(y.movedim(self.axis, -1))


def vectors(run: Callable[[Tensor], Any], expected: int | str = 8, axis: int | None = -1) -> Op:
    return Op(run, expected, "vectors", axis)


def tokens(run: Callable[[Tensor], Any], expected: int | str = 8, axis: int | None = -1) -> Op:
    return Op(run, expected, "tokens", axis)


def signals(run: Callable[[Tensor], Any], expected: int | str = 8, axis: int | None = 1) -> Op:
    return Op(run, expected, "signals", axis)


def images(run: Callable[[Tensor], Any], expected: int | str = 8, axis: int | None = 1) -> Op:
    return Op(run, expected, "images", axis)


def volumes(run: Callable[[Tensor], Any], expected: int | str = 8, axis: int | None = 1) -> Op:
    return Op(run, expected, "volumes", axis)


def ones(*shape: int) -> Tensor:
    return torch.linspace(0.5, 1.5, int(torch.Size(shape).numel())).reshape(shape)


def grid() -> Tensor:
    return F.affine_grid(torch.eye(2, 3).expand(2, 2, 3), [2, 1, 4, 4], align_corners=False)


def volume_grid() -> Tensor:
    return F.affine_grid(torch.eye(3, 4).expand(2, 3, 4), [2, 1, 2, 2, 2], align_corners=False)


def fresh(h: Tensor) -> Tensor:
    """Tensors of the features' size, made by code."""
    c = h.shape[-1]
    total = torch.zeros(c) + torch.ones(c) + torch.full((c,), 2.0) + torch.empty(c).fill_(0.5)
    total = total + h.new_zeros(c) + h.new_ones(c) + h.new_full((c,), 1.5)
    total = total + h.new_empty(c).zero_() + torch.empty_strided((c,), (1,)).zero_()
    return h + total + h.new_empty_strided((c,), (1,)).zero_()


def like(h: Tensor) -> Tensor:
    made = torch.zeros_like(h) + torch.ones_like(h) + torch.full_like(h, 2.0)
    noise = 0 * (torch.rand_like(h) + torch.randn_like(h) + torch.rand(h.shape[-1]))
    return h + made + torch.empty_like(h).fill_(1) + noise + 0 * torch.randn(h.shape[-1])


def written(h: Tensor) -> Tensor:
    """Into a part of a tensor made by code."""
    out = torch.zeros(*h.shape[:-1], 2 * h.shape[-1])
    out[..., : h.shape[-1]] = h
    return out


def normed(h: Tensor, training: bool = False) -> Tensor:
    c = h.shape[1]
    return aten.native_batch_norm(
        h, None, None, h.new_zeros(c), h.new_ones(c), training, 0.1, 1e-5
    )[0]


def attended(h: Tensor) -> Tensor:
    q = h.unsqueeze(1)
    return aten._scaled_dot_product_attention_math(q, q, q)[0].squeeze(1)


def masked_attention(h: Tensor) -> Tensor:
    q = h.unflatten(-1, (-1, 2)).transpose(1, 2)
    mask = torch.arange(5)[:, None] >= torch.arange(5)
    return F.scaled_dot_product_attention(q, q, q, attn_mask=mask).transpose(1, 2).flatten(2)
