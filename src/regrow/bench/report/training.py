"""The figures of what happened during the runs: layer by layer, and over the epochs."""

from __future__ import annotations

from regrow.bench.report import plots, text
from regrow.bench.report.compare import Experiment, Level
from regrow.bench.report.history import course, kept_totals, layer_stories
from regrow.bench.report.parts import (
    Figure,
    Key,
    Table,
    at_level,
    drawing_label,
    line_key,
    slots,
    twice,
)


def layers_figure(experiment: Experiment, level: Level, aside: bool) -> Figure | None:
    """The layers of the main arm, with what grew back where something did."""
    stories = layer_stories(level.main)
    if not stories:
        return None
    flows = [story.flow for story in stories]
    lowest, final = kept_totals(level.main)
    returns = final > lowest
    drawn = "survived the cut and that grew back" if returns else "were kept"
    label = drawing_label(experiment, f"Connections of each layer that {drawn}", level)
    wide, narrow = twice(lambda width: plots.layers_chart(flows, returns, width, label))
    name = text.sentence(text.arm_name(level.main.name))
    mean = "; counts are means over the seeds" if len(level.main.by_seed) > 1 else ""
    legend: tuple[Key, ...]
    if returns:
        heading = "Where the weights went and came back"
        caption = (
            f"{name} held {text.count(lowest)} connections at its lowest point and "
            f"{text.count(final)} at the end{mean}. The bars show how "
            "many of them survived and how many grew back, with the share regrown in words. The "
            "arrows show how much of each layer that is, from a dot after the cut to the end; a "
            "longer arrow is a layer to which a greater multiple came back."
        )
        legend = (
            Key("Survived the cut", "survived"),
            Key("Grown back", "regrown"),
        )
    else:
        heading = "What each layer kept"
        caption = (
            f"{name} held {text.count(final)} connections at the end{mean}. The bars show how "
            "many of them each layer holds, the dots how much of the layer that is."
        )
        legend = (Key("Kept at the end", "survived"),)
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
        heading=heading + at_level(experiment, level),
        caption=caption,
        wide=wide,
        narrow=narrow,
        legend=legend,
        table=Table(
            (
                *("Layer", "Shape", "Before", "After the cut", "At the end"),
                *("Sparsity", "Pruned, all events", "Regrown, all events"),
            ),
            rows,
        ),
        aside=aside,
    )


def courses_figure(experiment: Experiment, level: Level, aside: bool) -> Figure | None:
    """Sparsity and validation accuracy of all arms at a level, epoch by epoch."""
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
    label = drawing_label(
        experiment,
        "Sparsity and validation accuracy of each arm over the epochs, with cut and regrowth",
        level,
    )
    wide, narrow = twice(lambda width: plots.course_chart(drawn, width, label))
    kinds = {kind for each in drawn for _, _, kind in each.events}
    shown = {"prune": "▲ a cut", "regrow": "▼ regrowth", "exchange": "◆ an exchange"}
    marks = [words for kind, words in shown.items() if kind in kinds]
    events = f" Marks are events ({text.joined(marks)})," if marks else ""
    events += (
        " and dotted lines carry those of arms with at most "
        f"{plots.MOST_DOTTED} events down to the accuracy."
        if marks
        else ""
    )
    many = len(level.main.by_seed) > 1
    rows = tuple(
        (line_key(experiment, name).label, f"{epoch:g}", text.sparsity(sparsity), reached)
        for name, each in found.items()
        for epoch, sparsity, reached in _epochs(each)
    )
    return Figure(
        heading="Over the epochs" + at_level(experiment, level),
        caption=(
            "Above: the sparsity held during each epoch. Below: validation accuracy at its end"
            + (", the mean over the seeds" if many else "")
            + ("; the bands of recipe and control go from least to greatest." if many else ".")
            + " Its axis starts where late differences can be seen, not at zero."
            + events
        ),
        wide=wide,
        narrow=narrow,
        legend=tuple(line_key(experiment, name) for name in found),
        table=Table(("Arm", "Epoch", "Sparsity", "Validation accuracy"), rows),
        aside=aside,
    )


def _epochs(each: plots.Course) -> list[tuple[float, float, str]]:
    accuracy = {epoch: f"{mean:.2f}{text.GAP}%" for epoch, mean, _, _ in each.accuracy}
    rows = [(epoch, s, accuracy.get(epoch, "\N{EN DASH}")) for epoch, s in each.sparsity[1:]]
    return rows
