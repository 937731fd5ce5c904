"""What the records say, in sentences: computed, never written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from regrow.bench.report import text
from regrow.bench.report.compare import (
    Cell,
    Experiment,
    Level,
    difference,
    unequal_epochs,
    unequal_sparsity,
    unequal_steps,
)
from regrow.bench.report.records import DENSE
from regrow.bench.statistics import Interval

WIDE = 2.0
"""An interval of more points than this is too wide to call two arms equal."""


@dataclass(frozen=True)
class Verdict:
    """The answer of one experiment.

    Attributes:
        tone: "gain", "loss", "none", "look", "unequal", "alone" or "mixed".
        headline: the answer in one line.
        sentences: the answer with its numbers, dense and bytes included.
        alarms: why main arm and control cannot be compared as they are; empty if they can.
        notes: smaller cautions.
    """

    tone: str
    headline: str
    sentences: tuple[str, ...]
    alarms: tuple[str, ...]
    notes: tuple[str, ...]


def judge(experiment: Experiment) -> Verdict:
    """The verdict on the main arm against the control, at every level of sparsity."""
    levels = experiment.levels
    alarms = [alarm for level in levels for alarm in _alarms(level, level.main)]
    tones = [_tone(level) for level in levels]
    dense = text.accuracy(fmean(experiment.dense.test.values()))
    lead = f"The dense network reaches {dense} test accuracy."
    if len(levels) == 1:
        headline = _headline(levels[0], tones[0])
        sentences = [lead, _sentence(levels[0], tones[0])]
    else:
        headline = _summary(experiment, tones)
        found = [_short(level, tone) for level, tone in zip(levels, tones, strict=True)]
        sentences = [f"{lead} {_setting(experiment, tones)}", *found]
    return Verdict(
        tone=tones[0] if len(set(tones)) == 1 else "mixed",
        # A headline breaks between words only.
        headline=text.sentence(headline).replace("-", "\N{NON-BREAKING HYPHEN}"),
        sentences=tuple(sentences),
        alarms=tuple(alarms),
        notes=tuple(_notes(experiment)),
    )


def _points(level: Level) -> Interval | None:
    """The main arm's difference to the control, in percentage points."""
    return scaled(difference(level, level.main))


def scaled(interval: Interval | None) -> Interval | None:
    """An interval of fractions in percentage points."""
    if interval is None:
        return None
    low, high = (None if x is None else 100 * x for x in (interval.low, interval.high))
    return Interval(100 * interval.mean, low, high, interval.n)


def _tone(level: Level) -> str:
    points = _points(level)
    if points is None:
        return "alone"
    if _alarms(level, level.main):
        return "unequal"
    if points.includes_zero is None:
        return "look"
    if points.includes_zero:
        return "none"
    return "gain" if points.mean > 0 else "loss"


def _headline(level: Level, tone: str) -> str:
    main, at = text.arm_name(level.main.name), f"at {text.sparsity(level.main.sparsity)} sparsity"
    points = _points(level)
    if points is None:
        return f"{main} {at}, with no control beside it"
    by = f"{abs(points.mean):.2f} percentage points"
    control = "the one-way control"
    if tone == "gain":
        return f"{main} beats {control} by {by} {at}"
    if tone == "loss":
        return f"{main} falls behind {control} by {by} {at}"
    if tone == "none":
        return f"no difference found between {main} and {control} {at}"
    if tone == "unequal":
        return f"not an equal comparison: {main} and {control} had different conditions"
    where = "ahead of" if points.mean > 0 else "behind"
    stand = f"{by} {where}" if round(points.mean, 2) else "level with"
    seeds = "one seed" if points.n == 1 else f"equal in all {points.n} seeds"
    return f"{seeds}: {main} is {stand} {control} {at}"


def _summary(experiment: Experiment, tones: Sequence[str]) -> str:
    """One line for several sparsities: each is named under what was found there."""
    words = {
        "gain": "a gain",
        "loss": "a loss",
        "none": "no difference found",
        "look": "a look and not a claim",
        "unequal": "not an equal comparison",
        "alone": "no control",
    }
    found = []
    for tone in dict.fromkeys(tones):
        at = [
            text.sparsity(level.main.sparsity)
            for level, its in zip(experiment.levels, tones, strict=True)
            if its == tone
        ]
        found.append(f"{words[tone]} at {text.joined(at)}")
    main = text.arm_name(experiment.recipe)
    return f"{main} against the one-way control: {'; '.join(found)} sparsity"


def _sentence(level: Level, tone: str) -> str:
    main, control = level.main, level.control
    reached = text.accuracy(fmean(main.test.values()))
    words = (
        f"At {text.sparsity(main.sparsity)} sparsity {text.arm_name(main.name)} reaches {reached}"
    )
    points = _points(level)
    if control is None or points is None:
        words += "; no control was run beside it."
    else:
        theirs = text.accuracy(fmean(control.test.values()))
        signed = f"a difference of {text.signed(points.mean)} percentage points"
        if points.n > 1:
            signed += (
                f" (95{text.GAP}% paired Student interval {text.bounds(points)}, "
                f"{text.seeds(points.n)})"
            )
        words += f" and the one-way control, {_conditions(level, control)}, {theirs}: {signed}."
        if points.n == 1:
            words += " One seed: no interval, so this is a look, not a claim."
        elif points.includes_zero is None:
            words += " It is equal in all seeds, which tells nothing of its spread: a look."
        elif points.includes_zero:
            words += f" {_undecided(points)}"
    if tone == "unequal":
        words += " The conditions were not equal, so the difference is not the method's alone."
    return f"{words} {_bytes(main)}"


def _undecided(points: Interval) -> str:
    words = "The interval includes zero: no difference found"
    if points.low is not None and points.high is not None and points.high - points.low > WIDE:
        words += "; the interval is wide: undecided rather than equal"
    return f"{words}."


def _setting(experiment: Experiment, tones: Sequence[str]) -> str:
    """What holds for the short sentences of all levels."""
    main = text.arm_name(experiment.recipe)
    if set(tones) == {"alone"}:
        return f"{text.sentence(main)} was run without a control beside it."
    words = f"Below, {main} against the one-way control"
    if not {"unequal", "alone"} & set(tones):
        words += ", each time at the same sparsity and with the same total of epochs"
    return (
        f"{words}; differences are in percentage points, with 95{text.GAP}% paired Student "
        "intervals where there are several seeds."
    )


def _short(level: Level, tone: str) -> str:
    """One level among several."""
    reached = text.accuracy(fmean(level.main.test.values()))
    words = f"At {text.sparsity(level.main.sparsity)} sparsity: {reached}"
    points = _points(level)
    if level.control is not None and points is not None:
        theirs = text.accuracy(fmean(level.control.test.values()))
        words += f" against {theirs}, {text.signed(points.mean)}"
        words += f" ({text.bounds(points)}, {text.seeds(points.n)})" if points.n > 1 else ""
    endings = {
        "none": _undecided(points) if points else "",
        "look": "One seed: no interval, so this is a look, not a claim.",
        "unequal": "The conditions were not equal.",
    }
    return " ".join(
        [f"{words}.", *([endings[tone]] if tone in endings else []), _bytes(level.main)]
    )


def _conditions(level: Level, control: Cell) -> str:
    main = level.main
    equal_sparsity = not unequal_sparsity(main, control)
    equal_epochs = not unequal_epochs(main, control)
    epochs = text.count(_epochs(control))
    sparsity = "at the same sparsity" if equal_sparsity else _kept(control)
    total = f"the same total of {epochs} epochs" if equal_epochs else f"{epochs} epochs in total"
    return f"{sparsity} and with {total}"


def _bytes(cell: Cell) -> str:
    arms = cell.by_seed.values()
    packed, dense = fmean(a.file_bytes for a in arms), fmean(a.dense_bytes for a in arms)
    words = f"Its packed file takes {text.size(packed)}, the dense one {text.size(dense)}"
    smaller = text.smaller(dense, packed)
    return f"{words}: {smaller}." if smaller else f"{words}."


def _epochs(cell: Cell) -> float:
    return fmean(arm.epochs.total for arm in cell.by_seed.values())


def _kept(cell: Cell) -> str:
    arms = cell.by_seed.values()
    kept, total = fmean(a.kept for a in arms), fmean(a.total for a in arms)
    return f"at {text.sparsity(cell.sparsity)} ({text.count(kept)} of {text.count(total)} kept)"


def _alarms(level: Level, cell: Cell) -> list[str]:
    """Why a cell and the control of its level are not compared under equal conditions."""
    return [
        f"{what} are not equal: {_name(cell)} {mine}, the control {theirs}{at}."
        for what, (mine, theirs, at) in _unequal(level, cell).items()
    ]


def _unequal(level: Level, cell: Cell) -> dict[str, tuple[str, str, str]]:
    """What differs, to the cell's, the control's, and at which sparsity."""
    control = level.control
    if control is None or cell.name in (control.name, DENSE):
        return {}
    found = {}
    at = f" (at {text.sparsity(cell.sparsity)} sparsity)"
    if unequal_sparsity(cell, control):
        found["Sparsities"] = (_kept(cell), _kept(control), "")
    if unequal_epochs(cell, control):
        mine, theirs = (text.count(_epochs(one)) for one in (cell, control))
        found["Total epochs"] = (f"had {mine}", theirs, at)
    elif unequal_steps(cell, control):
        mine, theirs = (
            text.count(fmean(arm.steps.total for arm in one.by_seed.values()))
            for one in (cell, control)
        )
        found["Total steps"] = (f"had {mine}", theirs, at)
    return found


def _name(cell: Cell) -> str:
    return text.sentence(text.arm_name(cell.name))


def _others(experiment: Experiment) -> list[str]:
    """The conditions of the other arms: one sentence for an arm and what differs, at all levels."""
    found: dict[tuple[str, str], list[tuple[Level, Cell]]] = {}
    for level in experiment.levels:
        for cell in level.cells.values():
            for what in _unequal(level, cell) if cell.name != level.main.name else ():
                found.setdefault((cell.name, what), []).append((level, cell))
    sentences = []
    for (_, what), places in found.items():
        told = [_unequal(level, cell)[what] for level, cell in places]
        if len(told) == 1:
            mine, theirs, at = told[0]
        elif what == "Sparsities":
            controls = [level.control for level, _ in places if level.control]
            mine, theirs = (
                f"at {text.joined(text.sparsity(cell.sparsity) for cell in cells)}"
                for cells in ([cell for _, cell in places], controls)
            )
            at = ""
        else:
            mine, theirs = (text.joined(each[i] for each in told) for i in (0, 1))
            mine = "had " + mine.replace("had ", "")
            at = f" (at {text.joined(text.sparsity(c.sparsity) for _, c in places)} sparsity)"
        sentences.append(
            f"{what} are not equal: {_name(places[0][1])} {mine}, the control {theirs}{at}."
        )
    return sentences


def _notes(experiment: Experiment) -> list[str]:
    found = _others(experiment)
    found += [
        f"Seed {run.seed} at {text.sparsity(run.arms[run.recipe].sparsity)} sparsity was given "
        "more than once with equal records; it counts once."
        for run in {run.content: run for run in experiment.twice}.values()
    ]
    pairs = [points.n for level in experiment.levels if (points := _points(level))]
    if 2 in pairs:
        found.append("Two seeds are few: the interval is wide and rests on one degree of freedom.")
    if len(pairs) > 1 and max(pairs) > 1:
        found.append(
            f"{len(pairs)} sparsities were compared; the intervals are not widened for that."
        )
    differing = sorted(
        {
            run.seed
            for run in experiment.runs
            if run.arms[DENSE].test != experiment.dense.by_seed[run.seed].test
        }
    )
    if differing:
        found.append(
            f"Runs of one seed do not share their dense network (seed "
            f"{text.joined(map(str, differing))}); the page shows the first."
        )
    return found
