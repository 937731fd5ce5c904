"""`regrow export`: a run's network, or a packed file, in a format of others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regrow.cli.options import DataDir, Json
from regrow.cli.output import say
from regrow.cli.runs import check_apart, network_of_run, packed_file, structured
from regrow.core.errors import RegrowError, unknown

if TYPE_CHECKING:
    from regrow.export.exported import Exported

_FORMATS = ("onnx", "safetensors", "torch")
_COMPARED = 128  # validation samples, for ONNX


def export_command(
    path: Annotated[Path, typer.Argument(help="A run directory, or a .regrow file.")],
    to: Annotated[
        str, typer.Option("--format", metavar="NAME", help="onnx, safetensors or torch.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")],
    arm: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a run: dense, a control, or (default) the recipe."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write the network as ONNX, safetensors or a torch state dict, and check the file.

    ONNX is run in ONNX Runtime and compared with torch on validation data; the others are read
    back to the bit. All three store zeros in full; the small form is that of `regrow pack`.

    regrow export runs/a --format onnx -o a.onnx
    """
    exported = _export(path, to, out, arm, data_dir)
    if as_json:
        sys.stdout.write(json.dumps(exported.to_dict(), indent=1) + "\n")
    else:
        say(f"{out}\n{exported}")


def _export(path: Path, to: str, out: Path, arm: str | None, data_dir: Path | None) -> Exported:
    from regrow.export.packed import unpack
    from regrow.export.tensors import export_safetensors, export_torch

    if to not in _FORMATS:
        raise unknown("format", to, _FORMATS)
    if not path.exists():
        raise RegrowError(f"there is no {path}; give a run directory, or a .regrow file.")
    packed = packed_file(path, arm) if path.is_dir() else path
    if not path.is_dir() and arm is not None:
        raise RegrowError(f"--arm belongs to a run, and {path} is a file; leave it out.")
    check_apart(out, packed)
    if to == "onnx":
        return _export_onnx(path, packed, out, data_dir)
    contents = unpack(packed)
    if contents.metadata.get("values") == "int8":
        raise RegrowError(
            f"{path} is an int8 deploy file, whose norms are folded into its weights; export the "
            "run that it was made of, or a file that regrow.save wrote."
        )
    write = export_safetensors if to == "safetensors" else export_torch
    if path.is_dir() and structured(path):
        network = network_of_run(path, packed, data_dir)
        return write(network.model, out, masks=network.masks)
    return write(contents, out)


def _export_onnx(run: Path, packed: Path, out: Path, data_dir: Path | None) -> Exported:
    from regrow.export.onnx import export_onnx

    if not run.is_dir():
        raise RegrowError(
            f"{run} holds weights and ONNX needs the network itself; give the run directory, or "
            "call regrow.export.onnx.export_onnx(model, ...) in Python."
        )
    network = network_of_run(run, packed, data_dir)
    inputs = network.splits.validation.images[:_COMPARED]
    return export_onnx(network.model, out, inputs, masks=network.masks)
