"""`regrow time`: a packed network's speed beside dense runtimes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from regrow.cli.options import Json
from regrow.core.errors import RegrowError

if TYPE_CHECKING:
    from regrow.bench.timing import Timing


def time_command(
    path: Annotated[Path, typer.Argument(help="A file that `regrow pack` made.")],
    batch: Annotated[
        str, typer.Option(metavar="N,N", help="Samples of a call, with commas.")
    ] = "1,16,64",
    threads: Annotated[
        str, typer.Option(metavar="N,N", help="Threads of each engine, with commas.")
    ] = "1",
    against: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="Of onnxruntime, openvino, torch and deepsparse, with commas."
        ),
    ] = "onnxruntime,openvino,torch",
    seconds: Annotated[
        float,
        typer.Option(metavar="S", help="For each engine, batch and number of threads, about."),
    ] = 1.0,
    layers: Annotated[
        bool, typer.Option("--layers", help="The time of each layer in regrow's runtime too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure a packed network beside dense runtimes that compute the same network.

    Every engine runs in a process of its own, they take turns, and their outputs are compared with
    PyTorch's first. What is not installed is left out by name. Let nothing else run meanwhile.

    regrow time model.regrow --batch 1,16 --threads 1,2 --against onnxruntime,openvino
    """
    from regrow.bench.timing import Settings, time_network

    settings = Settings(
        _numbers("--batch", batch),
        _numbers("--threads", threads),
        tuple(name.strip() for name in against.split(",") if name.strip()),
        seconds,
        layers,
    )
    console = Console(stderr=True, emoji=False)
    with console.status("") as status:  # On a terminal only.
        timing = time_network(path, settings, lambda words: status.update(escape(words)))
    if as_json:
        told = asdict(timing)
        if not layers:
            del told["layers"]
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
    else:
        _show(timing, Console(emoji=False))


def _numbers(option: str, words: str) -> tuple[int, ...]:
    try:
        found = tuple(dict.fromkeys(int(word) for word in words.split(",")))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise RegrowError(f"{option} {words} is no list of whole numbers from 1 on, as in 1,16.")
    return found


def _show(timing: Timing, console: Console) -> None:
    console.print(escape(f"{timing.cpu}; regrow runs on {timing.isa}"), highlight=False)
    for (threads, batch), rows in groupby(timing.rows, lambda r: (r["threads"], r["batch"])):
        console.print(_cell(threads, batch, list(rows)), highlight=False)
    if timing.layers:
        for (threads, batch), layers in groupby(
            timing.layers, lambda each: (each["threads"], each["batch"])
        ):
            console.print(_layers(threads, batch, layers), highlight=False)
    for line in _notes(timing):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _cell(threads: int, batch: int, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"batch {batch}, {_threads(threads)}", title_justify="left")
    table.add_column("engine", style="bold")
    table.add_column("dtype")
    columns = ("median ms", "p10", "p90", "regrow is", "difference", "peak MiB")
    for name in columns:
        table.add_column(name, justify="right")
    own = next((row for row in rows if row["engine"] == "regrow" and "error" not in row), None)
    for row in rows:
        table.add_row(
            row["engine"],
            row["dtype"],
            *(f"{row[key]:.3f}" for key in ("median_ms", "p10_ms", "p90_ms")),
            _faster(row, own),
            "" if row["relative_diff"] is None else f"{row['relative_diff']:.1e}",
            f"{row['peak_mb']:.0f}",
        )
    return table


def _faster(row: Mapping[str, Any], own: Mapping[str, Any] | None) -> str:
    if "error" in row:
        return "[red]wrong[/red]"
    if own is None or row is own:
        return ""
    times = row["median_ms"] / own["median_ms"]
    return f"{times:.2f}x faster" if times >= 1 else f"{1 / times:.2f}x slower"


def _layers(threads: int, batch: int, layers: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(
        title=f"layers of regrow, batch {batch}, {_threads(threads)}",
        title_justify="left",
    )
    table.add_column("module", style="bold")
    for name in ("µs", "useful GMAC/s", "of peak"):
        table.add_column(name, justify="right")
    for layer in layers:
        rates = (f"{layer['gmacs']:.1f}", f"{layer['peak_share']:.0%}") if layer["gmacs"] else ()
        table.add_row(escape(layer["module"]), f"{layer['microseconds']:.1f}", *rates)
    return table


def _notes(timing: Timing) -> list[str]:
    notes = [
        f"{row['engine']} {row['dtype']}, batch {row['batch']}, {_threads(row['threads'])}: "
        f"{row['error']}"
        for row in timing.rows
        if "error" in row
    ]
    for each in timing.skipped:
        about = [each["engine"], each["dtype"]]
        about += [f"batch {each['batch']}"] if each["batch"] else []
        about += [_threads(each["threads"])] if each["threads"] else []
        notes.append(f"left out: {' '.join(word for word in about if word)}: {each['reason']}")
    if timing.load is not None and timing.load > 0.5:
        notes.append(
            f"Other processes were at work (load {timing.load:.1f} in the minute before): times "
            "are longer and wider than on a quiet machine."
        )
    notes.append(", ".join(f"{name} {found}" for name, found in timing.versions.items()))
    notes.append(
        "Difference: the largest from torch in fp32 on the same inputs, over the largest output. "
        "Peak MiB: growth of the process's memory since before the engine loaded; torch's holds "
        "reading the packed file."
    )
    if any(row["dtype"] == "int8" for row in timing.rows):
        notes.append(
            "int8: quantised by ONNX Runtime with ranges from random inputs; look at its speed, "
            "not at its accuracy."
        )
    if timing.layers:
        notes.append(
            "Of peak: useful multiply-adds over the most that this processor reaches in fp32, as "
            "measured. Layers are timed with 1, 2, 4, 8 or 16 samples at once, as the runtime "
            "takes them."
        )
    return notes


def _threads(count: int) -> str:
    return f"{count} thread" + ("s" if count > 1 else "")
