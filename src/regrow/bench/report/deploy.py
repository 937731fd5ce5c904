"""The network as it is deployed: the size of its file, and its speed beside dense engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from regrow.bench.report import bars, text
from regrow.bench.report.compare import Experiment, Level
from regrow.bench.report.parts import Figure, Table, drawing_label, slots, title, twice
from regrow.bench.report.records import DENSE, Deploy, Run, Speed

OWN, FULL = "regrow", "fp32"


@dataclass(frozen=True)
class Deployment:
    """What was found, in sentences, the reasons where nothing was, and a figure per processor."""

    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class _Measured:
    """A run whose network was timed."""

    run: Run
    level: Level
    speed: Speed


def deployment(experiment: Experiment) -> Deployment | None:
    """Sizes and speeds of an experiment's runs; None where no record tells of any."""
    told = [run for run in experiment.runs if run.deploy is not None]
    if not told:
        return None
    places: dict[tuple[str, str, int, int], list[_Measured]] = {}
    for each in _measured(experiment):
        speed = each.speed
        place = (speed.cpu, speed.isa, speed.batch, speed.threads)
        places.setdefault(place, []).append(each)
    return Deployment(
        tuple(_sentences(experiment, list(places.values()))),
        tuple(_notes(told)),
        tuple(_figure(experiment, each) for each in places.values()),
    )


def _measured(experiment: Experiment) -> Iterator[_Measured]:
    for level in experiment.levels:
        for run in _runs(experiment, level):
            if run.deploy is not None and run.deploy.speed is not None:
                yield _Measured(run, level, run.deploy.speed)


def _runs(experiment: Experiment, level: Level) -> list[Run]:
    arms = level.main.by_seed
    return [run for run in experiment.runs if arms.get(run.seed) is run.arms[run.recipe]]


def _sentences(experiment: Experiment, places: Sequence[Sequence[_Measured]]) -> Iterator[str]:
    for level in experiment.levels:
        found = [run.deploy for run in _runs(experiment, level) if run.deploy is not None]
        sizes = [_bytes(each) for each in found if each.file_bytes is not None]
        if sizes:
            packed, dense = (fmean(each) for each in zip(*sizes, strict=True))
            smaller = text.smaller(dense, packed)
            yield (
                f"At {text.sparsity(level.main.sparsity)} sparsity the deploy file of "
                f"{text.arm_name(level.main.name)} takes {text.size(packed)}, all parameters in "
                f"fp32 {text.size(dense)}" + (f": {smaller}." if smaller else ".")
            )
        for place in places:
            here = [each for each in place if each.level is level]
            if here:
                yield _faster(here, place, len(places) > 1)


def _bytes(found: Deploy) -> tuple[int, int]:
    assert found.file_bytes is not None
    assert found.dense_bytes is not None
    return found.file_bytes, found.dense_bytes


def _faster(here: Sequence[_Measured], place: Sequence[_Measured], several: bool) -> str:
    """The runtime at one level against the fastest dense engines on that processor."""
    speed, own, dense = here[0].speed, _own(here), _dense(place)
    on = f" on {speed.cpu}" if several else ""
    kinds = {
        f"dense engine in {FULL}": [name for name in dense if name[1] == FULL],
        "that rounds": [name for name in dense if name[1] != FULL],
    }
    told = [
        f"{text.faster(dense[names[0]], own)} the fastest {kind}, {_named(*names[0])} "
        f"({text.milliseconds(dense[names[0]])})"
        for kind, names in kinds.items()
        if names
    ]
    words = (
        f"{text.engine(OWN)} takes {text.milliseconds(own)} for {_call(speed)}{on}, "
        f"{' and '.join(told)}."
    )
    if any(median < own for (_, dtype), median in dense.items() if dtype == FULL):
        words += " The smaller a network and the fewer its zeros, the less they save."
    return text.sentence(words)


def _own(measured: Sequence[_Measured]) -> float:
    """Mean over the runs of the runtime's median."""
    return fmean(
        each.median for measure in measured for each in measure.speed.engines if each.engine == OWN
    )


def _dense(measured: Sequence[_Measured]) -> dict[tuple[str, str], float]:
    """The same of each dense engine and dtype, which zeros do not help; from the fastest on."""
    found: dict[tuple[str, str], list[float]] = {}
    for measure in measured:
        for each in measure.speed.engines:
            if each.engine != OWN:
                found.setdefault((each.engine, each.dtype), []).append(each.median)
    means = {name: fmean(values) for name, values in found.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def _named(engine: str, dtype: str) -> str:
    return f"{text.engine(engine)} {dtype}"


def _call(speed: Speed) -> str:
    samples = "one sample" if speed.batch == 1 else f"{speed.batch} samples"
    return f"{samples} on {'one thread' if speed.threads == 1 else f'{speed.threads} threads'}"


def _notes(runs: Sequence[Run]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for run in runs:
        assert run.deploy is not None
        if run.deploy.reason is not None:
            reasons.setdefault(run.deploy.reason, []).append(str(run.seed))
    for reason, seeds in reasons.items():
        yield f"Not measured (seed {text.joined(dict.fromkeys(seeds))}): {reason}"


def _figure(experiment: Experiment, measured: Sequence[_Measured]) -> Figure:
    speed, chosen = measured[0].speed, slots(experiment)
    levels = {id(each.level): each.level for each in measured}
    rows = []
    for level in levels.values():
        own = _own([each for each in measured if each.level is level])
        label = f"{title(level.main)}, in {text.engine(OWN)}"
        rows.append((label, chosen[level.main.name], own, text.milliseconds(own)))
    for name, median in _dense(measured).items():
        rows.append((f"{_named(*name)}, dense", chosen[DENSE], median, text.milliseconds(median)))
    label = drawing_label(experiment, f"Time of a call of each engine on {speed.cpu}")
    wide, narrow = twice(lambda width: bars.lengths_chart(rows, width, label))
    many = "; means over the runs" if len(measured) > 1 else ""
    return Figure(
        heading=f"Speed on {speed.cpu}",
        caption=(
            f"Median time of {_call(speed)} of {speed.cpu} ({speed.isa}){many}; shorter is better. "
            "All engines compute the same network, the dense ones with its zeros, and took turns "
            "in processes of their own; what bf16 and int8 cost in accuracy was not measured. This "
            "was a short look at the end of the run; the command regrow time takes longer ones, "
            "and larger batches."
        ),
        wide=wide,
        narrow=narrow,
        legend=(),
        table=Table(
            ("Seed", "Sparsity", "Engine", "Computes in", "Median ms", "10th percentile", "90th"),
            tuple(
                (
                    str(each.run.seed),
                    text.sparsity(each.run.arms[each.run.recipe].sparsity),
                    text.engine(row.engine),
                    row.dtype,
                    *(f"{value:.4g}" for value in (row.median, row.low, row.high)),
                )
                for each in measured
                for row in each.speed.engines
            ),
        ),
    )
