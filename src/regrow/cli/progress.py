"""Progress and results on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text


class Epochs(ProgressColumn):
    """Epochs done and in all; nothing for work that has none."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.completed:>4.0f}/{task.total:.0f} epochs")


class Progress:
    """A bar per arm, and one for what comes after; call it with the events of a run."""

    def __init__(self, *, quiet: bool) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            Epochs(Column(no_wrap=True)),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True, emoji=False),
            disable=quiet,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._complete()
        self._bars.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        arm = event["arm"]
        if event["kind"] == "speed":
            if "speed" not in self._tasks:
                self._complete()
                self._tasks["speed"] = self._bars.add_task("speed", total=None, note="")
            self._bars.update(self._tasks["speed"], note=event["words"])
            return
        if event["kind"] == "arm":
            self._complete()
            self._tasks[arm] = self._bars.add_task(
                arm, total=event["epochs"], completed=event["epoch"], note=""
            )
            return
        note = f"sparsity {event['sparsity']:.4f}, validation {event['validation_accuracy']:.4f}"
        self._bars.update(self._tasks[arm], completed=event["epoch"], note=note)

    def _complete(self) -> None:
        """What was begun has ended, where patience decides before the epochs are spent."""
        for bar in self._bars.tasks:
            self._bars.update(bar.id, total=bar.completed, visible=bar.total is not None)


def summary(record: dict[str, Any]) -> Table:
    """The arms of a record as a table."""
    table = Table(
        title=escape(f"{record['recipe']} on {record['task']}, seed {record['seed']}"),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("arm", style="bold", no_wrap=True)
    shrunk = any("shrunk" in arm for arm in record["arms"].values())
    amount = "MACs" if shrunk else "kept"
    for name in ("sparsity", amount, "test", "epochs", "seconds", "bytes", "smaller"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, arm in record["arms"].items():
        table.add_row(
            name,
            f"{arm['sparsity']:.4f}",
            _macs(arm) if shrunk else f"{arm['kept']:,}",
            f"{100 * arm['test_accuracy']:.2f} %",
            str(arm["epochs"]["total"]),
            f"{arm['seconds']:.1f}",
            f"{arm['file_bytes']:,}",
            f"{arm['dense_bytes'] / arm['file_bytes']:.1f}x",
        )
    return table


def _macs(arm: dict[str, Any]) -> str:
    """Multiply-adds of the network that is left, of the dense one's."""
    found = arm.get("shrunk")
    return "100 %" if found is None else f"{100 * found['macs'] / found['macs_dense']:.1f} %"


def deployed(record: dict[str, Any], out: Path) -> list[str]:
    """Lines on size and speed of the network as it is deployed, where the record tells of it."""
    found = record.get("deploy")
    if found is None:
        return []
    lines = []
    if found["file"] is not None:
        lines.append(
            f"deploy file: {out / found['file']}, {found['file_bytes']:,} bytes, "
            f"{found['times_smaller']:.1f}x smaller than dense fp32"
        )
    if found["speed"] is None:
        return [*lines, f"speed: not measured: {found['reason']}"]
    speed = found["speed"]
    lines.append(f"speed: {speed['median_ms']:.3g} ms for one sample on one thread,")
    lines.append(f"  {_faster(speed['dense'])}, the fastest dense engine in fp32 here")
    if speed["rounded"] is not None:
        lines.append(f"  {_faster(speed['rounded'])}, the fastest that rounds")
    if speed["dense"]["times_faster"] < 1:
        lines.append(
            "No gain in speed: the smaller a network and the fewer its zeros, the less they save."
        )
    return lines


def _faster(dense: dict[str, Any]) -> str:
    from regrow.bench.report.text import engine

    times = dense["times_faster"]
    words = f"{times:.2f}x faster" if times >= 1 else f"{1 / times:.2f}x slower"
    return f"{words} than {engine(dense['engine'])} {dense['dtype']} ({dense['median_ms']:.3g} ms)"


def download(name: str, root: Path, base_url: str | None) -> Path:
    """Download a data set with a bar per file."""
    from regrow.bench.data.download import get

    tasks: dict[str, Any] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True, emoji=False)) as bars:

        def update(file: str, done: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done)

        return get(name, root, base_url=base_url, progress=update)
