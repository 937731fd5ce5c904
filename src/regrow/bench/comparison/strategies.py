"""Ways of pruning that a comparison knows by name: a recipe, and how it follows the sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regrow.bench.config import parameters_of, typed_parameters
from regrow.core.errors import RegrowError, unknown
from regrow.engine.program import Program
from regrow.recipes import RECIPES

_OWN = ("recipe", "note", "split", "beyond", "restart")


@dataclass(frozen=True)
class Strategy:
    """A recipe with settings, to be had at any sparsity and budget.

    Attributes:
        name: in tables and figures.
        recipe: a name of the recipe table.
        note: what it is, in a few words.
        settings: of the recipe, whatever the sparsity.
        split: of a hybrid: which share of the sparsity is cut at first.
        beyond: of recipes that overshoot: which share of what shall stay is cut at first.
        restart: the learning rate starts anew with every cut ("rewinding of the learning rate").
    """

    name: str
    recipe: str
    note: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    split: float | None = None
    beyond: float | None = None
    restart: bool = False

    def program(self, sparsity: float, epochs: int, seed: int, cut: Mapping[str, Any]) -> Program:
        """The recipe's program.

        Args:
            sparsity: the target.
            epochs: in all; recipes of two phases share them evenly.
            seed: of random parts.
            cut: criterion, pattern and the like, which the strategy's own settings precede.

        Raises:
            RegrowError: as the recipe does.
        """
        options: dict[str, Any] = {**cut, **self.settings}
        if self.split is not None:
            options["first"] = self.split * sparsity
        if self.beyond is not None:
            options["overshoot"] = 1 - (1 - sparsity) * (1 - self.beyond)
        two = self.recipe in ("bidirectional_paper", "bidirectional_units")
        budget: Any = (epochs - epochs // 2, epochs // 2) if two else epochs
        make = RECIPES[self.recipe].make
        return make(**{"sparsity": sparsity, "epochs": budget, "seed": seed, **options})

    def cycles(self, program: Program, epochs: int) -> tuple[int, ...]:
        """Epochs of each learning-rate cycle: one over all, or one after each cut."""
        if not self.restart:
            return (epochs,)
        every = getattr(program.stages[0].plan.schedule, "every", None)
        if every is None or every.unit != "epoch" or not 0 < every.value < epochs:
            raise RegrowError(
                f"strategy {self.name!r} restarts the learning rate with every cut, but recipe "
                f"{self.recipe!r} does not cut every so many epochs; leave restart out."
            )
        starts = range(0, epochs - epochs % every.value, every.value)
        lengths = [every.value] * len(starts)
        return (*lengths[:-1], epochs - sum(lengths[:-1]))

    @classmethod
    def of(cls, name: str, table: Mapping[str, Any]) -> Strategy:
        """From a table as in a study's file: the recipe, this class's own keys, and settings.

        Raises:
            RegrowError: it names no recipe, or one that is not known or meets no sparsity; a
                setting is not known, or not of its type.
        """
        recipe = table.get("recipe")
        if not isinstance(recipe, str):
            raise RegrowError(
                f"strategy {name!r} names no recipe; add a line like recipe = 'iterative'."
            )
        if not {"sparsity", "criterion"} <= parameters_of(recipe)[0].keys():
            raise RegrowError(
                f"strategy {name!r}: {recipe!r} cannot be told how much to cut, and by what; a "
                "comparison is of recipes that can, such as 'gradual'."
            )
        own = {key: table[key] for key in _OWN if key in table}
        for key in ("split", "beyond"):
            if key in own and not (isinstance(own[key], float) and 0 < own[key] < 1):
                raise RegrowError(
                    f"strategy {name!r}: {key}={own[key]!r} must be a fraction between 0 and 1."
                )
        for key, kind, what in (("restart", bool, "true or false"), ("note", str, "text")):
            if not isinstance(own.get(key, kind()), kind):
                raise RegrowError(f"strategy {name!r}: {key}={own[key]!r} must be {what}.")
        for key in ("sparsity", "pattern"):
            if key in table:
                raise RegrowError(
                    f"strategy {name!r}: {key} is the grid's to say, the same for all that are "
                    "compared; leave it out here."
                )
        given = {key: value for key, value in table.items() if key not in _OWN}
        if recipe == "hybrid" and "first" not in given:
            own.setdefault("split", STRATEGIES["hybrid"].split)
        settings = typed_parameters(given, recipe)
        return cls(name, settings=settings, **own)


STRATEGIES: Mapping[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("one_shot", "one_shot", "one cut, then training"),
        Strategy("constant", "iterative", "five equal cuts", {"cuts": 5, "spacing": "constant"}),
        Strategy("geometric", "iterative", "five cuts, each of a share of the survivors"),
        Strategy("gradual", "gradual", "a cubic ramp"),
        Strategy("hybrid", "hybrid", "most in one cut, the rest in four", split=0.8),
        Strategy(
            "hybrid_survivors",
            "hybrid",
            "the same, with shares of the survivors",
            {"tail": "survivors"},
            split=0.8,
        ),
        Strategy(
            "woodfisher",
            "woodfisher",
            "a cubic ramp, second-order, with repair",
            {"criterion": "woodfisher"},
        ),
        Strategy("bidirectional", "bidirectional", "a ramp with exchange and return"),
        Strategy(
            "bidirectional_paper",
            "bidirectional_paper",
            "cut to half of what shall stay, then return",
            beyond=0.5,
        ),
        Strategy(
            "granet",
            "granet",
            "a ramp, and as many exchanged in each layer; from initial weights",
            {"criterion": "magnitude"},
        ),
        Strategy(
            "granet_st",
            "granet_st",
            "the same, half removed at random before the first step",
            {"criterion": "magnitude"},
        ),
        Strategy(
            "rigl",
            "rigl",
            "sparse from initial weights on, growing by gradient",
            {"criterion": "magnitude"},
        ),
        Strategy(
            "set",
            "set",
            "sparse from initial weights on, growing at random",
            {"criterion": "magnitude"},
        ),
        Strategy(
            "bidirectional_units",
            "bidirectional_units",
            "channels: cut to half of what shall stay, then return",
            beyond=0.5,
        ),
        Strategy(
            "lookahead",
            "lookahead",
            "one cut that looks at neighbouring layers",
            {"criterion": "lookahead"},
        ),
        # Each cut gets an equal share of the epochs: patience above that would never end one.
        Strategy(
            "one_shot_patience",
            "one_shot",
            "one cut, until five epochs bring nothing",
            {"patience": 5},
        ),
        Strategy(
            "geometric_patience",
            "iterative",
            "five cuts, each until two epochs bring nothing",
            {"patience": 2, "cuts": 5},
        ),
        Strategy(
            "hybrid_patience",
            "hybrid",
            "most in one cut, the rest in four, each until two epochs bring nothing",
            {"patience": 2},
            split=0.8,
        ),
        Strategy(
            "geometric_rewinding",
            "iterative",
            "five cuts, the learning rate anew after each",
            restart=True,
        ),
        Strategy(
            "geometric_lottery",
            "iterative",
            "the same, and the dense network's weights again",
            {"rewind": True},
            restart=True,
        ),
        Strategy("greg1", "greg1", "chosen at once, pulled to zero, removed half-way"),
        Strategy("greg2", "greg2", "the same, chosen after a pull on everything"),
        Strategy("snip", "snip", "one cut before training, by |w g|", {"criterion": "taylor"}),
        Strategy("grasp", "grasp", "one cut before training, by w Hg", {"criterion": "grasp"}),
        Strategy(
            "synflow",
            "synflow",
            "a cut in a hundred rounds before training, by synaptic flow",
            {"criterion": "synflow"},
        ),
        Strategy(
            "cops",
            "cops",
            "one cut before training, by |w g| as far as synaptic flow allows",
            {"criterion": "taylor"},
        ),
    )
}
"""Those that need no table of their own in a study's file."""

RANDOM = Strategy("random", "one_shot", "one cut at random", {"criterion": "random"})
GRADUAL = Strategy("gradual magnitude", "gradual", "a cubic ramp, by magnitude")
SMALL = "small dense"
"""Arms that every comparison has: no knowledge, the usual, and a network built small."""

DENSE = "dense"
"""What rows of the network are named that others start from."""

SHUFFLED = ", shuffled"
"""What follows the name of an arm's twin whose scores are in the wrong places."""

ONE_WAY = ("one_shot", "iterative", "hybrid", "gradual")
"""Recipes by which nothing returns."""


def find(name: str, own: Mapping[str, Strategy]) -> Strategy:
    """A strategy by name, a study's own ones first.

    Raises:
        RegrowError: there is none.
    """
    every = {**STRATEGIES, **own}
    if name not in every:
        raise unknown("strategy", name, every)
    return every[name]
