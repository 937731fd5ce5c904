"""Synaptic flow."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need


@dataclass(frozen=True)
class SynFlow:
    """Synaptic flow |w dR/d|w||, R the sum of the outputs for ones and absolute weights.

    It needs no data, only an `example` for the shape of the input. The published form cuts in 100
    rounds (`Plan.rounds`; the recipe `synflow`): then no layer is emptied as long as another can
    give weights, while a single round may empty layers.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving
    synaptic flow", eq. 2. `regrow.model.flow.flow` names the departures.
    """

    needs = frozenset({Need("weight"), Need("flow")})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        flows = evidence[Need("flow")]
        return {
            n: (w.to(flows[n].dtype) * flows[n]).abs() for n, w in evidence[Need("weight")].items()
        }
