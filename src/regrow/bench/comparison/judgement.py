"""What a comparison shows, in sentences that are no surer than its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from regrow.bench.comparison.evidence import CONTROL, Comparison
from regrow.bench.comparison.strategies import RANDOM, SHUFFLED, SMALL
from regrow.bench.crossing import Crossing, crossing
from regrow.bench.statistics import Interval, holm, paired_difference, student_p

CLAIM, LOOK = 5, 3
"""Seeds that a claim needs, and those below which there is not even a look."""


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
    for arm in comparison.strategies:
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
    """Where each other strategy passes one, for those with two sparsities and seeds at least."""
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
    every = comparison.strategies.values()
    seeds = min((len(rows) for by in every for rows in by.values()), default=0)
    lines = []
    if seeds < LOOK:
        lines.append(
            f"Only {seeds} seed{'s' * (seeds != 1)} of some arms: too few even for a look. What "
            "follows is a description of these runs, not of the strategies."
        )
    elif seeds < CLAIM:
        lines.append(f"{seeds} seeds: a look, not a claim.")
    beside = {sparsity: _at(comparison, sparsity) for sparsity in comparison.sparsities}
    same = [sparsity for sparsity, words in beside.items() if words is None]
    if same:
        lines.append(f"At {_percent(same)} no difference from {CONTROL} was found.")
    lines += [words for words in beside.values() if words is not None]
    found = {
        arm: crossing
        for arm, crossing in crossings(comparison).items()
        if arm not in (RANDOM.name, SMALL) and not arm.endswith(SHUFFLED)
    }
    lines += _crossings(comparison, found)
    return lines + [
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} {arm} under another name: the "
        "same cells."
        for arm, names in comparison.also.items()
    ]


@dataclass(frozen=True)
class Best:
    """The arm with the best mean at a sparsity, and the others beside it.

    Attributes:
        arm: its name.
        equals: those that were not found to be worse (5 %, paired by seed), best first.
        behind: the others, with their differences from it in points.
    """

    arm: str
    equals: tuple[str, ...]
    behind: Mapping[str, Interval]


def best(comparison: Comparison, sparsity: float) -> Best | None:
    """Who is ahead at a sparsity, twins with shuffled scores left out; None without any arm."""
    arms = {
        arm: values
        for arm in comparison.strategies
        if (values := comparison.accuracy(arm, sparsity))
    }
    if not arms:
        return None
    order = sorted(arms, key=lambda arm: -fmean(arms[arm].values()))
    top, equals, behind = order[0], [], {}
    for arm in order[1:]:
        common = sorted(arms[arm].keys() & arms[top].keys())
        p = student_p([arms[top][s] - arms[arm][s] for s in common]) if common else None
        if p is None or p >= 0.05:
            equals.append(arm)
        else:
            behind[arm] = paired_difference(arms[arm], arms[top])
    return Best(top, tuple(equals), behind)


def alarms(comparison: Comparison) -> list[str]:
    """Arms that do no better than chance where others do: a part of them may be broken.

    Scores that are reversed, of another layer or off by one make a cut as bad as a random one, or
    worse, which no accuracy alone would show. Chance is a twin with shuffled scores, which keeps
    as many weights in each layer (Su et al. 2020), where another criterion of the same strategy is
    certainly better than its own; then an arm is told that gains less than a quarter of that.
    Without such a reference, an arm is told that is nowhere better than random pruning while the
    control is. An arm that is certainly better, or far on the mean, is not told.
    """
    found = []
    for arm in comparison.strategies:
        if arm in (CONTROL, RANDOM.name):
            continue
        kin = [
            (each, each + SHUFFLED)
            for each in comparison.arms
            if each + SHUFFLED in comparison.arms and _strategy(each) == _strategy(arm)
        ]
        for chance, pairs, beside in (
            (arm + SHUFFLED, kin, "its twin with shuffled scores"),
            (RANDOM.name, [(CONTROL, RANDOM.name)], "random pruning"),
        ):
            told = {
                sparsity: _as_bad(comparison, arm, chance, usual, sparsity)
                for sparsity in comparison.sparsities
                if (usual := _least_gain(comparison, sparsity, pairs)) is not None
                and comparison.accuracy(chance, sparsity).keys()
                & comparison.accuracy(arm, sparsity)
            }
            bad = [sparsity for sparsity, is_bad in told.items() if is_bad]
            if bad and len(bad) == len(told):
                found.append(
                    f"{arm} was not found to be better than {beside} at {_percent(bad)}, where "
                    "others are: check that its scores are not reversed or of other weights."
                )
                break
    return found


def _strategy(arm: str) -> str:
    return arm.partition(", ")[0]


def _least_gain(
    comparison: Comparison, sparsity: float, pairs: Sequence[tuple[str, str]]
) -> float | None:
    """The least certain gain of the first of a pair over the second; None if none is certain."""
    gains = [
        paired_difference(comparison.accuracy(a, sparsity), comparison.accuracy(b, sparsity)).mean
        for a, b in pairs
        if _better(comparison, a, b, sparsity)
    ]
    return min(gains, default=None)


def _as_bad(comparison: Comparison, arm: str, chance: str, usual: float, sparsity: float) -> bool:
    if _better(comparison, arm, chance, sparsity):
        return False
    values, others = (comparison.accuracy(name, sparsity) for name in (arm, chance))
    return paired_difference(values, others).mean < usual / 4


def _better(comparison: Comparison, arm: str, other: str, sparsity: float) -> bool:
    values, others = (comparison.accuracy(name, sparsity) for name in (arm, other))
    if not values.keys() & others.keys():
        return False
    found = paired_difference(values, others)
    return found.includes_zero is False and found.mean > 0


def _at(comparison: Comparison, sparsity: float) -> str | None:
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
        return None
    rest = len(found) - len(ahead) - len(behind)
    others = "" if not rest else "; no difference was found for the others"
    return f"At {_percent([sparsity])} {', and '.join(words)}{others}."


def _listed(arms: list[str], found: Mapping[str, Standing]) -> str:
    named = [f"{arm} ({found[arm].difference.mean:+.2f} points)" for arm in arms]
    joined = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"{joined} {'is' if len(named) == 1 else 'are'}".replace("-", "−")


def _crossings(comparison: Comparison, found: Mapping[str, Crossing]) -> list[str]:
    """What the curves beside one_shot's say, arms of one kind in one sentence."""
    equal: list[str] = []
    placed, unplaced, apart = ({1: list[str](), -1: list[str]()} for _ in range(3))
    for arm, each in found.items():
        if not each.certain:
            equal.append(arm)
        elif each.sparsity is None:
            apart[each.ahead].append(arm)
        elif each.low is None and each.high is None:
            sure = _certain(comparison, arm, "one_shot")
            unplaced[each.ahead].append(f"{arm} at {100 * each.sparsity:.1f} %{sure}")
        else:
            low = "below the least measured" if each.low is None else f"{100 * each.low:.1f} %"
            high = (
                "beyond the greatest measured" if each.high is None else f"{100 * each.high:.1f} %"
            )
            told = f"{arm} at {100 * each.sparsity:.1f} % ({low} to {high})"
            placed[each.ahead].append(told)
    lines = []
    for side, doing in ((1, "Overtaking"), (-1, "Falling behind")):
        if placed[side]:
            joined = "; ".join(placed[side])
            lines.append(f"{doing} one_shot, with 95 % intervals: {joined}.")
        if unplaced[side]:
            lines.append(
                f"{doing} one_shot on the mean, but at neither end of the sparsities is a "
                f"difference certain (in brackets: where one is): {'; '.join(unplaced[side])}."
            )
    for side, word in ((1, "ahead of"), (-1, "behind")):
        if apart[side]:
            joined = "; ".join(apart[side])
            lines.append(f"On the mean {word} one_shot all along, without a crossing: {joined}.")
    if equal:
        lines.append(
            f"At no sparsity was a difference from one_shot found for: {'; '.join(equal)}."
        )
    return lines


def _certain(comparison: Comparison, arm: str, base: str) -> str:
    """At which sparsities an arm is ahead of another or behind it for certain, in brackets."""
    sides: dict[str, list[float]] = {"behind": [], "ahead": []}
    for sparsity in comparison.sparsities:
        for side, a, b in (("behind", base, arm), ("ahead", arm, base)):
            if _better(comparison, a, b, sparsity):
                sides[side].append(sparsity)
    told = [f"{side} at {_percent(levels)}" for side, levels in sides.items() if levels]
    return f" ({', '.join(told)})" if told else ""


def _percent(levels: Sequence[float]) -> str:
    told = [f"{100 * level:g} %" for level in levels]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"


def _curve(comparison: Comparison, arm: str) -> dict[float, dict[int, float]]:
    return {level: comparison.accuracy(arm, level) for level in comparison.arms[arm]}
