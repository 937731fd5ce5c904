"""The figures of an experiment with their captions, legends and the numbers behind them."""

from __future__ import annotations

from statistics import fmean

from regrow.bench.report import bars, plots, text
from regrow.bench.report.compare import Experiment, difference
from regrow.bench.report.parts import (
    Figure,
    Key,
    Table,
    drawing_label,
    key_of,
    line_key,
    slots,
    sparse_cells,
    title,
    twice,
)
from regrow.bench.report.records import DENSE
from regrow.bench.report.svg import PHASE_COLOURS
from regrow.bench.report.training import courses_figure, layers_figure
from regrow.bench.report.verdict import scaled
from regrow.bench.statistics import student_interval


def figures(experiment: Experiment) -> list[Figure]:
    """All figures of one experiment, in reading order; those without data are left out."""
    levels = experiment.levels
    found = [_accuracy(experiment), _effects(experiment)]
    found += [layers_figure(experiment, level, index > 0) for index, level in enumerate(levels)]
    found += [courses_figure(experiment, level, index > 0) for index, level in enumerate(levels)]
    found += [_budget(experiment), _bytes(experiment)]
    return [figure for figure in found if figure is not None]


def _accuracy(experiment: Experiment) -> Figure:
    chosen = slots(experiment)
    names = [name for name in experiment.arms if name != DENSE]
    cells = [cell for _, cell in sparse_cells(experiment)]
    series = []
    for name in names:
        points = tuple(
            plots.Point(
                cell.sparsity,
                tuple(100 * value for value in cell.test.values()),
                student_interval(100 * value for value in cell.test.values()),
            )
            for cell in cells
            if cell.name == name
        )
        series.append(plots.Series(chosen[name], points))
    dense = student_interval(100 * value for value in experiment.dense.test.values())
    many = max(len(cell.by_seed) for cell in cells) > 1
    label = drawing_label(
        experiment,
        "Test accuracy against sparsity, one mark per arm, with the dense network as a line",
    )
    wide, narrow = twice(lambda width: plots.accuracy_chart(series, dense, width, label))
    caption = (
        "Higher is better; further right is sparser. The dashed line is the dense network. Arms "
        "of one sparsity stand side by side in its shaded band."
    )
    if many:
        caption += (
            f" Small dots are seeds, marks their mean, whiskers the 95{text.GAP}% Student interval "
            "of that mean; arms share seeds, so compare them in the next figure, not by whether "
            "whiskers overlap."
        )
    rows = [
        (title(cell), str(seed), text.accuracy(value))
        for cell in [experiment.dense, *cells]
        for seed, value in cell.test.items()
    ]
    return Figure(
        heading="Accuracy against sparsity",
        caption=caption,
        wide=wide,
        narrow=narrow,
        legend=(*(key_of(experiment, name) for name in names), line_key(experiment, DENSE)),
        table=Table(("Arm", "Seed", "Test accuracy"), tuple(rows)),
    )


def _effects(experiment: Experiment) -> Figure | None:
    chosen = slots(experiment)
    effects = [
        bars.Effect(title(cell), chosen[cell.name], interval)
        for level, cell in sparse_cells(experiment)
        if (interval := scaled(difference(level, cell))) is not None
    ]
    if not effects:
        return None
    label = drawing_label(
        experiment, "Difference in test accuracy between each arm and the one-way control"
    )
    wide, narrow = twice(lambda width: bars.effect_chart(effects, width, label))
    many = max(effect.interval.n for effect in effects) > 1
    reading = (
        f"Bars are 95{text.GAP}% Student intervals of the difference paired by seed; a bar that "
        "touches the line means that no difference was found."
        if many
        else "With one seed there is no interval: nothing here can be told from chance."
    )
    rows = tuple(
        (e.label, text.signed(e.interval.mean), text.bounds(e.interval), str(e.interval.n))
        for e in effects
    )
    return Figure(
        heading="Difference to the control",
        caption="Right of the line is better than the one-way control of the same runs. " + reading,
        wide=wide,
        narrow=narrow,
        legend=(),
        table=Table(("Arm", "Points", f"95{text.GAP}% interval", "Seeds"), rows),
    )


def _budget(experiment: Experiment) -> Figure:
    cells = [experiment.dense, *(cell for _, cell in sparse_cells(experiment))]
    phases: list[str] = []
    spans = []
    for cell in cells:
        spent: dict[str, float] = {}
        for arm in cell.by_seed.values():
            for phase, epochs in arm.epochs.phases.items():
                spent[phase] = spent.get(phase, 0.0) + epochs / len(cell.by_seed)
        phases += [phase for phase in spent if phase not in phases]
        total = fmean(arm.epochs.total for arm in cell.by_seed.values())
        spans.append((title(cell), spent, text.count(total)))
    label = drawing_label(experiment, "Epochs that each arm spent, by phase")
    wide, narrow = twice(lambda width: bars.budget_chart(spans, phases, width, label))
    names = [phase.replace("_", " ") for phase in phases]
    dense = fmean(arm.epochs.total for arm in experiment.dense.by_seed.values())
    main = fmean(a.epochs.total for level in experiment.levels for a in level.main.by_seed.values())
    caption = "Every epoch counts, the dense training before the cut included."
    if dense < main:
        caption += (
            " The dense arm stops where the others start to be cut: its accuracy is a reference, "
            "not a comparison at equal budget."
        )
    return Figure(
        heading="Budget spent",
        caption=caption,
        wide=wide,
        narrow=narrow,
        legend=tuple(
            Key(text.sentence(name), f"phase-{i % PHASE_COLOURS}") for i, name in enumerate(names)
        ),
        table=Table(
            ("Arm", *(text.sentence(name) for name in names), "Total epochs"),
            tuple(
                (name, *(text.count(spent.get(p, 0.0)) for p in phases), total)
                for name, spent, total in spans
            ),
        ),
    )


def _bytes(experiment: Experiment) -> Figure:
    chosen = slots(experiment)
    dense = fmean(arm.dense_bytes for arm in experiment.dense.by_seed.values())
    sizes: list[tuple[str, int, float, str]] = [("Dense weights", 0, dense, text.size(dense))]
    for cell in [experiment.dense, *(cell for _, cell in sparse_cells(experiment))]:
        packed = fmean(arm.file_bytes for arm in cell.by_seed.values())
        if cell.name == DENSE and packed == dense:
            continue
        smaller = text.smaller(dense, packed)
        words = f"{text.size(packed)}, {smaller}" if smaller else text.size(packed)
        sizes.append((title(cell), chosen[cell.name], packed, words))
    label = drawing_label(experiment, "Size of each arm's file beside the dense weights")
    wide, narrow = twice(lambda width: bars.lengths_chart(sizes, width, label))
    return Figure(
        heading="Bytes",
        caption="The packed file, as written to disk, beside the dense weights.",
        wide=wide,
        narrow=narrow,
        legend=(),
        table=Table(
            ("File", "Bytes"), tuple((name, text.count(size)) for name, _, size, _ in sizes)
        ),
    )
