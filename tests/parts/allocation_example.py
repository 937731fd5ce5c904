"""Small networks, budgets and scores for tests of allocations."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from regrow.core.budget import Budget
from regrow.core.evidence import Evidence
from regrow.model.inventory import Entry

SHAPES = [(3, 2, 3, 3), (4, 3, 1, 1), (8, 5), (2, 9), (1, 4), (6, 6)]


def entries_of(*shapes: tuple[int, ...]) -> tuple[Entry, ...]:
    """Layers l0, l1, ... of the shapes."""
    return tuple(
        Entry(f"l{i}.weight", shape, "conv" if len(shape) > 2 else "linear")
        for i, shape in enumerate(shapes)
    )


def scores_of(entries: tuple[Entry, ...], seed: int, values: int = 0) -> dict[str, Tensor]:
    """One flat score per weight; with `values`, only so many distinct ones."""
    generator = torch.Generator().manual_seed(seed)
    draw = {e.name: torch.rand(prod(e.shape), generator=generator) for e in entries}
    return {n: (s * values).floor() for n, s in draw.items()} if values else draw


@st.composite
def problems(draw: Any) -> tuple[tuple[Entry, ...], Budget, dict[str, Tensor], Evidence]:
    """Layers, a feasible budget, scores (with ties or without) and damage."""
    entries = entries_of(*draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=5)))
    scores = scores_of(entries, draw(st.integers(0, 99)), draw(st.sampled_from([0, 1, 4])))
    upper = {e.name: draw(st.integers(0, e.numel)) for e in entries}
    if draw(st.booleans()):
        upper = {e.name: e.numel for e in entries}
    floor = draw(st.sampled_from([0, 1, 3]))
    lower = {n: min(floor, most) for n, most in upper.items()}
    if draw(st.booleans()):
        lower = {n: draw(st.integers(0, most)) for n, most in upper.items()}
    total = draw(st.integers(sum(lower.values()), sum(upper.values())))
    damage = {e.name: draw(st.sampled_from([-0.2, 0.0, 0.3, 0.9, 1.0])) for e in entries}
    return entries, Budget(total, lower, upper), scores, Evidence({}, damage=damage)


def dense_budget(entries: tuple[Entry, ...], total: int, floor: int = 0) -> Budget:
    """No bound but the layers' sizes and a floor."""
    return Budget(total, {e.name: floor for e in entries}, {e.name: e.numel for e in entries})
