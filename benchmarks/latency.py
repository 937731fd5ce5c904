"""Time as a budget: what was asked for, what the table promised, and what was then measured.

    python benchmarks/latency.py

Measures a table of layer latencies of each network (PyTorch, one thread, batch 1), removes channels
until the table says half of the time and, beside it, half of the multiply-adds, and times all three
networks in turns, in PyTorch and in ONNX Runtime. Weights are random, for time does not depend on
them. Writes benchmarks/records/latency.json and a table in docs/results.md; takes about five
minutes of a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch
from shrink import NETWORKS, interleaved, publish, session
from torch import Tensor, nn

import regrow
from regrow.bench.environment import processor

CHOSEN = ("VGG-16, 32 x 32", "ResNet-56, 32 x 32", "ResNet-50, 224 x 224")
SECONDS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--table", action="store_true", help="only the table, from the record")
    if parser.parse_args().table:
        publish("latency", table)
        return
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    record = {
        "cpu": processor(),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "rows": [row for name in CHOSEN for row in measure(name)],
    }
    publish("latency", table, record)


def measure(name: str) -> list[dict[str, object]]:
    """The dense network, half of its multiply-adds, and half of its time."""
    build, shape, whole_layers = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build().eval(), torch.randn(shape)
    groups = regrow.groups(model, x, exclude=whole_layers)
    made = regrow.measure_latency(model, x, groups, seconds=SECONDS)
    keeps = {
        "dense": {},
        "half of the multiply-adds": regrow.choose(model, groups, 0.5, of="macs", scope="local"),
        "half of the time": regrow.choose(model, groups, 0.5, of=made, scope="local"),
    }
    networks = [regrow.shrink(model, x, keep, groups=groups).model for keep in keeps.values()]
    with tempfile.TemporaryDirectory() as folder:
        sessions = [
            session(network, x, Path(folder) / f"{number}.onnx")
            for number, network in enumerate(networks)
        ]
        onnx = interleaved(sessions, x.numpy())
    eager = in_turns(networks, x)
    return [
        {
            "network": name,
            "asked": asked,
            "macs": groups.macs(keep),
            "promised_ms": 1e3 * made.seconds(groups, keep),
            "torch_ms": statistics.median(mine),
            "onnxruntime_ms": statistics.median(theirs),
        }
        for (asked, keep), mine, theirs in zip(keeps.items(), eager, onnx, strict=True)
    ]


def in_turns(networks: Sequence[nn.Module], x: Tensor) -> list[list[float]]:
    """Milliseconds of calls in PyTorch, network by network in turn."""
    times: list[list[float]] = [[] for _ in networks]
    end = time.perf_counter() + SECONDS * len(networks)
    with torch.no_grad():
        while time.perf_counter() < end:
            for network, into in zip(networks, times, strict=True):
                start = time.perf_counter()
                network(x)
                into.append(1e3 * (time.perf_counter() - start))
    return [each[3:] for each in times]


def table(record: dict) -> str:
    lines = [
        f"{record['cpu']}, {record['date']}; torch {record['torch']}, onnxruntime "
        f"{record['onnxruntime']}, one thread, batch 1, medians of interleaved calls.",
        "",
        "| network | asked for | multiply-adds | table, ms | PyTorch, ms | of dense | "
        "ONNX Runtime, ms | of dense |",
        "|---|---|---|---|---|---|---|---|",
    ]
    dense: dict = {}
    for row in record["rows"]:
        dense = row if row["asked"] == "dense" else dense
        lines.append(
            f"| {row['network']} | {row['asked']} | {row['macs'] / 1e6:,.0f} M | "
            f"{row['promised_ms']:.2f} | {row['torch_ms']:.2f} | "
            f"{row['torch_ms'] / dense['torch_ms']:.0%} | {row['onnxruntime_ms']:.2f} | "
            f"{row['onnxruntime_ms'] / dense['onnxruntime_ms']:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
