"""Smaller dense networks in ONNX Runtime: what a cut in multiply-adds is worth in milliseconds.

    python benchmarks/shrink.py

Removes channels of VGG-16 and ResNet-56 (32 x 32) and ResNet-50 (224 x 224), of each group alike,
down to several counts of multiply-adds, with widths as they come and rounded, and times all of them
in ONNX Runtime on one thread at batch 1: sessions take turns, medians count, outputs are compared
with PyTorch's first. Weights are random, for time does not depend on them. Writes
benchmarks/records/shrink.json and a table in docs/results.md; takes about ten minutes of a machine
with nothing else to do.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from resnet50 import resnet50
from torch import Tensor, nn

import regrow
from regrow.bench.environment import processor
from regrow.bench.models import resnet56, vgg16_bn

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
# Its class, its input, and layers that stay whole.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "VGG-16, 32 x 32": (vgg16_bn, (1, 3, 32, 32), ()),
    "ResNet-56, 32 x 32": (resnet56, (1, 3, 32, 32), ()),
    "ResNet-56, inside blocks": (resnet56, (1, 3, 32, 32), ("conv1", "layer*.conv2")),
    "ResNet-50, 224 x 224": (resnet50, (1, 3, 224, 224), ()),
}
CUTS = ((0.1, 1), (0.1, 8), (0.5, 1), (0.5, 4), (0.5, 8), (0.5, 16), (0.75, 1), (0.75, 8))
SECONDS = 12.0  # of each session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", default="", help="networks whose name holds this text")
    only = parser.parse_args().only
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    rows = [row for name in NETWORKS if only in name for row in measure(name)]
    if only:
        print(json.dumps(rows, indent=1))
        return
    record = {
        "cpu": processor(),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "rows": rows,
    }
    publish("shrink", record, table(record))


def publish(name: str, record: dict[str, object], table: str) -> None:
    """Write a benchmark's record, and its table between its marks in docs/results.md."""
    path = ROOT / "benchmarks" / "records" / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = PAGE.read_text()
    before, after = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n{table}\n{end}{after}")


def measure(name: str) -> list[dict[str, object]]:
    """Milliseconds of a network and of smaller ones."""
    build, shape, whole_layers = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build().eval(), torch.randn(shape)
    groups = regrow.groups(model, x, exclude=whole_layers)
    whole = groups.macs()
    rows: list[dict[str, object]] = [
        {
            "network": name,
            "cut": 0.0,
            "round_to": 1,
            "macs": whole,
            "parameters": groups.parameters(),
        }
    ]
    with tempfile.TemporaryDirectory() as folder:
        sessions = [session(model, x, Path(folder) / "dense.onnx")]
        for sparsity, round_to in CUTS:
            try:
                keep = regrow.choose(
                    model, groups, sparsity, of="macs", scope="local", round_to=round_to
                )
            except regrow.RegrowError as error:
                print(f"{name}: {error}")
                continue
            small = regrow.shrink(model, x, keep, groups=groups).model
            sessions.append(session(small, x, Path(folder) / f"{len(sessions)}.onnx"))
            count = sum(p.numel() for p in small.parameters())
            rows.append(
                {
                    "network": name,
                    "cut": sparsity,
                    "round_to": round_to,
                    "macs": groups.macs(keep),
                    "parameters": count,
                }
            )
        for row, times in zip(rows, interleaved(sessions, x.numpy()), strict=True):
            row["median_ms"] = statistics.median(times)
            row["p10_ms"], row["p90_ms"] = np.percentile(times, [10, 90]).tolist()
    return rows


def session(model: nn.Module, x: Tensor, path: Path) -> onnxruntime.InferenceSession:
    """One thread; its output is PyTorch's."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
        expected = model(x).numpy()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    made = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (found,) = made.run(None, {made.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    return made


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
        widths = "all" if not row["cut"] else f"multiples of {row['round_to']}"
        widths = "as they come" if row["cut"] and row["round_to"] == 1 else widths
        fewer, faster = dense["macs"] / row["macs"], dense["median_ms"] / row["median_ms"]
        lines.append(
            f"| {row['network']} | {widths} | {row['parameters'] / 1e6:.2f} M | "
            f"{row['macs'] / 1e6:,.0f} M | {row['median_ms']:.2f} | {fewer:.2f}x | "
            f"**{faster:.2f}x** |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
