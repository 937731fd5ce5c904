"""Controlled pruning: the best mask by one score among those that others find good enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Criterion
from regrow.core.topk import largest

_STEPS = 60  # of one bisection, as many as a float64 resolves
_SWEEPS = 24  # over several controls
_ROUNDING = 1e-12  # of sums over many weights


@dataclass(frozen=True)
class Solution:
    """How the scores are combined, and what that keeps of each.

    Attributes:
        multipliers: lambda of each control by name; 0 where the main score alone satisfies it.
        shares: of each score by name, its sum over what stays, of the most that as many weights
            can have.
        scores: the combination, of the weights' shapes by name, in float64.
    """

    multipliers: Mapping[str, float]
    shares: Mapping[str, float]
    scores: Mapping[str, Tensor]


@dataclass(frozen=True)
class Cops:
    """Controlled pruning: max <z1, m> where each control keeps at least a share of its own best.

    Every score z_i is divided by T_i, the sum of its k largest among the weights that compete. The
    mask m of k weights maximises <z1, m> subject to <z_i, m> >= least_i. Relaxed to [0, 1] its
    solution is a threshold of z1 + sum lambda_i z_i, whose multipliers are found by bisection; of
    the interval the end is taken that satisfies the constraints, to 1e-12.

    Without shares, `least=()`, it is max-min with one control: the smaller of <z_1, m> and
    <z_2, m> is as large as can be. The mask is a threshold of the same form, its multiplier that by
    which the two meet.

    The constraints hold of single weights in one ranking over all layers (allocation "global",
    pattern "element"), as far as no floor binds. The log entry of a cut tells the `shares` that
    were kept in the end.

    Attributes:
        main: the name of the criterion that is maximised; "taylor" is SNIP's.
        controls: names of those that are kept above a share.
        least: that share in [0, 1] of each; none at all for max-min.

    Source: Wimmer, Mehnert and Condurache 2021, "COPS: controlled pruning before training starts"
    (arXiv 2107.12673).

    Departures: the paper's exact form was not at hand; normalisation, constraints and defaults are
    a reconstruction from its abstract (docs/methods/cops.md).

    Raises:
        RegrowError: a name is unknown, occurs twice or is "cops"; there is no control, or not one
            share for each; max-min is asked for with several controls.
    """

    main: str = "taylor"
    controls: tuple[str, ...] = ("synflow",)
    least: tuple[float, ...] = (0.9,)

    def __post_init__(self) -> None:
        if isinstance(self.controls, str) or isinstance(self.least, (int, float)):
            raise RegrowError(
                f"controls={self.controls!r} and least={self.least!r} are lists, as "
                "controls=['synflow'] and least=[0.9]."
            )
        object.__setattr__(self, "controls", tuple(self.controls))
        object.__setattr__(self, "least", tuple(map(float, self.least)))
        balanced = not self.least and len(self.controls) == 1
        if not balanced and not 0 < len(self.controls) == len(self.least):
            raise RegrowError(
                f"cops has {len(self.controls)} controls and {len(self.least)} shares; name at "
                "least one control, and give one share for each. Without shares it balances the "
                "main score with one control."
            )
        if not all(isinstance(name, str) for name in self._names):
            raise RegrowError(f"cops knows criteria by their names alone; got {self._names}.")
        if "cops" in self._names or len(set(self._names)) < len(self._names):
            raise RegrowError(
                f"cops combines different scores, each once; got {', '.join(self._names)}."
            )
        if not all(0 <= share <= 1 for share in self.least):
            raise RegrowError(f"least={self.least} are shares in [0, 1].")
        self._criteria()  # refuses what is not known

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset().union(*(each.needs for each in self._criteria().values()))

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        return dict(self.solve(evidence).scores)

    def solve(self, evidence: Evidence) -> Solution:
        """Multipliers, shares and combined scores of a cut.

        Raises:
            RegrowError: no cut is being made; a score is not finite or its best sum not positive;
                no mask was found that satisfies several controls.
        """
        parts = _Parts.of(self._criteria(), evidence)
        found = parts.multipliers(self.least) if self.least else [parts.balancing_multiplier()]
        factors = [1.0, *found]
        scores = {layer: _weighted(factors, rows) for layer, rows in parts.layers.items()}
        names = self._names
        return Solution(
            dict(zip(names[1:], factors[1:], strict=True)),
            dict(zip(names, parts.shares(parts.best(factors)), strict=True)),
            scores,
        )

    def told(self, evidence: Evidence, keep: Mapping[str, Tensor]) -> dict[str, Any]:
        """What was kept of each score, of the most that could be: {"shares": {name: fraction}}."""
        parts = _Parts.of(self._criteria(), evidence)
        mask = torch.cat([keep[layer][parts.alive[layer]] for layer in parts.layers])
        return {"shares": dict(zip(self._names, parts.shares(mask), strict=True))}

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.main, *self.controls)

    def _criteria(self) -> dict[str, Criterion]:
        from regrow.parts.criteria import CRITERIA  # the table, which has this one too

        return {name: CRITERIA.build(name) for name in self._names}


@dataclass(frozen=True)
class _Parts:
    """The scores of one cut, divided by their best sums.

    Attributes:
        layers: one tensor of the weight's shape for each score, by weight.
        joined: one tensor of all weights that compete for each score, in the layers' order.
        alive: which weights compete.
        keep: how many stay.
    """

    layers: Mapping[str, list[Tensor]]
    joined: Sequence[Tensor]
    alive: Mapping[str, Tensor]
    keep: int

    @classmethod
    def of(cls, criteria: Mapping[str, Criterion], evidence: Evidence) -> _Parts:
        alive, keep = evidence.alive, evidence.keep
        if alive is None or keep is None:
            raise RegrowError(
                "cops chooses for a given number of weights to keep, which only a cut has; rank "
                "what returns by another criterion."
            )
        layers: dict[str, list[Tensor]] = {layer: [] for layer in alive}
        rows = []
        for name, criterion in criteria.items():
            found = {n: s.double() for n, s in criterion.score(evidence).items() if n in alive}
            row = torch.cat([found[layer][alive[layer]] for layer in alive])
            best = _best_sum(name, row, keep)
            rows.append(row / best)
            for layer in alive:
                layers[layer].append(found[layer] / best)
        return cls(layers, rows, alive, keep)

    def best(self, factors: Sequence[float]) -> Tensor:
        """The mask of the largest weighted sums, over the weights that compete."""
        return largest(_weighted(factors, self.joined), self.keep)

    def shares(self, mask: Tensor) -> list[float]:
        """What a mask keeps of each score."""
        return [float(row[mask].sum()) for row in self.joined]

    def multipliers(self, least: Sequence[float]) -> list[float]:
        """Multipliers of the controls, the smallest found that satisfy all of them.

        With one control by a single bisection; with several by coordinates, swept over until all
        hold. In single weights they might chase each other for ever, so each aims further above
        its share in every sweep, at most by a fifth of the way to 1; the first that holds counts.
        """
        found = [0.0] * len(least)
        if self.keep == 0:  # Nothing to choose; the budget says what it thinks of that.
            return found
        shares: list[float] = []
        for sweep in range(_SWEEPS if len(least) > 1 else 1):
            for index, share in enumerate(least):
                slack = min(1e-4 * 2.0**sweep, 0.2) if sweep else 0.0
                goal = share + (1 - share) * slack
                found[index] = self._least_multiplier(found, index, goal)
            shares = self.shares(self.best([1.0, *found]))[1:]
            if all(map(_holds, shares, least)):
                return found
        raise RegrowError(
            f"no mask of {self.keep} weights was found that keeps {list(least)} of the controls: "
            f"{[round(share, 4) for share in shares]} were reached. Lower the shares, or take "
            "fewer controls."
        )

    def balancing_multiplier(self) -> float:
        """The multiplier of the one control by which the smaller of both shares is largest.

        As it grows, what is kept of the main score falls and what is kept of the control rises.
        Single weights let them jump past each other: then the better end is taken.
        """

        def kept(value: float) -> tuple[float, float]:
            main, control = self.shares(self.best([1.0, value]))
            return main, control

        low, high = 0.0, 1.0
        for _ in range(_STEPS):
            main, control = kept(high)
            if control >= main:
                break
            low, high = high, 2 * high
        for _ in range(_STEPS):
            middle = (low + high) / 2
            main, control = kept(middle)
            if abs(control - main) < 1e-9:
                return middle
            low, high = (low, middle) if control > main else (middle, high)
        return max((low, high), key=lambda value: min(kept(value)))

    def _least_multiplier(self, found: Sequence[float], index: int, goal: float) -> float:
        """The smallest multiplier of one control by which it holds, the others being fixed."""

        def share(value: float) -> float:
            factors = [1.0, *found[:index], value, *found[index + 1 :]]
            return self.shares(self.best(factors))[index + 1]

        if _holds(share(0.0), goal):
            return 0.0
        low, high = 0.0, 1.0
        for _ in range(_STEPS):
            if _holds(share(high), goal):
                break
            low, high = high, 2 * high
        for _ in range(_STEPS):
            middle = (low + high) / 2
            reached = share(middle)
            low, high = (low, middle) if _holds(reached, goal) else (middle, high)
            if 0 <= reached - goal < 1e-9:
                break
        return high


def _weighted(factors: Sequence[float], scores: Sequence[Tensor]) -> Tensor:
    # In one order everywhere, so that equal sums are equal to the bit.
    total = factors[0] * scores[0]
    for factor, score in zip(factors[1:], scores[1:], strict=True):
        total = total + factor * score
    return total


def _holds(share: float, least: float) -> bool:
    return share >= least - _ROUNDING


def _best_sum(name: str, scores: Tensor, keep: int) -> float:
    if not bool(torch.isfinite(scores).all()):
        raise RegrowError(
            f"the score {name!r} is not finite everywhere, so cops cannot combine it; the weights "
            "or the gradients are not sound."
        )
    if keep == 0:
        return 1.0
    best = float(scores[largest(scores, keep)].sum())
    if best <= 0:
        raise RegrowError(
            f"the {keep} largest scores of {name!r} sum to {best:.3g}, so no share of them can be "
            "asked for; keep fewer weights, or take another score in cops."
        )
    return best
