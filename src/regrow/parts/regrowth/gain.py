"""What a removed weight would gain by its return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need

_WEIGHT, _GRADIENT = Need("weight", "remembered"), Need("gradient")


@dataclass(frozen=True)
class Gain:
    """Removed entries come back whose return at the remembered value w lowers the loss most.

    To first order the loss of the sparse network as it stands falls by -dL/dw w, sign included:
    a weight that would raise it ranks below one that would do nothing.

    Source: ours; the expansion of Molchanov et al. 2019, "Importance estimation for neural network
    pruning", with its sign and at removed positions.
    """

    needs = frozenset({_WEIGHT, _GRADIENT})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        gradients = evidence[_GRADIENT]
        return {name: -gradients[name] * w for name, w in evidence[_WEIGHT].items()}
