"""Reading run directories: record.json and, where there is one, history.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.core.errors import RegrowError

SCHEMA = 1
DENSE = "dense"
CONTROL = "one_way"

_LEVEL = {("parameters", key) for key in ("sparsity", "sparsities", "overshoot", "seed")}
"""Parameters that say how sparse a run is or which repetition, not its method."""

_PASSING = {"seconds", "date", "command", "deploy"}
"""What differs between two records of the same run, done twice."""


@dataclass(frozen=True)
class Spent:
    """A budget in epochs or steps: phase to count, in order, and their total."""

    phases: Mapping[str, int]
    total: int


@dataclass(frozen=True)
class Arm:
    """What one arm of one run reached; accuracies and sparsity are fractions.

    Where units were cut, `shrunk` tells how small the network is (docs/record.md).
    """

    name: str
    sparsity: float
    denominator: str
    kept: int
    total: int
    test: float
    validation: float
    epochs: Spent
    steps: Spent
    seconds: float
    file_bytes: int
    dense_bytes: int
    course: tuple[Mapping[str, Any], ...]
    events: tuple[Mapping[str, Any], ...]
    shrunk: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EngineTime:
    """Median, 10th and 90th percentile of an engine's calls, in milliseconds."""

    engine: str
    dtype: str
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Speed:
    """The main arm's network in all engines, regrow's runtime among them."""

    cpu: str
    isa: str
    batch: int
    threads: int
    engines: tuple[EngineTime, ...]


@dataclass(frozen=True)
class Deploy:
    """The main arm's network as it is deployed; what is None could not be had, for the reason."""

    file_bytes: int | None
    dense_bytes: int | None
    speed: Speed | None
    reason: str | None


@dataclass(frozen=True)
class Run:
    """One run directory: all arms of one seed.

    Attributes:
        settings: the recipe's parameters but for sparsity and seed, and the training's, as JSON;
            empty in records that do not tell them.
        content: the record without what may differ when a run is repeated.
        deploy: None in records that do not tell of it.
    """

    path: Path
    task: str
    model: str
    recipe: str
    seed: int
    command: str
    environment: Mapping[str, Any]
    arms: Mapping[str, Arm]
    settings: Mapping[str, str]
    content: str
    deploy: Deploy | None


def find_runs(directory: Path) -> list[Path]:
    """The directory itself if it holds a record.json, else every run directory below it, sorted.

    Raises:
        RegrowError: if there is none.
    """
    if (directory / "record.json").is_file():
        return [directory]
    found = sorted(path.parent for path in directory.glob("**/record.json"))
    if not found:
        raise RegrowError(
            f"no record.json in or below {str(directory)!r}; give the directory of a finished run."
        )
    return found


def read_run(path: Path) -> Run:
    """Read one run directory.

    Raises:
        RegrowError: if the record is missing, is not JSON, has another schema or lacks a field.
    """
    file = path / "record.json"
    record = _load(file)
    try:
        courses = _histories(path / "history.json")
    except (AttributeError, KeyError, TypeError) as error:
        raise RegrowError(
            f"{str(path / 'history.json')!r} is damaged ({error}); `regrow resume` of the run "
            "writes it again."
        ) from error
    try:
        arms = {
            name: _arm(name, fields, courses.get(name, {}))
            for name, fields in record["arms"].items()
        }
        run = Run(
            path=path,
            task=str(record["task"]),
            model=str(record["model"]),
            recipe=str(record["recipe"]),
            seed=int(record["seed"]),
            command=str(record["command"]),
            environment=dict(record["environment"]),
            arms=arms,
            settings=_settings(record),
            content=json.dumps(_lasting(record), sort_keys=True),
            deploy=_deploy(record.get("deploy")),
        )
    except KeyError as missing:
        raise RegrowError(
            f"{str(file)!r} lacks the field {missing}; write it again with this version of regrow."
        ) from missing
    except (AttributeError, TypeError, ValueError) as error:
        raise RegrowError(
            f"{str(file)!r} is damaged ({error}); `regrow resume` of the run writes it again."
        ) from error
    for name in (DENSE, run.recipe):
        if name not in arms:
            raise RegrowError(
                f"{str(file)!r} has no arm {name!r}, only {', '.join(sorted(arms)) or 'none'}; "
                "a report needs the dense arm and the arm of the recipe."
            )
    return run


def _settings(record: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{part}.{key}": json.dumps(value, sort_keys=True)
        for part in ("parameters", "training")
        for key, value in (record.get(part) or {}).items()
        if (part, key) not in _LEVEL
    }


def _lasting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lasting(item) for key, item in value.items() if key not in _PASSING}
    return value


def _load(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RegrowError(f"cannot read {str(file)!r}: {error.strerror}.") from error
    except ValueError as error:
        raise RegrowError(f"{str(file)!r} is not JSON ({error}); run that arm again.") from error
    version = value.get("schema") if isinstance(value, dict) else None
    if version != SCHEMA:
        raise RegrowError(
            f"{str(file)!r} has schema {version!r}; this regrow reads schema {SCHEMA}. "
            "Report it with the regrow that wrote it, or run it again."
        )
    return value


def _histories(file: Path) -> Mapping[str, Mapping[str, Any]]:
    """Arm to its recorded epochs and events; nothing where there is no such file."""
    if not file.is_file():
        return {}
    arms: Mapping[str, Mapping[str, Any]] = _load(file).get("arms", {})
    needed = {
        "epochs": {"epoch", "sparsity"},
        "events": {"epoch", "kind", "sparsity", "kept"},
        "layers": {"name", "shape", "total", "kept_before", "kept", "pruned", "regrown"},
    }
    for name, history in arms.items():
        events = history.get("events", ())
        layers = [layer for event in events for layer in event.get("layers", ())]
        parts = {"epochs": history.get("epochs", ()), "events": events, "layers": layers}
        for part, rows in parts.items():
            lacking = sorted({key for row in rows for key in needed[part] - row.keys()})
            if lacking:
                raise RegrowError(
                    f"{str(file)!r} lacks {', '.join(lacking)} in the {part} of arm {name!r}; "
                    "write it again with this version of regrow, or remove it to report without."
                )
        if (
            len(
                {
                    frozenset(layer["name"] for layer in e["layers"])
                    for e in events
                    if e.get("layers")
                }
            )
            > 1
        ):
            raise RegrowError(
                f"{str(file)!r} names other layers in one event of arm {name!r} than in another; "
                "every event lists all layers, changed or not."
            )
    return arms


def _arm(name: str, fields: Mapping[str, Any], history: Mapping[str, Any]) -> Arm:
    return Arm(
        name=name,
        sparsity=float(fields["sparsity"]),
        denominator=str(fields.get("density_denominator", "not recorded")),
        kept=int(fields["kept"]),
        total=int(fields["total"]),
        test=float(fields["test_accuracy"]),
        validation=float(fields["validation_accuracy"]),
        epochs=_spent(fields["epochs"]),
        steps=_spent(fields["steps"]),
        seconds=float(fields["seconds"]),
        file_bytes=int(fields["file_bytes"]),
        dense_bytes=int(fields["dense_bytes"]),
        course=_rows(history.get("epochs")),
        events=_rows(history.get("events")),
        shrunk=fields.get("shrunk"),
    )


def _deploy(fields: Mapping[str, Any] | None) -> Deploy | None:
    if fields is None:
        return None
    found, speed = fields["speed"], None
    if found is not None:
        times = ("median_ms", "p10_ms", "p90_ms")
        engines = tuple(
            EngineTime(each["engine"], each["dtype"], *(float(each[key]) for key in times))
            for each in found["engines"]
        )
        cpu, isa = str(found["cpu"]), str(found["isa"])
        speed = Speed(cpu, isa, int(found["batch"]), int(found["threads"]), engines)
    return Deploy(fields["file_bytes"], fields["dense_fp32_bytes"], speed, fields["reason"])


def _rows(value: Sequence[Mapping[str, Any]] | None) -> tuple[Mapping[str, Any], ...]:
    return tuple(value or ())


def _spent(value: int | Mapping[str, int]) -> Spent:
    """A count alone is one phase; a mapping without "total" totals its phases."""
    if not isinstance(value, Mapping):
        return Spent({"training": int(value)}, int(value))
    phases = {phase: int(count) for phase, count in value.items() if phase != "total"}
    return Spent(phases, int(value.get("total", sum(phases.values()))))
