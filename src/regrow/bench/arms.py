"""The arms of a fair comparison: the recipe, and controls with the same budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regrow.core.errors import RegrowError
from regrow.core.table import Row, Table
from regrow.engine.program import Program
from regrow.recipes import RECIPES, bidirectional, gradual, one_shot
from regrow.recipes.common import CUT

Parameters = Mapping[str, Any]


def one_way(
    recipe: str, parameters: Parameters, sparsity: float, epochs: int, seed: int
) -> Program:
    """One cut to the final sparsity, then all the epochs: the control that a claim must beat."""
    return one_shot(sparsity, epochs, seed=seed, **_cut(parameters))


def gradual_ramp(
    recipe: str, parameters: Parameters, sparsity: float, epochs: int, seed: int
) -> Program:
    """Cubic ramp to the final sparsity over three quarters of the epochs."""
    return gradual(sparsity, epochs, seed=seed, **_cut(parameters))


def random_regrowth(
    recipe: str, parameters: Parameters, sparsity: float, epochs: int, seed: int
) -> Program:
    """The bidirectional recipe, but random connections or units return."""
    _check_regrows(recipe)
    return RECIPES[recipe].make(**{**parameters, "regrow": "random", "seed": seed})


def no_regrowth(
    recipe: str, parameters: Parameters, sparsity: float, epochs: int, seed: int
) -> Program:
    """The bidirectional recipe without any return.

    In the forms with one cut to the overshoot, that cut, where it stays; else the same ramp, to
    the target.
    """
    _check_regrows(recipe)
    if recipe != "bidirectional":
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


def control_parameters(parameters: Parameters, program: Program) -> Parameters:
    """Those of a recipe's parameters that its controls share.

    What ranks initial weights need not rank trained ones: controls of a recipe that starts from
    initial weights cut by the usual criterion.
    """
    if program.start == "dense":
        return parameters
    return {key: value for key, value in parameters.items() if key != "criterion"}


def _cut(parameters: Mapping[str, Any]) -> Any:
    return {key: parameters[key] for key in CUT if key in parameters}


def _check_regrows(recipe: str) -> None:
    forms = [row.name for row in RECIPES if row.name.startswith("bidirectional")]
    if recipe not in forms:
        raise RegrowError(
            f"the controls random_regrowth and no_regrowth belong to the recipes {forms}; leave "
            "them out of controls."
        )
