"""Values of removed weights that are kept beside the network, so that they may return with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regrow.core.maskset import MaskSet

# Removed entries are true zeros in the network, living ones in `away`: the sum is the whole weight.


def complete(weights: Mapping[str, nn.Parameter], away: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every weight with its removed entries filled in: copies, since events write into weights.

    Args:
        weights: by clean name, removed entries zero.
        away: values of removed entries by the same names, zero elsewhere; may lack names.
    """
    return {
        name: weight.detach() + away[name] if name in away else weight.detach().clone()
        for name, weight in weights.items()
    }


@torch.no_grad()
def recall(weights: Mapping[str, nn.Parameter], away: Mapping[str, Tensor]) -> None:
    """Write the remembered values into the weights, for an optimiser step that updates them too."""
    for name, values in away.items():
        # Not by adding: a step that fails after this is followed by another.
        weights[name].copy_(torch.where(values != 0, values, weights[name]))


@torch.no_grad()
def put_away(
    weights: Mapping[str, nn.Parameter], masks: MaskSet, away: Mapping[str, Tensor], speed: float
) -> None:
    """Take the values of removed entries out of the weights again; true zeros stay behind.

    Args:
        weights: after an optimiser step.
        masks: the present keep masks.
        away: the values before the step, updated in place.
        speed: 1 takes the step's change over as it is, less takes so much of it.
    """
    for name, values in away.items():
        weight, removed = weights[name], masks.removed(name).to(weights[name].device)
        values.lerp_(weight.detach(), speed).masked_fill_(~removed, 0)
        weight.masked_fill_(removed, 0)
