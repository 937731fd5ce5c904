"""Layer budgets found by trial: a recurrent controller taught by REINFORCE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Real

import torch
from torch import Tensor

from regrow.core.budget import Budget
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Weight
from regrow.core.rng import generator
from regrow.parts.allocate.apportion import apportion
from regrow.parts.allocate.controller import (
    advantage,
    beta_at,
    controller,
    learn,
    loss_of,
    play,
)

KEPT_OF_BASELINE = 0.9


@dataclass(frozen=True)
class Learned:
    """Share what returns as a controller learns to by trying budgets out.

    An episode goes once over the layers that have room, gives each a tenth-step share of what it
    can take, and is rewarded with the score R after a trial of those counts. The policy (an LSTM
    cell of 64 and a linear head) follows REINFORCE:

        loss = -sum(log pi) * clip((R - b) / 0.005, -100, 100) - beta * H,    b <- 0.9 b + 0.1 R,

    with Adam and the gradient's norm clipped at 1; H is the entropy summed over the actions, and
    beta falls from 0.40 to 0.04 over the first 40 % of the episodes. The counts of the best
    reward win, the first among equals. A trial costs a regrowth and the fine-tuning given to
    `attach`, so a search costs up to `episodes` of those.

    Without a trial at hand (when feasibility is checked) and where the bounds leave no choice,
    nothing is searched and the units are shared in proportion to the room of the layers.

    Attributes:
        episodes: the most trials.
        lr: step size of Adam.
        patience: trials without a better reward after which the search ends.

    Source: arXiv 2511.11675 (2025) and its authors' code, learned layer budgets.

    Departures:
        Units left at the end of an episode go to the layers in proportion to the room that is
        left, so that every trial meets the target exactly; the code may leave them unspent. An
        episode ends when no units remain. The first reward starts the baseline, so the first
        step follows the entropy alone.

    Raises:
        RegrowError: fewer than one episode or trial of patience, or a step size not above 0.
    """

    episodes: int = 50
    lr: float = 5e-3
    patience: int = 40
    needs = frozenset({Need("trial")})

    def __post_init__(self) -> None:
        for name, value in (("episodes", self.episodes), ("patience", self.patience)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RegrowError(f"{name} counts trials, a whole number >= 1; got {value!r}.")
        if (
            isinstance(self.lr, bool)
            or not isinstance(self.lr, Real)
            or not isfinite(self.lr)
            or self.lr <= 0
        ):
            raise RegrowError(f"lr is a step size, a finite number above 0; got {self.lr!r}.")

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        names = [w.name for w in weights]
        lower = {n: budget.lower[n] for n in names}
        room = {n: budget.upper[n] - lower[n] for n in names if budget.upper[n] > lower[n]}
        units = budget.total - sum(lower.values())

        def kept(given: Mapping[str, int]) -> dict[str, int]:
            extra = _spread(room, given, units)
            return {n: lower[n] + given.get(n, 0) + extra.get(n, 0) for n in names}

        if evidence.trial is None or len(room) < 2 or units in (0, sum(room.values())):
            return kept(dict.fromkeys(room, 0))
        return self._search(room, units, kept, evidence.trial, evidence.key)

    def _search(
        self,
        room: Mapping[str, int],
        units: int,
        kept: Callable[[Mapping[str, int]], dict[str, int]],
        trial: Callable[[Mapping[str, int]], float],
        key: tuple[object, ...],
    ) -> dict[str, int]:
        draws = generator(*key, "learned allocation")
        policy = controller(draws)
        adam = torch.optim.Adam(policy, lr=self.lr)
        best: dict[str, int] = {}
        highest = baseline = 0.0
        since = 0
        for number in range(self.episodes):
            with torch.enable_grad():
                episode = play(policy, list(room.values()), units, draws)
            counts = kept(dict(zip(room, episode.units, strict=True)))
            reward = float(trial(dict(counts)))
            if not isfinite(reward):
                raise RegrowError(
                    f"trial {number + 1} of the learned allocation scored {reward}; the function "
                    "that fine-tunes and scores a trial must return a finite number, higher = "
                    "better. Lower its learning rate if it diverges."
                )
            if not number:
                baseline = reward
            if not number or reward > highest:
                best, highest, since = counts, reward, 0
            else:
                since += 1
            if since == self.patience:
                break
            with torch.enable_grad():
                gain = advantage(reward, baseline)
                learn(policy, adam, loss_of(episode, gain, beta_at(number, self.episodes)))
            baseline = KEPT_OF_BASELINE * baseline + (1 - KEPT_OF_BASELINE) * reward
        return best


def _spread(room: Mapping[str, int], given: Mapping[str, int], units: int) -> dict[str, int]:
    """What the layers get of the units not given yet, in proportion to the room that is left."""
    free = {n: most - given[n] for n, most in room.items()}
    left = units - sum(given.values())
    if not left:
        return dict.fromkeys(free, 0)
    return apportion(
        {n: float(f) for n, f in free.items()}, Budget(left, dict.fromkeys(free, 0), free)
    )
