"""Performing a decision: the only writes into weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from regrow.core.decision import Decision
from regrow.core.maskset import MaskSet
from regrow.engine.optimizer_state import fresh_values, reset_entries
from regrow.model.inventory import Inventory


@torch.no_grad()
def project(weights: Mapping[str, nn.Parameter], masks: MaskSet) -> None:
    """Write true zeros over all removed entries."""
    for name, weight in weights.items():
        if not masks.full(name):
            weight.masked_fill_(masks.removed(name).to(weight.device), 0)


@torch.no_grad()
def perform(
    decision: Decision,
    weights: Mapping[str, nn.Parameter],
    masks: MaskSet,
    optimizer: torch.optim.Optimizer | None,
    entries: Inventory,
) -> tuple[MaskSet, dict[str, Any]]:
    """Carry out a decision on live weights and optimiser.

    Order: weights move by `delta`, removed entries become zero, and the optimiser's state of all
    entries that were pruned or regrown is reset.

    Nothing is written before all of the optimiser's state has been found to be understood.

    Args:
        decision: what to do.
        weights: the live parameters with masks.
        masks: the present ones.
        optimizer: whose state of entries that come and go is reset; None: nobody's.
        entries: the weights that are counted.

    Returns:
        the new masks, and a log entry: kind, kept, total, pruned, regrown, what the decision tells,
        and the same counts per layer.
    """
    fresh = {
        name: {} if optimizer is None else fresh_values(optimizer, weights[name], name)
        for name in decision.keep
    }
    for name, keep in decision.keep.items():
        weight = weights[name]
        if decision.delta and name in decision.delta:
            weight.add_(decision.delta[name].to(weight.dtype))
        weight.masked_fill_(~keep, 0)
        if optimizer is not None:
            reset_entries(optimizer, weight, keep ^ masks[name], fresh[name])
    after = masks.replaced(decision.keep)
    return after, {**told(decision.keep, masks, after, entries), **(decision.told or {})}


def told(
    changed: Iterable[str], before: MaskSet, after: MaskSet, entries: Inventory
) -> dict[str, Any]:
    """The log entry of an event.

    Args:
        changed: names of the weights that it was about.
        before, after: the masks.
        entries: the weights that are counted.

    Returns:
        kind, sparsity, kept, total, pruned, regrown, and the same counts per layer.
    """
    about = set(changed)
    layers: list[dict[str, Any]] = []
    for name in (entry.name for entry in entries if entry.name in about):
        keep, lived = after[name], before[name]
        layers.append(
            {
                "name": name,
                "shape": list(keep.shape),
                "total": keep.numel(),
                "kept_before": int(lived.sum()),
                "kept": int(keep.sum()),
                "pruned": int((lived & ~keep).sum()),
                "regrown": int((keep & ~lived).sum()),
            }
        )
    pruned: int = sum(layer["pruned"] for layer in layers)
    regrown: int = sum(layer["regrown"] for layer in layers)
    kept = sum(after.kept[entry.name] for entry in entries)
    return {
        "kind": "exchange" if pruned and regrown else "regrow" if regrown else "prune",
        "sparsity": 1 - kept / entries.total,
        "kept": kept,
        "total": entries.total,
        "pruned": pruned,
        "regrown": regrown,
        "layers": layers,
    }
