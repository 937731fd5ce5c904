"""Optimiser state of pruned and regrown entries, whatever the optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError


def check_owns(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> None:
    """Refuse an optimiser that does not update the weights, or cannot be understood.

    Raises:
        RegrowError: a trainable weight is in no parameter group, or the optimiser needs a closure.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise RegrowError(
            "LBFGS keeps its state for all parameters in one vector, from which single entries "
            "cannot be reset; use an optimiser that works entry by entry, such as SGD or AdamW."
        )
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, weight in weights.items():
        if weight.requires_grad and id(weight) not in owned:
            raise RegrowError(
                f"{name} is trainable but not in the optimiser given to attach; pass the optimiser "
                "that updates it, freeze it, or exclude the layer."
            )


def reset_entries(
    optimizer: torch.optim.Optimizer, weight: nn.Parameter, entries: Tensor, name: str
) -> None:
    """Give some entries of a weight the optimiser state of a weight never updated.

    Every state tensor of the weight's shape is reset, scalars such as step counts stay. What a
    fresh entry's state is comes from the optimiser itself: a new one of the same type takes one
    step on a single zero weight with zero gradient (so Adagrad's accumulator and Rprop's step
    size get their own starting values, not zero).

    Args:
        optimizer: any optimiser that keeps its state per parameter.
        weight: the parameter.
        entries: boolean, of the weight's shape.
        name: the weight's name, for errors.

    Raises:
        RegrowError: a state tensor is neither of the weight's shape nor a scalar.
    """
    state = optimizer.state.get(weight)
    if not state:
        return
    fresh: dict[str, Any] | None = None
    for key, value in state.items():
        if not isinstance(value, Tensor) or (value.numel() == 1 and weight.numel() != 1):
            continue
        if value.shape != weight.shape:
            raise RegrowError(
                f"{type(optimizer).__name__} keeps state {key!r} of shape {tuple(value.shape)} for "
                f"{name} of shape {tuple(weight.shape)}: entries cannot be reset in it. Use an "
                "optimiser whose state has the weight's shape."
            )
        if fresh is None:
            fresh = _fresh_state(optimizer, weight)
        start = fresh.get(key)
        value[entries] = float(start) if isinstance(start, Tensor) else 0.0


def clear(optimizer: torch.optim.Optimizer, weights: Iterable[nn.Parameter]) -> None:
    """Forget all state of the parameters, as a newly built optimiser would have it."""
    for weight in weights:
        if not optimizer.state.get(weight):
            continue
        first = _probe(optimizer, weight).state
        initial = next(iter(first.values()), None)
        if initial is None:
            del optimizer.state[weight]
            continue
        for key, value in optimizer.state[weight].items():
            if isinstance(value, Tensor) and isinstance(initial.get(key), Tensor):
                value.fill_(float(initial[key]))


def _probe(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> torch.optim.Optimizer:
    group = next(g for g in optimizer.param_groups if any(p is weight for p in g["params"]))
    like = nn.Parameter(torch.zeros(1, dtype=weight.dtype, device=weight.device))
    try:
        probe = type(optimizer)([like], **optimizer.defaults)
    except TypeError as error:
        raise RegrowError(
            f"the state of {type(optimizer).__name__} for a fresh weight cannot be worked out, "
            f"since a second one cannot be built from its defaults ({error}); give it a "
            "constructor that takes them."
        ) from error
    probe.param_groups[0].update({k: v for k, v in group.items() if k != "params"})
    return probe


def _fresh_state(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, Any]:
    probe = _probe(optimizer, weight)
    like = probe.param_groups[0]["params"][0]
    like.grad = torch.zeros_like(like)
    probe.step()
    return dict(probe.state[like])
