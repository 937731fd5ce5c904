"""A penalty's step: what pulls weights towards zero, in the optimiser's own way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from regrow.core.maskset import MaskSet


@torch.no_grad()
def pull(
    weights: Mapping[str, nn.Parameter],
    names: Iterable[str],
    pending: MaskSet | None,
    strengths: tuple[float, float],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Called right before an optimiser's step, after any clipping and unscaling.

    With SGD the gradient of strength / 2 * w^2 is added to the loss's, so momentum sees it. Other
    optimisers divide gradients by their size, which would undo the strength: there weights shrink
    by learning rate times strength instead, as decoupled weight decay does.

    Args:
        weights: live, by clean name.
        names: of those that are pulled.
        pending: what shall stay; None while all are pulled alike.
        strengths: on what shall go, and on what stays.
        optimizer: about to step.
    """
    going, staying = strengths
    if not going and not staying:
        return
    plain = isinstance(optimizer, torch.optim.SGD)
    # An optimiser that unscales by itself meets gradients that are scaled still.
    scale = getattr(optimizer, "grad_scale", None)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    # Those whose gradients are climbed: what pulls to zero has the other sign.
    climbing = {
        id(p) for group in optimizer.param_groups if group.get("maximize") for p in group["params"]
    }
    for name in names:
        weight = weights[name]
        if weight.grad is None or id(weight) not in rates:
            continue
        strength: Tensor | float = going
        if pending is not None:
            strength = torch.where(pending[name].to(weight.device), staying, going)
        if plain:
            added = weight * (-strength if id(weight) in climbing else strength)
            weight.grad.add_(added if scale is None else added * scale)
        else:
            weight.mul_(1 - torch.as_tensor(rates[id(weight)] * strength).clamp(max=1))
