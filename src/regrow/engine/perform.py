"""Performing a decision: the only writes into weights."""

from __future__ import annotations

from collections.abc import Mapping
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
    layers: dict[str, dict[str, Any]] = {}
    for name, keep in decision.keep.items():
        weight, before = weights[name], masks[name]
        if decision.delta and name in decision.delta:
            weight.add_(decision.delta[name].to(weight.dtype))
        weight.masked_fill_(~keep, 0)
        if optimizer is not None:
            reset_entries(optimizer, weight, keep ^ before, fresh[name])
        layers[name] = {
            "name": name,
            "shape": list(weight.shape),
            "total": weight.numel(),
            "kept_before": int(before.sum()),
            "kept": int(keep.sum()),
            "pruned": int((before & ~keep).sum()),
            "regrown": int((keep & ~before).sum()),
        }
    masks = masks.replaced(decision.keep)
    counted = [layers[entry.name] for entry in entries if entry.name in layers]
    pruned = sum(layer["pruned"] for layer in counted)
    regrown = sum(layer["regrown"] for layer in counted)
    kept = sum(masks.kept[entry.name] for entry in entries)
    kind = "exchange" if pruned and regrown else "regrow" if regrown else "prune"
    return masks, {
        "kind": kind,
        "sparsity": 1 - kept / entries.total,
        "kept": kept,
        "total": entries.total,
        "pruned": pruned,
        "regrown": regrown,
        **(decision.told or {}),
        "layers": counted,
    }
