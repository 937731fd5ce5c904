"""Smaller dense networks in ONNX Runtime: what a cut in multiply-adds is worth in milliseconds.

    python benchmarks/shrink.py
    python benchmarks/shrink.py --folder F --step prepare    # or in parts, with --only NETWORK:
    python benchmarks/shrink.py --folder F --step time
    python benchmarks/shrink.py --folder F --step publish
    python benchmarks/shrink.py --table    # anew, from the record

Removes channels of VGG-16 and ResNet-56 (32 x 32) and ResNet-50 (224 x 224), of each group alike,
down to several counts of multiply-adds, with widths as they come and rounded; or whole residual
branches, of each stage alike, the last of them in part. Times all of them in ONNX Runtime on one
thread at batch 1: sessions take turns, medians count, outputs are compared with PyTorch's first.
Weights are random, for time does not depend on them. Writes benchmarks/records/shrink.json and a
table in docs/results.md; takes about fifteen minutes of a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from resnet50 import resnet50
from torch import Tensor, nn

import regrow
from regrow.bench.environment import processor
from regrow.bench.models import resnet56, vgg16_bn
from regrow.export.onnx import export_onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "experiments"))
from tables import replace  # noqa: E402

PAGE = ROOT / "docs" / "results.md"
# Its class, its input, and layers that stay whole.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "VGG-16, 32 x 32": (vgg16_bn, (1, 3, 32, 32), ()),
    "ResNet-56, 32 x 32": (resnet56, (1, 3, 32, 32), ()),
    "ResNet-56, inside blocks": (resnet56, (1, 3, 32, 32), ("conv1", "layer*.conv2")),
    "ResNet-50, 224 x 224": (resnet50, (1, 3, 224, 224), ()),
}
# What to remove of the multiply-adds, multiples that widths keep, and whether branches leave whole.
CUTS = (
    *((0.1, 1, False), (0.1, 8, False)),
    *((0.5, 1, False), (0.5, 4, False), (0.5, 8, False), (0.5, 16, False)),
    *((0.75, 1, False), (0.75, 8, False)),
    *((0.5, 1, True), (0.5, 16, True), (0.75, 16, True)),
)
SECONDS = 10.0  # of each session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", default="", help="networks whose name holds this text")
    parser.add_argument("--folder", type=Path, help="where files stay between steps")
    parser.add_argument("--step", choices=("prepare", "time", "publish"), help="one of them alone")
    parser.add_argument("--table", action="store_true", help="only the table, from the record")
    given = parser.parse_args()
    if given.table:
        publish("shrink", table)
        return
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    names = [name for name in NETWORKS if given.only in name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names if given.step in (None, "prepare") else ():
            prepare(name, folder)
        for name in names if given.step in (None, "time") else ():
            measure(name, folder)
        if given.step in (None, "publish"):
            report(folder, names)


def report(folder: Path, names: list[str]) -> None:
    """Into the record and the page, if all networks are there; else on the screen."""
    rows = [row for name in names for row in json.loads(rows_of(name, folder).read_text())]
    if len(names) < len(NETWORKS):
        print(json.dumps(rows, indent=1))
        return
    record = {
        "cpu": processor(),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "rows": rows,
    }
    publish("shrink", table, record)


def rows_of(name: str, folder: Path) -> Path:
    return folder / f"{list(NETWORKS).index(name)}.json"


def file_of(name: str, folder: Path, number: int) -> Path:
    return folder / f"{list(NETWORKS).index(name)}-{number}.onnx"


def publish(
    name: str, table: Callable[[dict[str, Any]], str], record: dict[str, Any] | None = None
) -> None:
    """Write a benchmark's record, if there is a new one, and its table in docs/results.md."""
    path = ROOT / "benchmarks" / "records" / f"{name}.json"
    if record is not None:
        path.write_text(json.dumps(record, indent=1) + "\n")
    replace(PAGE, name, table(json.loads(path.read_text())))


def prepare(name: str, folder: Path) -> None:
    """Write a network and smaller ones as ONNX, and what is known of them before they run."""
    build, shape, whole_layers = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build().eval(), torch.randn(shape)
    groups = regrow.groups(model, x, exclude=whole_layers)
    leave = len(groups.needed) < len(groups) and not whole_layers
    rows: list[dict[str, object]] = []
    for sparsity, round_to, whole in ((0.0, 1, False), *CUTS):
        if whole and not leave:
            continue
        try:
            keep = regrow.choose(
                model, groups, sparsity, of="macs", scope="local", round_to=round_to, whole=whole
            )
        except regrow.RegrowError as error:
            print(f"{name}: {error}")
            continue
        small = regrow.shrink(model, x, keep, groups=groups).model
        session(small, x, file_of(name, folder, len(rows)))
        rows.append(
            {
                "network": name,
                "cut": sparsity,
                "round_to": round_to,
                "groups_gone": sum(not mask.any() for mask in keep.values()) if whole else None,
                "macs": groups.macs(keep),
                "parameters": sum(p.numel() for p in small.parameters()),
            }
        )
    rows_of(name, folder).write_text(json.dumps(rows))


def measure(name: str, folder: Path) -> None:
    """Add the milliseconds of a network and of smaller ones."""
    rows = json.loads(rows_of(name, folder).read_text())
    sessions = [opened(file_of(name, folder, number)) for number in range(len(rows))]
    x = torch.randn(NETWORKS[name][1]).numpy()
    for row, times in zip(rows, interleaved(sessions, x), strict=True):
        row["median_ms"] = statistics.median(times)
        row["p10_ms"], row["p90_ms"] = np.percentile(times, [10, 90]).tolist()
    rows_of(name, folder).write_text(json.dumps(rows))


def session(model: nn.Module, x: Tensor, path: Path) -> onnxruntime.InferenceSession:
    """One thread; its output is PyTorch's."""
    export_onnx(model, path, x)
    with torch.no_grad():
        expected = model(x).numpy()
    made = opened(path)
    (found,) = made.run(None, {made.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    return made


def opened(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def interleaved(sessions: list[onnxruntime.InferenceSession], x: np.ndarray) -> list[list[float]]:
    """Milliseconds of calls, session by session in turn."""
    feeds = [{each.get_inputs()[0].name: x} for each in sessions]
    for each, feed in zip(sessions, feeds, strict=True):
        for _ in range(5):
            each.run(None, feed)
    times: list[list[float]] = [[] for _ in sessions]
    end = time.perf_counter() + SECONDS * len(sessions)
    while time.perf_counter() < end:
        for each, feed, into in zip(sessions, feeds, times, strict=True):
            for _ in range(3):
                start = time.perf_counter()
                each.run(None, feed)
                into.append(1e3 * (time.perf_counter() - start))
    return times


def table(record: dict) -> str:
    lines = [
        f"{record['cpu']}, {record['date']}; torch {record['torch']}, onnxruntime "
        f"{record['onnxruntime']}, one thread, batch 1, medians of interleaved calls.",
        "",
        "| network | widths | parameters | multiply-adds | ms | fewer multiply-adds | faster |",
        "|---|---|---|---|---|---|---|",
    ]
    dense: dict = {}
    for row in record["rows"]:
        if not row["cut"]:
            dense = row
        widths = "as they come" if row["round_to"] == 1 else f"multiples of {row['round_to']}"
        widths = widths if row["cut"] else "all"
        if row["groups_gone"] is not None:
            widths = f"whole branches; {widths}"
        fewer, faster = dense["macs"] / row["macs"], dense["median_ms"] / row["median_ms"]
        lines.append(
            f"| {row['network']} | {widths} | {row['parameters'] / 1e6:.2f} M | "
            f"{row['macs'] / 1e6:,.0f} M | {row['median_ms']:.2f} | {fewer:.2f}x | "
            f"**{faster:.2f}x** |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
