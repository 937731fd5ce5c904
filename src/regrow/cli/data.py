"""`regrow data get`: data sets from where their authors publish them."""

from __future__ import annotations

from typing import Annotated

import typer

from regrow.cli.options import DataDir
from regrow.cli.output import say
from regrow.core.errors import RegrowError

_PART_OF = {"cifar10_small": "cifar10"}


def get_command(
    name: Annotated[str, typer.Argument(help="cifar10, cifar100 or fashion_mnist.")],
    data_dir: DataDir = None,
    base_url: Annotated[
        str | None, typer.Option(help="A mirror that holds the same files.", show_default=False)
    ] = None,
) -> None:
    """Download a data set; an interrupted download is resumed, the checksum verified."""
    from regrow.bench.data import data_directory
    from regrow.bench.data.spoken import ADDRESS
    from regrow.cli.progress import download

    root = data_directory(data_dir)
    if name == "digits":
        say("digits needs no download: scikit-learn ships them.")
        return
    if name == "spoken_digits":
        raise RegrowError(
            f"spoken digits are published as a git repository: `git clone {ADDRESS}` in {root}."
        )
    where = download(_PART_OF.get(name, name), root, base_url)
    say(f"{name}: {where}")
