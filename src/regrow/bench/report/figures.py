"""The figures of an experiment with their captions, legends and the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from regrow.bench.report import bars, plots, text
from regrow.bench.report.compare import Cell, Experiment, Level, difference
from regrow.bench.report.history import course, layer_stories
from regrow.bench.report.records import CONTROL, DENSE
from regrow.bench.report.svg import PHASE_COLOURS, colour_index, marker
from regrow.bench.report.verdict import scaled
from regrow.bench.statistics import student_interval

WIDE, NARROW = 920, 372


@dataclass(frozen=True)
class Table:
    """A table as text; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a colour variable, and a marker or none for a square patch."""

    label: str
    colour: str
    marker: str | None = None


@dataclass(frozen=True)
class Figure:
    """A drawing for wide and for narrow pages; `aside` puts it behind a disclosure."""

    heading: str
    caption: str
    wide: Markup
    narrow: Markup
    legend: tuple[Key, ...]
    table: Table
    aside: bool = False


def slots(experiment: Experiment) -> dict[str, int]:
    """Colour and marker of every arm: 0 dense, 1 main, 2 control, then the others."""
    fixed = {DENSE: 0, experiment.recipe: 1, CONTROL: 2 if experiment.recipe != CONTROL else 1}
    others = [name for name in experiment.arms if name not in fixed]
    return {**fixed, **{name: 3 + index for index, name in enumerate(others)}}


def figures(experiment: Experiment) -> list[Figure]:
    """All figures of one experiment, in reading order; those without data are left out."""
    levels = experiment.levels
    found = [_accuracy(experiment), _effects(experiment)]
    found += [_layers(experiment, level, index > 0) for index, level in enumerate(levels)]
    found += [_courses(experiment, level, index > 0) for index, level in enumerate(levels)]
    found += [_budget(experiment), _bytes(experiment)]
    return [figure for figure in found if figure is not None]


def sparse_cells(experiment: Experiment) -> list[tuple[Level, Cell]]:
    """Every sparse arm at every level, arms in the order of the experiment."""
    return [
        (level, level.cells[name])
        for level in experiment.levels
        for name in experiment.arms
        if name != DENSE and name in level.cells
    ]


def _twice(chart: Callable[[int], str]) -> tuple[Markup, Markup]:
    return Markup(chart(WIDE)), Markup(chart(NARROW))


def _key(experiment: Experiment, name: str) -> Key:
    slot = slots(experiment)[name]
    label = text.sentence(text.arm_name(name)) + (" (control)" if name == CONTROL else "")
    return Key(label, f"arm-{colour_index(slot)}", marker(slot))


def _title(cell: Cell) -> str:
    name = text.sentence(text.arm_name(cell.name))
    return name if cell.name == DENSE else f"{name}, {text.sparsity(cell.sparsity)}"


def _at(experiment: Experiment, level: Level) -> str:
    return f" at {text.sparsity(level.main.sparsity)}" if len(experiment.levels) > 1 else ""


def _label(experiment: Experiment, words: str, level: Level | None = None) -> str:
    """What a drawing shows and of what; no two drawings of a page have the same label."""
    of = f"{experiment.task}, {experiment.model}, {text.arm_name(experiment.recipe)}"
    return f"{words}: {of}" + (f" at {text.sparsity(level.main.sparsity)}." if level else ".")


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
    label = _label(
        experiment,
        "Test accuracy against sparsity, one mark per arm, with the dense network as a line",
    )
    wide, narrow = _twice(lambda width: plots.accuracy_chart(series, dense, width, label))
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
        (_title(cell), str(seed), text.accuracy(value))
        for cell in [experiment.dense, *cells]
        for seed, value in cell.test.items()
    ]
    return Figure(
        heading="Accuracy against sparsity",
        caption=caption,
        wide=wide,
        narrow=narrow,
        legend=tuple(_key(experiment, name) for name in [*names, DENSE]),
        table=Table(("Arm", "Seed", "Test accuracy"), tuple(rows)),
    )


def _effects(experiment: Experiment) -> Figure | None:
    chosen = slots(experiment)
    effects = [
        bars.Effect(_title(cell), chosen[cell.name], interval)
        for level, cell in sparse_cells(experiment)
        if (interval := scaled(difference(level, cell))) is not None
    ]
    if not effects:
        return None
    label = _label(
        experiment, "Difference in test accuracy between each arm and the one-way control"
    )
    wide, narrow = _twice(lambda width: bars.effect_chart(effects, width, label))
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


def _layers(experiment: Experiment, level: Level, aside: bool) -> Figure | None:
    stories = layer_stories(level.main)
    if not stories:
        return None
    flows = [story.flow for story in stories]
    label = _label(
        experiment, "Connections of each layer that survived the cut and that grew back", level
    )
    wide, narrow = _twice(lambda width: plots.layers_chart(flows, width, label))
    mean = "; counts are means over the seeds" if len(level.main.by_seed) > 1 else ""
    cut, final = sum(flow.cut for flow in flows), sum(flow.final for flow in flows)
    rows = tuple(
        (
            story.flow.name,
            " × ".join(map(str, story.shape)),
            text.count(story.flow.before),
            text.count(story.flow.cut),
            text.count(story.flow.final),
            f"{100 * (1 - story.flow.final / story.flow.total):.2f}{text.GAP}%",
            text.count(story.pruned),
            text.count(story.regrown),
        )
        for story in stories
    )
    return Figure(
        heading="Where the weights went and came back" + _at(experiment, level),
        caption=(
            f"{text.sentence(text.arm_name(level.main.name))} held {text.count(cut)} connections "
            f"at its lowest point and {text.count(final)} at the end{mean}. The bars show how "
            "many of them survived and how many grew back, with the share regrown in words. The "
            "arrows show how much of each layer that is, from a dot after the cut to the end; a "
            "longer arrow is a layer to which a greater multiple came back."
        ),
        wide=wide,
        narrow=narrow,
        legend=(Key("Survived the cut", "survived"), Key("Grown back", "regrown")),
        table=Table(
            (
                *("Layer", "Shape", "Before", "After the cut", "At the end"),
                *("Sparsity", "Pruned, all events", "Regrown, all events"),
            ),
            rows,
        ),
        aside=aside,
    )


def _courses(experiment: Experiment, level: Level, aside: bool) -> Figure | None:
    chosen = slots(experiment)
    names = [name for name in experiment.arms if name in level.cells]
    found = {
        name: each
        for name in names
        if (each := course(level.cells[name], chosen[name])) is not None
    }
    if not found:
        return None
    drawn = list(found.values())
    label = _label(
        experiment,
        "Sparsity and validation accuracy of each arm over the epochs, with cut and regrowth",
        level,
    )
    wide, narrow = _twice(lambda width: plots.course_chart(drawn, width, label))
    kinds = {kind for each in drawn for _, _, kind in each.events}
    shown = {"prune": "▲ a cut", "regrow": "▼ regrowth", "exchange": "◆ an exchange"}
    marks = [words for kind, words in shown.items() if kind in kinds]
    events = f" Marks are events ({text.joined(marks)})," if marks else ""
    events += " and dotted lines carry them down to the accuracy." if marks else ""
    many = len(level.main.by_seed) > 1
    rows = tuple(
        (_key(experiment, name).label, f"{epoch:g}", text.sparsity(sparsity), reached)
        for name, each in found.items()
        for epoch, sparsity, reached in _epochs(each)
    )
    return Figure(
        heading="Over the epochs" + _at(experiment, level),
        caption=(
            "Above: the sparsity held during each epoch. Below: validation accuracy at its end"
            + (", the mean over the seeds in a band from least to greatest." if many else ".")
            + " Its axis starts where late differences can be seen, not at zero."
            + events
        ),
        wide=wide,
        narrow=narrow,
        legend=tuple(_key(experiment, name) for name in found),
        table=Table(("Arm", "Epoch", "Sparsity", "Validation accuracy"), rows),
        aside=aside,
    )


def _epochs(each: plots.Course) -> list[tuple[float, float, str]]:
    accuracy = {epoch: f"{mean:.2f}{text.GAP}%" for epoch, mean, _, _ in each.accuracy}
    rows = [(epoch, s, accuracy.get(epoch, "\N{EN DASH}")) for epoch, s in each.sparsity[1:]]
    return rows


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
        spans.append((_title(cell), spent, text.count(total)))
    label = _label(experiment, "Epochs that each arm spent, by phase")
    wide, narrow = _twice(lambda width: bars.budget_chart(spans, phases, width, label))
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
                (title, *(text.count(spent.get(p, 0.0)) for p in phases), total)
                for title, spent, total in spans
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
        words = text.size(packed)
        if packed:
            words += f", {text.times(dense / packed)} times smaller"
        sizes.append((_title(cell), chosen[cell.name], packed, words))
    label = _label(experiment, "Size of each arm's file beside the dense weights")
    wide, narrow = _twice(lambda width: bars.bytes_chart(sizes, width, label))
    return Figure(
        heading="Bytes",
        caption="The packed file, as written to disk, beside the dense weights.",
        wide=wide,
        narrow=narrow,
        legend=(),
        table=Table(
            ("File", "Bytes"), tuple((title, text.count(size)) for title, _, size, _ in sizes)
        ),
    )
