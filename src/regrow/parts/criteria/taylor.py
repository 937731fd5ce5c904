"""First-order Taylor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need


@dataclass(frozen=True)
class Taylor:
    """First-order change of the loss on removal, |w dL/dw|, with the mean gradient over batches.

    Source: Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient
    inference", eq. 7; per weight as in SNIP, Lee et al. 2019, eq. 6.
    """

    needs = frozenset({Need("weight"), Need("gradient")})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        grads = evidence[Need("gradient")]
        return {n: (w.float() * grads[n]).abs() for n, w in evidence[Need("weight")].items()}
