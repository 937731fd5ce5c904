"""Small inventories and evidence for tests of one event."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from regrow.core.blocks import layout
from regrow.core.decision import Decision
from regrow.core.evidence import Evidence, Need
from regrow.core.neighbours import Neighbours, Place
from regrow.engine.plan import Plan
from regrow.engine.regrowth import Regrowth
from regrow.model.inventory import Entry, Inventory
from regrow.parts.criteria.woodfisher import WoodFisher
from regrow.parts.regrowth import RULES
from regrow.parts.schedule.one_shot import OneShot

ANY = OneShot(0.5)  # decide() is told the density, so the schedule does not matter.
SHAPES = [(4, 4, 3, 3), (8, 4, 1, 1), (8, 12), (4, 8), (12, 4), (4, 4)]
KINDS = ("weight", "gradient", "gradient_square", "hessian_gradient", "flow")


def inventory_of(*shapes: tuple[int, ...]) -> Inventory:
    """Layers l0, l1, ... of the shapes."""
    return Inventory(
        tuple(
            Entry(f"l{i}.weight", shape, "conv" if len(shape) > 2 else "linear")
            for i, shape in enumerate(shapes)
        )
    )


def ones(entries: Inventory) -> dict[str, Tensor]:
    return {e.name: torch.ones(e.shape, dtype=torch.bool) for e in entries}


def evidence_of(
    entries: Inventory, masks: dict[str, Tensor], seed: int = 0, damage: Any = None
) -> Evidence:
    """All evidence there is; current weights are zero where they have been removed."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[Need, dict[str, Tensor]] = {}
    for which in ("current", "dense", "reference"):
        for kind in KINDS:
            drawn = {e.name: torch.randn(e.shape, generator=generator) for e in entries}
            if kind == "gradient_square":
                drawn = {n: t.square() for n, t in drawn.items()}
            if kind == "weight" and which == "current":
                drawn = {n: t * masks[n] for n, t in drawn.items()}
            tensors[Need(kind, which)] = drawn  # type: ignore[arg-type]
    for how in (need for need in WoodFisher().needs if need.how):
        sizes = {e.name: layout(e.numel, 8) for e in entries}
        tensors[how] = {
            name: torch.eye(size) + torch.rand(count, 1, 1, generator=generator)
            for name, (count, size) in sizes.items()
        }
    away = {e.name: torch.randn(e.shape, generator=generator) for e in entries}
    tensors[Need("weight", "remembered")] = {
        n: torch.where(masks[n], w, away[n]) for n, w in tensors[Need("weight")].items()
    }
    if damage is None:
        damage = {e.name: ((i * 7 + seed) % 10) / 10 for i, e in enumerate(entries)}
    alone = Neighbours(tuple(Place(e.name) for e in entries), (), (), tensors[Need("weight")])
    return Evidence(tensors, damage=damage, key=(seed, 0), neighbours=alone)


def kept(decision: Decision) -> int:
    return sum(int(mask.sum()) for mask in decision.keep.values())


def plan_with(**parts: Any) -> Plan:
    return Plan(ANY, **parts)


def regrowing(rule: str = "saliency", **options: Any) -> Plan:
    return Plan(ANY, regrowth=Regrowth(RULES.build(rule), **options), memory=0.0)


@st.composite
def inventories(draw: Any) -> Inventory:
    return inventory_of(*draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4)))


@st.composite
def masked(draw: Any, entries: Inventory, least: int = 1) -> dict[str, Tensor]:
    """Masks of any density, with at least so many kept in each layer."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    masks = {}
    for entry in entries:
        count = draw(st.integers(least, entry.numel))
        flat = torch.zeros(entry.numel, dtype=torch.bool)
        flat[torch.randperm(entry.numel, generator=generator)[:count]] = True
        masks[entry.name] = flat.view(entry.shape)
    return masks
