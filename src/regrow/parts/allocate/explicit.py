"""A sparsity for each layer."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor

from regrow.core.budget import Budget, check_sparsity, kept_count
from regrow.core.errors import RegrowError, unknown
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Weight
from regrow.parts.allocate.apportion import apportion


@dataclass(frozen=True)
class Explicit:
    """The sparsities given layer by layer.

    Where the schedule's target is the sparsity that they make up, each layer gets its own to the
    unit; on the way there, densities are scaled by one factor. A sparser target is refused.

    Attributes:
        sparsities: pairs of a glob (layer or weight name) and a sparsity, or a mapping; the
            first glob that matches a layer counts, so "*" goes last.

    Source: -

    Raises:
        RegrowError: a sparsity outside [0, 1).
    """

    sparsities: tuple[tuple[str, float], ...]
    needs = frozenset[Need]()

    def __post_init__(self) -> None:
        given = self.sparsities
        pairs = given.items() if isinstance(given, Mapping) else given
        object.__setattr__(self, "sparsities", tuple((str(g), float(s)) for g, s in pairs))
        for glob, sparsity in self.sparsities:
            check_sparsity(sparsity, f"sparsity of {glob!r}")

    def kept(self, weights: Sequence[Weight]) -> dict[str, int]:
        """Entries that each layer shall keep.

        Raises:
            RegrowError: a layer is matched by no glob, a glob matches no layer or only those of
                earlier ones, or a layer would be emptied.
        """
        behind: dict[str, str] = {}  # globs by those that matched a layer before them
        used: set[str] = set()
        kept = {}
        for weight in weights:
            matches = [
                pair
                for pair in self.sparsities
                if any(fnmatch.fnmatchcase(name, pair[0]) for name in weight.names)
            ]
            if not matches:
                raise RegrowError(
                    f"no sparsity is given for layer {weight.layer!r}; add it, or '*' for the rest."
                )
            (glob, sparsity), *others = matches
            used.add(glob)
            behind.update((other, glob) for other, _ in others)
            kept[weight.name] = kept_count(prod(weight.shape), 1.0 - sparsity)
            if not kept[weight.name]:
                raise RegrowError(
                    f"sparsity {sparsity} would empty layer {weight.layer!r} of "
                    f"{prod(weight.shape)} weights; lower it."
                )
        for glob, _ in self.sparsities:
            if glob in used or glob == "*":
                continue
            if glob in behind:
                raise RegrowError(
                    f"the sparsity of {glob!r} is never used, since {behind[glob]!r} before it "
                    "matches the same weights; put it first, or leave it out."
                )
            raise unknown("layer", glob, [w.layer for w in weights])
        return kept

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        kept = self.kept(weights)
        units = {w.name: kept[w.name] * pooled[w.name].numel() / prod(w.shape) for w in weights}
        if budget.total < sum(units.values()) - len(weights):
            total = sum(pooled[w.name].numel() for w in weights)
            raise RegrowError(
                "the sparsities given by layer make up "
                f"{1 - sum(units.values()) / total:.6f}, less than the "
                f"{1 - budget.total / total:.6f} asked for in all; make the two agree."
            )
        return apportion(units, budget)
