"""One self-contained page about a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from regrow.bench.comparison import charts
from regrow.bench.comparison.evidence import CONTROL, Comparison, Row
from regrow.bench.comparison.judgement import LOOK, alarms, best, standings, verdict
from regrow.bench.comparison.strategies import RANDOM, SHUFFLED
from regrow.bench.report import render
from regrow.bench.report.parts import Figure, Key, Table, twice
from regrow.bench.report.svg import colour_index, marker
from regrow.bench.statistics import Interval, bootstrap_interval, student_interval

_LINES = 7  # in one drawing, beside the control's


@dataclass(frozen=True)
class Section:
    """What the page tells of one comparison."""

    title: str
    seeds: str
    headline: str
    sentences: tuple[str, ...]
    alarms: tuple[str, ...]
    best: Table
    figures: tuple[Figure, ...]
    rows: Table
    links: tuple[str, ...]


@dataclass(frozen=True)
class Panel:
    """Arms that are drawn together.

    Attributes:
        slots: of colour and marker, by arm.
        number, count: of this drawing among those of its kind.
    """

    slots: Mapping[str, int]
    number: int
    count: int

    @property
    def of(self) -> str:
        """For headings."""
        return f", {self.number} of {self.count}" if self.count > 1 else ""


def write_study(
    name: str,
    comparisons: Sequence[Comparison],
    out: Path,
    *,
    equal: bool | None,
    missing: int,
    cells: str | None,
    command: str,
) -> Path:
    """Write the page of a study; the same evidence gives the same bytes.

    Args:
        name: of the study.
        comparisons: of `evidence.compare`.
        out: the page.
        equal: whether all arms had the same budget; None where that is not known.
        missing: cells that are not finished.
        cells: the folder of cells beside the page, for links; None where there is none.
        command: writes the page again.
    """
    sections = [_section(each, equal, cells) for each in comparisons]
    render(out, "study.html.j2", name=name, sections=sections, missing=missing, command=command)
    return out


def _section(comparison: Comparison, equal: bool | None, cells: str | None) -> Section:
    counts = {len(rows) for levels in comparison.arms.values() for rows in levels.values()}
    seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    sentences = verdict(comparison)
    warned = alarms(comparison)
    if equal is False:
        warned.append("Arms had unequal budgets: the study says budget = 'unequal'.")
    if comparison.trials > 1:
        sentences.append(
            f"Every arm was tried with {comparison.trials} learning rates; the one that was best "
            "on validation data counts."
        )
    every = [
        row
        for arm in sorted(comparison.arms)
        for level in sorted(comparison.arms[arm])
        for row in comparison.arms[arm][level].values()
    ]
    spent = sorted({row.dense_epochs + row.epochs for row in every})
    if equal is None and len(spent) > 1:
        sentences.append(
            f"Arms spent {spent[0]} to {spent[-1]} epochs in all; whether by patience or by "
            "unequal budgets the table of records does not tell."
        )
    what = {"element": "single weights", "unit": "channels and heads"}
    pattern = what.get(comparison.pattern, comparison.pattern)
    return Section(
        f"{comparison.task}, {comparison.model}, {pattern}",
        f"{seeds} seed{'s' * (seeds != '1')}",
        _headline(comparison),
        tuple(sentences),
        tuple(warned),
        _best(comparison),
        tuple(_figures(comparison)),
        Table(
            ("Arm", "Sparsity", "Seed", "Test", "Validation", "Weights kept", "Epochs", "Steps",
             "Seconds"),
            tuple(_cells_of(row) for row in every),
        ),
        tuple(f"{cells}/{row.cell}/result.json" for row in every if cells is not None),
    )  # fmt: skip


def _headline(comparison: Comparison) -> str:
    tops: dict[float, str] = {}
    for sparsity in comparison.sparsities:
        certain = {arm: s for arm, s in standings(comparison, sparsity).items() if s.certain}
        # The best mean of all may be another's, without certainty.
        top = max(certain, key=lambda arm: certain[arm].difference.mean, default=None)
        if top is not None and certain[top].difference.mean > 0:
            tops[sparsity] = top
    if not tops:
        return f"No strategy was found to be better than {CONTROL}"
    told = ", ".join(f"{100 * sparsity:g} %" for sparsity in tops)
    return f"Better than {CONTROL} at {told}: {'; '.join(sorted(set(tops.values())))}"


def _best(comparison: Comparison) -> Table:
    """Which strategy at which sparsity, in one line each."""
    rows = []
    for level in comparison.sparsities:
        found = best(comparison, level)
        if found is None:
            continue
        mean = student_interval(comparison.accuracy(found.arm, level).values())
        rows.append(
            (f"{100 * level:g} %", found.arm, _interval(mean), "; ".join(found.equals) or "none")
        )
    return Table(("Sparsity", "Best mean", "Test accuracy", "Not found to be worse"), tuple(rows))


def _cells_of(row: Row) -> tuple[str, ...]:
    at = row.place
    arm = at.arm if at.trial == 1 else f"{at.arm}, learning rate x {at.trial:g}"
    return (
        arm,
        f"{100 * at.sparsity:g} %",
        str(at.seed),
        f"{100 * row.test:.2f} %",
        f"{100 * row.validation:.2f} %",
        f"{row.kept:,} of {row.total:,}",
        f"{row.dense_epochs} + {row.epochs}",
        f"{row.steps:,}",
        f"{row.seconds:.1f}",
    )


def _figures(comparison: Comparison) -> list[Figure]:
    dense = student_interval(comparison.dense.values()) if comparison.dense else None
    shown = list(comparison.strategies)
    made = [_accuracy(comparison, panel, dense) for panel in _panels(shown)]
    beside = [arm for arm in shown if arm != CONTROL]
    if CONTROL in shown and beside:
        made += [_differences(comparison, panel) for panel in _panels(beside)]
    return [*made, _cost(comparison)]


def _panels(arms: Sequence[str]) -> list[Panel]:
    """Arms in their order, few enough for each drawing; the control is in all of them."""
    others = [arm for arm in arms if arm != CONTROL]
    count = max(1, -(-len(others) // _LINES))
    size = -(-len(others) // count) or 1
    control = [CONTROL] if CONTROL in arms else []
    parts = [others[i : i + size] for i in range(0, len(others), size)] or [[]]
    return [
        Panel({arm: 1 + slot for slot, arm in enumerate([*control, *part])}, number, len(parts))
        for number, part in enumerate(parts, 1)
    ]


def _accuracy(comparison: Comparison, panel: Panel, dense: Interval | None) -> Figure:
    means = {
        arm: {
            level: student_interval(comparison.accuracy(arm, level).values())
            for level in sorted(comparison.arms[arm])
        }
        for arm in panel.slots
    }
    lines = [charts.Line(panel.slots[arm], points) for arm, points in means.items()]
    label = f"Test accuracy over sparsity: {_about(comparison, panel)}"
    floor = floor_of(comparison, dense)
    wide, narrow = twice(lambda width: charts.over_sparsity(lines, dense, floor, width, label))
    legend = tuple(_key(arm, panel.slots) for arm in means)
    if dense is not None:
        legend = (Key("dense", "arm-0", "dashed"), *legend)
    levels = sorted({level for points in means.values() for level in points})
    rows = tuple(
        (arm, *(_interval(points.get(level)) for level in levels)) for arm, points in means.items()
    )
    return Figure(
        f"Accuracy over sparsity{panel.of}",
        "Means over seeds with 95 % Student intervals of the mean. What lies far below "
        f"{CONTROL} is in the numbers alone.",
        wide,
        narrow,
        legend,
        Table(("Arm", *(f"{100 * level:g} %" for level in levels)), rows),
    )


def floor_of(comparison: Comparison, dense: Interval | None) -> float:
    """How far down accuracy is drawn, in percent.

    As far again below the control as the control has fallen, so that the rest can be told apart.
    """
    control = [
        student_interval(values.values()).mean
        for level in comparison.sparsities
        if (values := comparison.accuracy(CONTROL, level))
    ]
    if not control:
        return 0.0
    top = max([*control, *([] if dense is None else [dense.mean])])
    return max(0.0, min(control) - max(top - min(control), 2.0))


def _differences(comparison: Comparison, panel: Panel) -> Figure:
    levels = comparison.sparsities
    standing = {level: standings(comparison, level) for level in levels}
    beside = {
        arm: {level: standing[level][arm].difference for level in levels if arm in standing[level]}
        for arm in panel.slots
    }
    # Random pruning falls so far behind that nothing else could be told apart beside it.
    shown = {arm: found for arm, found in beside.items() if arm != RANDOM.name} or beside
    lines = [charts.Line(panel.slots[arm], found) for arm, found in shown.items()]
    label = f"Differences from {CONTROL} over sparsity: {_about(comparison, panel)}"
    wide, narrow = twice(lambda width: charts.differences(lines, CONTROL, width, label))
    rows = tuple(
        (
            arm,
            *(
                _interval(found.get(level), signed=True)
                + ("*" if level in found and standing[level][arm].certain else "")
                + _resampled(comparison, arm, level)
                for level in levels
            ),
        )
        for arm, found in beside.items()
    )
    words = (
        "Paired by seed, with 95 % Student intervals; differences beyond ten points are in the "
        "numbers alone. A star: certain among all arms of that sparsity together (Holm, 5 %). In "
        "brackets: the interval by bootstrap, which supposes no distribution but is too narrow "
        "for few seeds."
    )
    return Figure(
        f"Beside {CONTROL}{panel.of}",
        words,
        wide,
        narrow,
        tuple(_key(arm, panel.slots) for arm in shown),
        Table(("Arm", *(f"{100 * level:g} %" for level in levels)), rows),
    )


def _about(comparison: Comparison, panel: Panel) -> str:
    return f"{comparison.task}, {comparison.model}, {comparison.pattern}{panel.of}"


def _resampled(comparison: Comparison, arm: str, level: float) -> str:
    values, control = (comparison.accuracy(name, level) for name in (arm, CONTROL))
    common = sorted(values.keys() & control.keys())
    if len(common) < LOOK:
        return ""
    found = bootstrap_interval([values[seed] - control[seed] for seed in common])
    return f" [{found.low:+.2f} to {found.high:+.2f}]".replace("-", "−")


def _cost(comparison: Comparison) -> Figure:
    slots = {arm: 1 + index for index, arm in enumerate(comparison.arms)}
    about = f"{comparison.task}, {comparison.model}, {comparison.pattern}"
    level = comparison.sparsities[-1]
    points, rows = [], []
    for arm, levels in comparison.arms.items():
        found = list(levels.get(level, {}).values())
        if not found:
            continue
        epochs = fmean(row.epochs + row.dense_epochs for row in found)
        accuracy = student_interval(100 * row.test for row in found)
        if arm != RANDOM.name and not arm.endswith(SHUFFLED):
            points.append((slots[arm], epochs, accuracy))
        rows.append(
            (
                arm,
                _interval(accuracy),
                f"{epochs:g}",
                f"{fmean(row.steps for row in found):,.0f}",
                f"{fmean(row.seconds for row in found):.1f}",
            )
        )
    label = f"Test accuracy over epochs at {100 * level:g} %: {about}"
    wide, narrow = twice(lambda width: charts.over_epochs(points, width, label))
    return Figure(
        f"What it cost, at {100 * level:g} %",
        "Epochs of the arm and of the dense network that it starts from; steps and seconds of the "
        "arm alone. Random pruning is in the table alone.",
        wide,
        narrow,
        tuple(
            _key(arm, slots)
            for arm, levels in comparison.arms.items()
            if level in levels and arm != RANDOM.name and not arm.endswith(SHUFFLED)
        ),
        Table(("Arm", "Test accuracy", "Epochs", "Steps", "Seconds"), tuple(rows)),
    )


def _key(arm: str, slots: Mapping[str, int]) -> Key:
    return Key(arm, f"arm-{colour_index(slots[arm])}", marker(slots[arm]))


def _interval(each: Interval | None, *, signed: bool = False) -> str:
    if each is None:
        return ""
    form = "+.2f" if signed else ".2f"
    words = f"{each.mean:{form}}"
    if each.low is not None and each.high is not None:
        words += f" ({each.low:{form}} to {each.high:{form}})"
    return words.replace("-", "−")
