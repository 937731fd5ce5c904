"""`regrow pack`: a network as a small file that runs without PyTorch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from regrow.cli.options import DataDir, Json
from regrow.cli.runs import Network, check_apart, network_of_run, network_of_task, packed_file
from regrow.core.errors import RegrowError

if TYPE_CHECKING:
    from regrow.bench.data import TensorPair
    from regrow.export.deploy import Packing, Values

_COMPARED = 32  # validation samples on which torch and the runtime are compared
_CALIBRATION = (8, 64)  # batches and samples of each, for int8


def pack_command(
    path: Annotated[
        Path, typer.Argument(help="A run directory, or a .regrow file of weights with --task.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")],
    values: Annotated[
        str, typer.Option(metavar="NAME", help="fp32 (to the bit), fp16, bf16 or int8.")
    ] = "fp32",
    arm: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a run: dense, a control, or (default) the recipe."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a file of weights: its task.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a file of weights: its network.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write a small file that regrow_runtime runs without PyTorch, and check it.

    The runtime must agree with PyTorch on validation data before the file is accepted; then it
    classifies the test data, so that what rounding costs is seen.

    regrow pack runs/a --values fp16 -o model.regrow
    """
    from regrow.export.deploy import pack
    from regrow.export.runtime import runtime

    native = runtime()
    network, source = _network(path, arm, task, model, data_dir)
    check_apart(out, source)
    train, sizes = network.splits.train.images, _CALIBRATION
    packing = pack(
        network.model,
        out,
        network.splits.validation.images[:_COMPARED],
        values=_values(values),
        masks=network.masks,
        calibration=train[: sizes[0] * sizes[1]].split(sizes[1]) if values == "int8" else None,
    )
    test = network.splits.test
    before = _accuracy(lambda x: _torch(network, x), test)
    packed = native.load(out)
    after = _accuracy(lambda x: packed(x.numpy()), test)
    if as_json:
        told = {**packing.to_dict(), "values": values, "test_accuracy": after}
        sys.stdout.write(json.dumps({**told, "test_accuracy_before": before}, indent=1) + "\n")
        return
    console = Console(emoji=False)
    console.print(_table(packing), highlight=False)
    for line in _lines(packing, values, before, after):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _network(
    path: Path, arm: str | None, task: str | None, model: str | None, data_dir: Path | None
) -> tuple[Network, Path]:
    if not path.exists():
        raise RegrowError(f"there is no {path}; give a run directory, or a .regrow file.")
    if path.is_dir():
        if task is not None or model is not None:
            raise RegrowError(
                f"{path} is a run, which knows its task; leave --task and --model out."
            )
        source = packed_file(path, arm)
        return network_of_run(path, source, data_dir), source
    if arm is not None:
        raise RegrowError(f"--arm belongs to a run, and {path} is a file; leave it out.")
    if task is None:
        raise RegrowError(
            f"{path} holds weights alone: say which network they are of, as in --task cifar10 "
            "--model resnet20; or call regrow.export.deploy.pack(model, ...) in Python."
        )
    return network_of_task(task, model, path, data_dir), path


def _values(name: str) -> Values:
    known: dict[str, Values] = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "int8": "int8"}
    if name not in known:
        raise RegrowError(f"there is no --values {name}; choose from {', '.join(known)}.")
    return known[name]


def _torch(network: Network, images: Any) -> Any:
    import torch

    with torch.no_grad():
        return network.model.eval()(images).numpy()


def _accuracy(classify: Any, data: TensorPair) -> float:
    correct = 0
    for start in range(0, len(data), 256):
        scores = classify(data.images[start : start + 256])
        correct += int((scores.argmax(1) == data.labels[start : start + 256].numpy()).sum())
    return correct / len(data)


def _table(packing: Packing) -> Table:
    table = Table(title="positions of the kept weights", title_justify="left")
    table.add_column("layer", style="bold")
    for name in ("kept", "of", "bits", "log2 C(n, k)", "ratio"):
        table.add_column(name, justify="right")
    for layer in packing.layers:
        table.add_row(escape(layer["name"]), *_bits(layer))
    table.add_section()
    total = {"kept": packing.nonzeros, "weights": packing.weights}
    bits = {
        "position_bits": packing.position_bits,
        "position_bits_bound": packing.position_bits_bound,
    }
    table.add_row("total", *_bits({**total, **bits}))
    return table


def _bits(layer: Mapping[str, Any]) -> tuple[str, ...]:
    bits, bound = layer["position_bits"], layer["position_bits_bound"]
    ratio = f"{bits / bound:.3f}" if bound else ""
    return f"{layer['kept']:,}", f"{layer['weights']:,}", f"{bits:,}", f"{bound:,.0f}", ratio


def _lines(packing: Packing, values: str, before: float, after: float) -> Iterator[str]:
    times = packing.dense_fp32_bytes / packing.bytes
    yield f"{packing.bytes:,} bytes, {times:.1f}x smaller than dense fp32 ({values} values)"
    if packing.zstd_bytes is not None:
        yield (
            f"zstd -19 of the same masked weights: {packing.zstd_bytes:,} bytes, "
            f"{packing.zstd_bytes / packing.bytes:.2f}x as many"
        )
    yield f"largest difference from torch with the same weights: {packing.max_abs_diff:.2g}"
    yield (
        f"test accuracy {100 * after:.2f} %, before {100 * before:.2f} % "
        f"({100 * (after - before):+.2f} points)"
    )
