"""Optimiser state of pruned and regrown entries, whatever the optimiser."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError


def check_owns(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> None:
    """Refuse an optimiser that does not update the weights, or cannot be understood.

    Raises:
        RegrowError: a trainable weight is in no parameter group, the optimiser needs a closure, or
            it keeps state that is neither of a weight's shape nor a scalar.
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
    # A small stand-in of each number of dimensions, so that training does not fail hours later.
    for name, weight in {w.ndim: (n, w) for n, w in weights.items() if id(w) in owned}.values():
        like = torch.Size(range(2, 2 + weight.ndim))
        _entrywise(optimizer, _stepped(optimizer, weight, like), like, name)


def fresh_values(
    optimizer: torch.optim.Optimizer, weight: nn.Parameter, name: str
) -> dict[str, float]:
    """The value that every state tensor of the weight's shape has at an entry never updated.

    It comes from the optimiser itself: a new one of the same type takes one step on a single zero
    weight with zero gradient (so Adagrad's accumulator and Rprop's step size get their own
    starting values, not zero). Scalars such as step counts are left out.

    Args:
        optimizer: any optimiser that keeps its state per parameter.
        weight: the parameter.
        name: the weight's name, for errors.

    Returns:
        values by state key; nothing where the weight has no state yet.

    Raises:
        RegrowError: a state tensor is neither of the weight's shape nor a scalar.
    """
    entrywise = _entrywise(optimizer, optimizer.state.get(weight) or {}, weight.shape, name)
    if not entrywise:
        return {}
    fresh = _stepped(optimizer, weight, (1,) * max(weight.ndim, 1))
    starts = {key: fresh.get(key) for key in entrywise}
    return {k: float(v) if isinstance(v, Tensor) else 0.0 for k, v in starts.items()}


def reset_entries(
    optimizer: torch.optim.Optimizer,
    weight: nn.Parameter,
    entries: Tensor,
    values: Mapping[str, float],
) -> None:
    """Give some entries (boolean, of the weight's shape) of a weight's state `fresh_values`."""
    for key, value in values.items():
        optimizer.state[weight][key][entries] = value


def clear(optimizer: torch.optim.Optimizer, weights: Iterable[nn.Parameter]) -> None:
    """Forget all state of the parameters, as a newly built optimiser would have it."""
    for weight in weights:
        if not optimizer.state.get(weight):
            continue
        first = _probe(optimizer, weight, (1,) * max(weight.ndim, 1)).state
        initial = next(iter(first.values()), None)
        if initial is None:
            del optimizer.state[weight]
            continue
        for key, value in optimizer.state[weight].items():
            if isinstance(value, Tensor) and isinstance(initial.get(key), Tensor):
                value.fill_(float(initial[key]))


def _entrywise(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], shape: torch.Size, name: str
) -> list[str]:
    keys = []
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        if value.shape == shape:
            keys.append(key)
        elif value.numel() != 1:
            raise RegrowError(
                f"{type(optimizer).__name__} keeps state {key!r} of shape {tuple(value.shape)} for "
                f"{name} of shape {tuple(shape)}: entries cannot be reset in it. Use an "
                "optimiser whose state has the weight's shape."
            )
    return keys


def _probe(
    optimizer: torch.optim.Optimizer, weight: nn.Parameter, shape: tuple[int, ...]
) -> torch.optim.Optimizer:
    """A new optimiser of the same type and options, for one zero weight."""
    group = next(g for g in optimizer.param_groups if any(p is weight for p in g["params"]))
    options = {k: v for k, v in group.items() if k not in ("params", "param_names")}
    like = nn.Parameter(torch.zeros(shape, dtype=weight.dtype, device=weight.device))
    # Some optimisers record defaults that they set themselves and do not take (AdamW's
    # decoupled_weight_decay).
    taken = inspect.signature(type(optimizer)).parameters.values()
    anything = any(p.kind is p.VAR_KEYWORD for p in taken)
    names = {p.name for p in taken}
    defaults = {k: v for k, v in optimizer.defaults.items() if anything or k in names}
    return type(optimizer)([{**options, "params": [like]}], **defaults)


def _stepped(
    optimizer: torch.optim.Optimizer, weight: nn.Parameter, shape: tuple[int, ...]
) -> dict[str, Any]:
    """The state of a zero weight after one step with zero gradient."""
    try:
        probe = _probe(optimizer, weight, shape)
        like = probe.param_groups[0]["params"][0]
        like.grad = torch.zeros_like(like)
        probe.step()
    except Exception as error:
        raise RegrowError(
            f"the state of {type(optimizer).__name__} for a fresh weight cannot be worked out, "
            f"since a second one cannot be built from its defaults and stepped ({error}); give it "
            "a constructor that takes them and a step that needs no closure."
        ) from error
    return dict(probe.state[like])
