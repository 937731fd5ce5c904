"""What a comparison shows, in sentences that are no surer than its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from regrow.bench.comparison.evidence import Comparison
from regrow.bench.comparison.strategies import GRADUAL, RANDOM, SHUFFLED, SMALL
from regrow.bench.crossing import Crossing, crossing
from regrow.bench.statistics import Interval, holm, paired_difference, student_p

CLAIM, LOOK = 5, 3
"""Seeds that a claim needs, and those below which there is not even a look."""

CONTROL = GRADUAL.name


@dataclass(frozen=True)
class Standing:
    """An arm at a sparsity beside the control.

    Attributes:
        difference: of test accuracies in points, paired by seed.
        certain: it holds among all arms of this sparsity together (Holm, 1979).
    """

    difference: Interval
    certain: bool


def standings(comparison: Comparison, sparsity: float) -> dict[str, Standing]:
    """Every arm but the control at one sparsity, beside it."""
    control = comparison.accuracy(CONTROL, sparsity)
    found: dict[str, Interval] = {}
    tests: dict[str, float] = {}
    for arm in comparison.arms:
        if arm.endswith(SHUFFLED):
            continue
        values = comparison.accuracy(arm, sparsity)
        common = values.keys() & control.keys()
        if arm == CONTROL or not common:
            continue
        found[arm] = paired_difference(values, control)
        p = student_p([values[seed] - control[seed] for seed in sorted(common)])
        if p is not None:
            tests[arm] = p
    certain = holm(tests)
    return {arm: Standing(each, arm in certain) for arm, each in found.items()}


def crossings(comparison: Comparison, base: str = "one_shot") -> dict[str, Crossing]:
    """Where each other strategy overtakes one, for those with two sparsities and seeds at least."""
    found = {}
    curves = {arm: _curve(comparison, arm) for arm in comparison.arms}
    for arm, curve in curves.items():
        if base not in curves or arm == base:
            continue
        levels = curve.keys() & curves[base].keys()
        seeds = [set(curve[s]) & set(curves[base][s]) for s in levels]
        if len(levels) >= 2 and len(set.intersection(*seeds)) >= 2:
            found[arm] = crossing(curve, curves[base])
    return found


def verdict(comparison: Comparison) -> list[str]:
    """Sentences: at each sparsity who is ahead of the control, and where strategies cross."""
    seeds = min(
        (len(rows) for levels in comparison.arms.values() for rows in levels.values()), default=0
    )
    lines = []
    if seeds < LOOK:
        lines.append(
            f"Only {seeds} seed{'s' * (seeds != 1)} of some arms: too few even for a look. What "
            "follows is a description of these runs, not of the strategies."
        )
    elif seeds < CLAIM:
        lines.append(f"{seeds} seeds: a look, not a claim.")
    for sparsity in comparison.sparsities:
        lines.append(_at(comparison, sparsity))
    for arm, found in crossings(comparison).items():
        if arm in (RANDOM.name, SMALL) or arm.endswith(SHUFFLED):
            continue
        lines.append(_crossing(arm, found))
    return lines


def alarms(comparison: Comparison) -> list[str]:
    """Arms that do no better than chance where the control does: a part of them may be broken.

    Scores that are reversed, of another layer or off by one make a cut as bad as a random one, or
    worse, which no accuracy alone would show. Chance is the twin with shuffled scores, which keeps
    as many weights in each layer (Su et al. 2020), or else random pruning.
    """
    found = []
    for arm in comparison.arms:
        if arm in (CONTROL, RANDOM.name) or arm.endswith(SHUFFLED):
            continue
        twin = arm + SHUFFLED
        chance = twin if twin in comparison.arms else RANDOM.name
        bad = [
            sparsity
            for sparsity in comparison.sparsities
            if comparison.accuracy(chance, sparsity)
            and _better(comparison, CONTROL, RANDOM.name, sparsity)
            and comparison.accuracy(arm, sparsity)
            and not _better(comparison, arm, chance, sparsity)
        ]
        if bad:
            told = ", ".join(f"{100 * sparsity:g} %" for sparsity in bad)
            beside = "its twin with shuffled scores" if chance == twin else "random pruning"
            found.append(
                f"{arm} was not found to be better than {beside} at {told}, where {CONTROL} is "
                "better than random pruning: check that its scores are not reversed or of other "
                "weights."
            )
    return found


def _better(comparison: Comparison, arm: str, other: str, sparsity: float) -> bool:
    values, others = (comparison.accuracy(name, sparsity) for name in (arm, other))
    if not values.keys() & others.keys():
        return False
    low = paired_difference(values, others).low
    return low is not None and low > 0


def best(comparison: Comparison, sparsity: float) -> str | None:
    """The arm with the best mean accuracy at a sparsity."""
    means = {
        arm: fmean(values.values())
        for arm in comparison.arms
        if (values := comparison.accuracy(arm, sparsity))
    }
    return max(means, key=lambda arm: means[arm]) if means else None


def _at(comparison: Comparison, sparsity: float) -> str:
    where = f"At {100 * sparsity:g} %"
    found = standings(comparison, sparsity)
    ahead = [arm for arm, s in found.items() if s.certain and s.difference.mean > 0]
    behind = [arm for arm, s in found.items() if s.certain and s.difference.mean < 0]
    words = []
    if ahead:
        told = sorted(ahead, key=lambda arm: -found[arm].difference.mean)
        words.append(f"{_listed(told, found)} ahead of {CONTROL}")
    if behind:
        told = sorted(behind, key=lambda arm: found[arm].difference.mean)
        words.append(f"{_listed(told, found)} behind {'it' if ahead else CONTROL}")
    if not words:
        return f"{where} no difference from {CONTROL} was found."
    rest = len(found) - len(ahead) - len(behind)
    others = "" if not rest else "; no difference was found for the others"
    return f"{where} {', and '.join(words)}{others}."


def _listed(arms: list[str], found: Mapping[str, Standing]) -> str:
    named = [f"{arm} ({found[arm].difference.mean:+.2f} points)" for arm in arms]
    joined = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"{joined} {'is' if len(named) == 1 else 'are'}".replace("-", "−")


def _crossing(arm: str, found: Crossing) -> str:
    if not found.certain:
        return f"Between {arm} and one_shot no difference was found at any sparsity."
    if found.sparsity is None:
        word = "ahead of" if found.ahead > 0 else "behind"
        return f"{arm} is {word} one_shot on the mean all along; they do not cross."
    low = "below the least measured" if found.low is None else f"{100 * found.low:.1f} %"
    high = "beyond the greatest measured" if found.high is None else f"{100 * found.high:.1f} %"
    return (
        f"{arm} overtakes one_shot at {100 * found.sparsity:.1f} % sparsity (95 % interval: from "
        f"{low} to {high})."
    )


def _curve(comparison: Comparison, arm: str) -> dict[float, dict[int, float]]:
    return {level: comparison.accuracy(arm, level) for level in comparison.arms[arm]}
