"""Cuts that wait until training has stopped paying."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.protocols import Update


@dataclass(frozen=True)
class Patience:
    """The next cut when the signal has not improved by more than min_delta for P epochs.

    Before each next cut, and at the end, the best weights since the cut are restored. The best
    starts from the measurement right after the cut, where there is one, and from the first
    epoch's otherwise; so on a flat signal a cut lasts exactly P epochs, or P + 1.

    Attributes:
        sparsities: the targets in order, such as `Geometric(...).sparsities`.
        patience: P for each cut; the last repeats.
        min_delta: the least improvement that counts, in the signal's unit.
        cap: the most epochs for one cut.
        monitor: the name of the signal handed to `epoch_end`.
        mode: whether it should rise ("max") or fall ("min").

    Source: arXiv 2508.13836 (2025), patience-based fine-tuning.

    Raises:
        RegrowError: an empty list, a sparsity outside [0, 1), a patience or cap below 1.
    """

    sparsities: tuple[float, ...]
    patience: tuple[int, ...] = (5,)
    min_delta: float = 0.0
    cap: int = 1000
    monitor: str = "val_accuracy"
    mode: Literal["max", "min"] = "max"

    def __post_init__(self) -> None:
        # A recipe file gives lists; the value is hashable all the same.
        object.__setattr__(self, "sparsities", tuple(self.sparsities))
        object.__setattr__(self, "patience", tuple(self.patience))
        for sparsity in self.sparsities:
            check_sparsity(sparsity)
        if not self.sparsities or not self.patience:
            raise RegrowError("patience needs at least one sparsity and one patience.")
        if min(self.patience) < 1 or self.cap < 1:
            raise RegrowError(
                f"patience and cap are at least one epoch; got {self.patience} and {self.cap}."
            )
        if self.mode not in ("max", "min"):
            raise RegrowError(f"mode is 'max' or 'min'; got {self.mode!r}.")

    @property
    def sparsity(self) -> float:
        return self.sparsities[-1]

    def start(self) -> Update:
        return self._cut(0)

    def after_cut(self, state: dict[str, Any], signals: Mapping[str, float]) -> Update:
        return Update({**state, "best": self._read(signals)}, remember=True)

    def update(self, state: dict[str, Any], signals: Mapping[str, float]) -> Update:
        value, best = self._read(signals), state["best"]
        better = best is None or value > best + self.min_delta
        state = {
            "cut": state["cut"],
            "best": value if better else best,
            "waited": 0 if better else state["waited"] + 1,
            "epochs": state["epochs"] + 1,
        }
        limit = self.patience[min(state["cut"], len(self.patience) - 1)]
        if state["waited"] < limit and state["epochs"] < self.cap:
            return Update(state, remember=better)
        if state["cut"] + 1 == len(self.sparsities):
            return Update(state, remember=better, restore=True, done=True)
        following = self._cut(state["cut"] + 1)
        return Update(following.state, following.target, remember=better, restore=True)

    def _cut(self, index: int) -> Update:
        state = {"cut": index, "best": None, "waited": 0, "epochs": 0}
        return Update(state, target=1.0 - self.sparsities[index])

    def _read(self, signals: Mapping[str, float]) -> float:
        if self.monitor not in signals:
            raise RegrowError(
                f"patience watches {self.monitor!r}, but epoch_end was given "
                f"{sorted(signals) or 'nothing'}; call epoch_end({self.monitor}=...)."
            )
        value = float(signals[self.monitor])
        if value != value:
            raise RegrowError(f"the signal {self.monitor!r} is NaN; training has diverged.")
        return value if self.mode == "max" else -value
