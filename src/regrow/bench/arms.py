"""The arms of a fair comparison: the recipe, and controls with the same budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regrow.core.errors import RegrowError
from regrow.core.table import Row, Table
from regrow.engine.program import Program
from regrow.recipes import bidirectional, gradual, one_shot
from regrow.recipes.common import CUT


def one_way(parameters: Mapping[str, Any], sparsity: float, epochs: int, seed: int) -> Program:
    """One cut to the final sparsity, then all the epochs: the control that a claim must beat."""
    return one_shot(sparsity, epochs, seed=seed, **_cut(parameters))


def gradual_ramp(parameters: Mapping[str, Any], sparsity: float, epochs: int, seed: int) -> Program:
    """Cubic ramp to the final sparsity over three quarters of the epochs."""
    return gradual(sparsity, epochs, seed=seed, **_cut(parameters))


def random_regrowth(
    parameters: Mapping[str, Any], sparsity: float, epochs: int, seed: int
) -> Program:
    """The bidirectional recipe, but random connections return."""
    return bidirectional(**{**_of_bidirectional(parameters), "regrow": "random", "seed": seed})


def no_regrowth(parameters: Mapping[str, Any], sparsity: float, epochs: int, seed: int) -> Program:
    """One cut to the overshoot, then all the epochs; it stays at the overshoot's sparsity."""
    overshoot = _of_bidirectional(parameters)["overshoot"]
    return one_shot(overshoot, epochs, seed=seed, **_cut(parameters))


CONTROLS: Table[Program] = Table(
    "control",
    Row("one_way", one_way, "arXiv 2508.13836 (2025)"),
    Row("gradual", gradual_ramp, "Zhu and Gupta 2017"),
    Row("random_regrowth", random_regrowth, "Mocanu et al. 2018"),
    Row("no_regrowth", no_regrowth, "arXiv 2511.11675 (2025)"),
)


def _cut(parameters: Mapping[str, Any]) -> Any:
    return {key: parameters[key] for key in CUT if key in parameters}


def _of_bidirectional(parameters: Mapping[str, Any]) -> dict[str, Any]:
    if "overshoot" not in parameters:
        raise RegrowError(
            "the controls random_regrowth and no_regrowth belong to the recipe 'bidirectional'; "
            "leave them out of controls."
        )
    return dict(parameters)
