"""The arms of a fair comparison: the recipe, and controls with the same budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from regrow.core.errors import RegrowError
from regrow.core.table import Row, Table
from regrow.engine.program import Program
from regrow.recipes import bidirectional, bidirectional_paper, gradual, one_shot
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
    make = _bidirectional(parameters)
    return make(**{**parameters, "regrow": "random", "seed": seed})


def no_regrowth(parameters: Mapping[str, Any], sparsity: float, epochs: int, seed: int) -> Program:
    """The bidirectional recipe without any return.

    In the published form the one cut to the overshoot, where it stays; else the same ramp, to the
    target.
    """
    if _bidirectional(parameters) is bidirectional_paper:
        return one_shot(parameters["overshoot"], epochs, seed=seed, **_cut(parameters))
    whole = bidirectional(**{**parameters, "seed": seed}).stages[0].plan.schedule
    # Nothing returns, so that no evidence about returns is asked for either. The masks settle when
    # the recipe's do, so there are as many epochs to choose the best from.
    idle = {
        "end": getattr(whole, "last", None),
        "overshoot": None,
        "exchange": 0.0,
        "regrow": "random",
        "value": "zero",
        "memory": None,
        "layers": "global",
        "ssim_below": None,
    }
    return bidirectional(**{**parameters, **idle, "seed": seed})


CONTROLS: Table[Program] = Table(
    "control",
    Row("one_way", one_way, "arXiv 2508.13836 (2025)"),
    Row("gradual", gradual_ramp, "Zhu and Gupta 2017"),
    Row("random_regrowth", random_regrowth, "Mocanu et al. 2018"),
    Row("no_regrowth", no_regrowth, "arXiv 2511.11675 (2025)"),
)


def _cut(parameters: Mapping[str, Any]) -> Any:
    return {key: parameters[key] for key in CUT if key in parameters}


def _bidirectional(parameters: Mapping[str, Any]) -> Callable[..., Program]:
    """Which of the two forms the parameters belong to."""
    if "exchange" in parameters:
        return bidirectional
    if "cuts" in parameters and "overshoot" in parameters:
        return bidirectional_paper
    raise RegrowError(
        "the controls random_regrowth and no_regrowth belong to the recipes 'bidirectional' and "
        "'bidirectional_paper'; leave them out of controls."
    )
