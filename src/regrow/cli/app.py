"""Commands, exit codes and nothing else: the work is done below."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from regrow.cli.compare import compare_command
from regrow.cli.data import get_command
from regrow.cli.export import export_command
from regrow.cli.interrupt import Interrupt
from regrow.cli.options import DataDir, Device, Json
from regrow.cli.output import say
from regrow.cli.pack import pack_command
from regrow.cli.recommend import recommend_command
from regrow.cli.report import report_command, write_runs
from regrow.cli.time import time_command
from regrow.core.errors import RegrowError

app = typer.Typer(
    name="regrow",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Prune PyTorch networks to the stump, then let the connections grow back that matter.\n\n"
    "Start with [bold]regrow run bidirectional --task digits --out runs/first[/bold]: dense "
    "training, then a ramp on which some weights return, beside an equal-budget control, in about "
    "a minute, with a report at the end.",
)
data_app = typer.Typer(no_args_is_help=True, help="Get data sets.")
app.add_typer(data_app, name="data")

Devices = Annotated[
    int, typer.Option(metavar="N", help="Ranks, for data-parallel training.", min=1)
]
Seconds = Annotated[
    float, typer.Option(metavar="S", help="Save progress at least so often, in seconds.", min=0.0)
]
Speed = Annotated[
    bool,
    typer.Option(
        "--speed/--no-speed",
        help="At the end, write the deploy file and time it beside dense engines; some seconds.",
    ),
]


@app.command()
def run(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (see `regrow list`) or a TOML file.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The run directory to make.")],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="A task of `regrow list`, or module:function; default digits.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="One of the task's networks.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Of everything random. Default 0.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A parameter of the recipe (sparsity=0.95; `regrow list RECIPE` has them all) or "
            "of training (training.dense_epochs=10). Repeatable.",
        ),
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Arms beside the recipe, with commas. Default one_way."),
    ] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    devices: Devices = 1,
    checkpoint_seconds: Seconds = 20.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run that is there.")
    ] = False,
    speed: Speed = True,
    as_json: Json = False,
) -> None:
    """Train, prune, regrow, fine-tune, verify and report, beside controls of equal budget.

    regrow run bidirectional --task digits --out runs/a --set sparsity=0.95 --set exchange=0.1

    regrow run gradual --task cifar10 --model resnet20 --data-dir ~/data --out runs/b
    """
    from regrow.bench.config import configure

    names = None if controls is None else [c for c in controls.split(",") if c]
    config, found = configure(
        recipe, task=task, model=model, seed=seed, controls=names, settings=settings or ()
    )
    if (out / "recipe.toml").exists() and not overwrite and not _later_rank(devices):
        raise RegrowError(
            f"{out} holds a run already; go on with "
            f"`regrow resume -- {shlex.quote(str(out))}`, replace it with "
            "--overwrite, or choose another --out."
        )
    options = {"data_dir": data_dir, "device": device, "devices": devices, "speed": speed}
    _perform(config, found, out, checkpoint_seconds, as_json, {**options, "fresh": True})


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
    data_dir: DataDir = None,
    device: Device = "auto",
    devices: Devices = 1,
    checkpoint_seconds: Seconds = 20.0,
    speed: Speed = True,
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
    options = {"data_dir": data_dir, "device": device, "devices": devices, "speed": speed}
    _perform(config, found, directory, checkpoint_seconds, as_json, options)


@app.command("inspect")
def inspect_command(
    path: Annotated[Path, typer.Argument(help="A run directory, .regrow or .safetensors file.")],
    groups: Annotated[
        bool, typer.Option("--groups", help="What can be removed channel by channel, and what not.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --groups, of a file of weights: its task."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --groups, of a file of weights: its network."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Sparsity by layer and in total, parameters, multiply-adds and bytes; or coupled groups."""
    if groups:
        from regrow.cli.groups import groups_of

        coupled = groups_of(path, task, model, data_dir)
        if as_json:
            _print_json({"groups": coupled.rows()})
        else:
            say(str(coupled))
        return
    from regrow.cli.inspection import look

    found = look(path)
    if as_json:
        _print_json(found.to_dict())
    else:
        Console(emoji=False).print(found.table())
        for line in found.notes():
            Console(emoji=False).print(escape(line), highlight=False)


app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("pack")(pack_command)
app.command("recommend")(recommend_command)
app.command("report")(report_command)
app.command("time")(time_command)
data_app.command("get")(get_command)


@app.command("list")
def list_command(
    name: Annotated[
        str | None, typer.Argument(help="One of them: its documentation, options and defaults.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recipes, criteria, schedules, regrowth rules and the other parts, with their sources."""
    from regrow.cli.catalogue import catalogue, details, tables

    if as_json:
        _print_json(catalogue(name))
    elif name is not None:
        sys.stdout.write(details(name) + "\n")
    else:
        for table in tables():
            Console(emoji=False).print(table)


def main() -> None:
    """Run the command line; exit 0 on success, 2 on bad input, 1 on a failure of regrow's own."""
    try:
        code = app(standalone_mode=False)
    except RegrowError as error:
        _fail(str(error), 2)
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped.", 130)
    except Exception as error:
        usage = getattr(error, "exit_code", None)
        if usage is not None and hasattr(error, "show"):
            error.show()
            sys.exit(usage)
        raise
    if code == 130:  # How typer tells of Ctrl-C.
        _fail("stopped.", 130)
    sys.exit(code or 0)


def _perform(
    config: Any, task: Any, out: Path, seconds: float, as_json: bool, options: dict[str, Any]
) -> None:
    from regrow.bench.run import run as run_all
    from regrow.cli.progress import Progress, deployed, summary

    # On import it sets itself to tell of every choice that it makes.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    command, later = _command(out, options), _later_rank(options["devices"])
    try:
        with Interrupt() as interrupt, Progress(quiet=as_json or later) as progress:

            def notify(event: dict[str, Any]) -> None:
                progress(event)
                interrupt.check()

            record = run_all(
                config,
                task,
                out,
                command=command,
                checkpoint_seconds=seconds,
                notify=notify,
                **options,
            )
    except KeyboardInterrupt:
        if not (out / "recipe.toml").exists():
            _fail("stopped before anything was done.", 130)
        _fail(f"stopped; go on with `regrow resume {shlex.quote(str(out))}`.", 130)
    if later:
        return
    page = write_runs([out], out / "report.html", command)
    if as_json:
        _print_json(record)
    else:
        Console(emoji=False).print(summary(record))
        for line in deployed(record, out):
            say(line)
        say(f"report: {page}")


def _command(out: Path, options: dict[str, Any]) -> str:
    """What repeats the run beside itself, for its record."""
    words = ["regrow", "run", str(out / "recipe.toml"), "--out", f"{out}-again"]
    if options["data_dir"] is not None:
        words += ["--data-dir", str(options["data_dir"])]
    if options["device"] != "auto":
        words += ["--device", options["device"]]
    if options["devices"] != 1:
        words += ["--devices", str(options["devices"])]
    if not options["speed"]:
        words += ["--no-speed"]
    return shlex.join(words)


def _later_rank(devices: int) -> bool:
    # Some shells and schedulers leave a RANK behind that belongs to nothing.
    if devices == 1 or os.environ.get("WORLD_SIZE", "1") in ("", "0", "1"):
        return False
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) != "0"


def _print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, indent=1) + "\n")


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True, emoji=False).print(f"[red]error:[/red] {escape(message)}", soft_wrap=True)
    sys.exit(code)
