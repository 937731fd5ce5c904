"""Commands, exit codes and nothing else: the work is done below."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from regrow.core.errors import RegrowError

app = typer.Typer(
    name="regrow",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Prune PyTorch networks to the stump, then let the connections grow back that matter.\n\n"
    "Start with [bold]regrow run bidirectional --task digits --out runs/first[/bold]: dense "
    "training, extreme cut, regrowth and fine-tuning beside an equal-budget control, in about "
    "two minutes, with a report at the end.",
)
data_app = typer.Typer(no_args_is_help=True, help="Get data sets.")
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where data sets lie; else $REGROW_DATA, else ./data.", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Devices = Annotated[int, typer.Option(help="Ranks, for data-parallel training.", min=1)]
Seconds = Annotated[
    float, typer.Option(help="Save progress at least so often, in seconds.", min=0.0)
]


@app.command()
def run(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (see `regrow list`) or a TOML file.")
    ],
    out: Annotated[Path, typer.Option(help="The run directory to make.")],
    task: Annotated[
        str | None,
        typer.Option(help="digits, cifar10, cifar100, fashion_mnist, or package.module:function."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="One of the task's networks.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random. Default 0.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="key=value, for a parameter of the recipe (sparsity=0.95) or of training "
            "(training.dense_epochs=10). Repeatable.",
        ),
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option(help="Arms beside the recipe, separated by commas. Default one_way."),
    ] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    devices: Devices = 1,
    checkpoint_seconds: Seconds = 20.0,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Train, prune, regrow, fine-tune, verify and report, beside controls of equal budget."""
    from regrow.bench.config import configure
    from regrow.bench.run import clear

    names = None if controls is None else [c for c in controls.split(",") if c]
    config, found = configure(
        recipe, task=task, model=model, seed=seed, controls=names, settings=settings or ()
    )
    if (out / "recipe.toml").exists() and not overwrite:
        raise RegrowError(
            f"{out} holds a run already; go on with `regrow resume {out}`, replace it with "
            "--overwrite, or choose another --out."
        )
    if not _later_rank():
        clear(out)
    options = {"data_dir": data_dir, "device": device, "devices": devices}
    _perform(config, found, out, checkpoint_seconds, as_json, options)


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
    data_dir: DataDir = None,
    device: Device = "auto",
    devices: Devices = 1,
    checkpoint_seconds: Seconds = 20.0,
    as_json: Json = False,
) -> None:
    """Go on with a run after any interruption; what is finished is not done again."""
    from regrow.bench.config import configure

    recipe = directory / "recipe.toml"
    if not recipe.exists():
        raise RegrowError(
            f"{directory} holds no run (no recipe.toml); start one with `regrow run`."
        )
    config, found = configure(str(recipe))
    options = {"data_dir": data_dir, "device": device, "devices": devices}
    _perform(config, found, directory, checkpoint_seconds, as_json, options)


@app.command("inspect")
def inspect_command(
    path: Annotated[Path, typer.Argument(help="A run directory, .regrow or .safetensors file.")],
    as_json: Json = False,
) -> None:
    """Sparsity by layer and in total, parameters, multiply-adds and bytes."""
    from regrow.cli.inspection import look

    found = look(path)
    if as_json:
        _print_json(found.to_dict())
    else:
        Console().print(found.table())
        for line in found.notes():
            Console().print(escape(line), highlight=False)


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="A run directory, or one that holds several.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; default DIRECTORY/report.html.")
    ] = None,
) -> None:
    """Write one self-contained page from the records of one run or many."""
    from regrow.bench.report import find_runs, write_report

    page = out or directory / "report.html"
    write_report(find_runs(directory), page, command=f"regrow report {shlex.quote(str(directory))}")
    Console().print(f"report: {escape(str(page))}", soft_wrap=True)


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """Recipes, criteria, schedules, regrowth rules and the other parts, with their sources."""
    from regrow.cli.catalogue import catalogue, tables

    if as_json:
        _print_json(catalogue())
    else:
        for table in tables():
            Console().print(table)


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="cifar10, cifar100 or fashion_mnist.")],
    data_dir: DataDir = None,
    base_url: Annotated[
        str | None, typer.Option(help="A mirror that holds the same files.", show_default=False)
    ] = None,
) -> None:
    """Download a data set; an interrupted download is resumed, the checksum verified."""
    from regrow.bench.data import data_directory
    from regrow.cli.progress import download

    where = download(name, data_directory(data_dir), base_url)
    Console().print(f"{name}: {escape(str(where))}", soft_wrap=True)


def main() -> None:
    """Run the command line; exit 0 on success, 2 on bad input, 1 on a failure of regrow's own."""
    try:
        app(standalone_mode=False)
    except RegrowError as error:
        _fail(str(error), 2)
    except typer.Abort:
        _fail("stopped.", 130)
    except KeyboardInterrupt:
        _fail("stopped; what was saved stays. Go on with `regrow resume DIR`.", 130)
    except Exception as error:
        usage = getattr(error, "exit_code", None)
        if usage is not None and hasattr(error, "show"):
            error.show()
            sys.exit(usage)
        raise
    sys.exit(0)


def _perform(
    config: Any, task: Any, out: Path, seconds: float, as_json: bool, options: dict[str, Any]
) -> None:
    from regrow.bench.report import write_report
    from regrow.bench.run import run as run_all
    from regrow.cli.progress import Progress, summary

    command = _command(config, out)
    with Progress(quiet=as_json) as progress:
        record = run_all(
            config,
            task,
            out,
            command=command,
            checkpoint_seconds=seconds,
            notify=progress,
            **options,
        )
    if _later_rank():
        return
    page = write_report([out], out / "report.html", command=command)
    if as_json:
        _print_json(record)
    else:
        Console().print(summary(record))
        Console().print(f"report: {escape(str(page))}", soft_wrap=True)


def _command(config: Any, out: Path) -> str:
    return shlex.join(["regrow", "run", str(out / "recipe.toml"), "--out", str(out), "--overwrite"])


def _later_rank() -> bool:
    import os

    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) != "0"


def _print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, indent=1) + "\n")


def _fail(message: str, code: int) -> None:
    Console(stderr=True).print(f"[red]error:[/red] {escape(message)}", soft_wrap=True)
    sys.exit(code)
