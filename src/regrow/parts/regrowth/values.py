"""With which value a weight returns."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt
from typing import Literal

import torch
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Weight
from regrow.parts.criteria.random import uniform


@dataclass(frozen=True)
class Zero:
    """Zero, which leaves the function unchanged until training moves it.

    Source: Evci et al. 2020, "Rigging the lottery".
    """

    needs = frozenset[Need]()

    def values(self, weight: Weight, evidence: Evidence) -> Tensor | None:
        return None


@dataclass(frozen=True)
class Saved:
    """The value that the weight had in the dense network.

    Source: ours; the structured variant of arXiv 2511.11675 (2025) restores dense weights.
    """

    needs = frozenset({Need("weight", "dense")})

    def values(self, weight: Weight, evidence: Evidence) -> Tensor | None:
        return evidence[Need("weight", "dense")][weight.name]


@dataclass(frozen=True)
class Remembered:
    """The value that the weight had when it was removed, or has got meanwhile; see `Plan.memory`.

    Source: Lin et al. 2020, "Dynamic model pruning with feedback", where it is updated meanwhile.
    """

    needs = frozenset({Need("weight", "remembered")})

    def values(self, weight: Weight, evidence: Evidence) -> Tensor | None:
        return evidence[Need("weight", "remembered")][weight.name]


@dataclass(frozen=True)
class NewtonStep:
    """The value that lowers the loss most by itself, -g / h, so that it need not be learned first.

    g is the mean gradient at the removed entry, h the empirical Fisher diagonal: `batch` times
    the variance of batch gradients, since the mean of so many samples varies that much less. No
    entry returns larger than the largest that lives in its layer.

    Attributes:
        batch: samples in a batch of the evidence.
        share: the part of the whole step that is taken, as others return at the same time.

    Source: ours; Newton's step for one weight, with the curvature of LeCun et al. 1990.
    """

    batch: int = 128
    share: float = 0.5
    needs = frozenset({Need("weight"), Need("gradient"), Need("gradient_square")})

    def __post_init__(self) -> None:
        if self.batch < 1 or not 0 < self.share <= 1:
            raise RegrowError(
                f"batch={self.batch} is a number of samples, at least 1, and share={self.share} a "
                "fraction in (0, 1]."
            )

    def values(self, weight: Weight, evidence: Evidence) -> Tensor | None:
        gradient = evidence[Need("gradient")][weight.name].float()
        spread = evidence[Need("gradient_square")][weight.name] - gradient.square()
        curvature = (self.batch * spread).clamp_min(torch.finfo(torch.float32).tiny)
        most = float(evidence[Need("weight")][weight.name].abs().max())
        return (-self.share * gradient / curvature).clamp(-most, most)


@dataclass(frozen=True)
class FromReference:
    """The value that the weight has in the less sparse reference network.

    Source: arXiv 2511.11675 (2025) and its authors' code.
    """

    needs = frozenset({Need("weight", "reference")})

    def values(self, weight: Weight, evidence: Evidence) -> Tensor | None:
        return evidence[Need("weight", "reference")][weight.name]


@dataclass(frozen=True)
class Initialiser:
    """A fresh draw from a uniform initialiser, U(-b, b).

    scheme="kaiming": b = sqrt(6 / fan_in); scheme="xavier": b = sqrt(6 / (fan_in + fan_out)).
    Fans are those of the dense layer.

    Source: He et al. 2015, eq. 10; Glorot and Bengio 2010, eq. 16.
    """

    scheme: Literal["kaiming", "xavier"] = "kaiming"
    needs = frozenset({Need("weight")})

    def __post_init__(self) -> None:
        if self.scheme not in ("kaiming", "xavier"):
            raise RegrowError(f"scheme is 'kaiming' or 'xavier'; got {self.scheme!r}.")

    def values(self, weight: Weight, evidence: Evidence) -> Tensor | None:
        like = evidence[Need("weight")][weight.name]
        kernel = prod(weight.shape[2:])
        fan_in, fan_out = weight.shape[1] * kernel, weight.shape[0] * kernel
        fans = fan_in if self.scheme == "kaiming" else fan_in + fan_out
        return (2 * uniform(like, (*evidence.key, "value", weight.name)) - 1) * sqrt(6 / fans)
