"""The sparse runtime beside dense engines: real masks, uniform ones, and nearly dense networks.

    python benchmarks/speed.py

Times the networks under experiments/checkpoints/ and VGG16 with uniformly random masks with
`regrow time`'s own measurement (engines in processes of their own, taking turns, outputs compared
first), and writes benchmarks/records/speed.json and the tables in docs/results.md. Needs
onnxruntime and openvino beside regrow and its runtime, a machine with nothing else to do, and about
a quarter of an hour.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import regrow
from regrow.bench.models import resnet20, vgg16_bn
from regrow.bench.timing import Settings, time_network
from regrow.export.deploy import pack
from regrow.model.inventory import inventory, weights_of

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ROOT / "experiments" / "checkpoints"
RECORD = ROOT / "benchmarks" / "records" / "speed.json"
MODELS: dict[str, Callable[[], nn.Module]] = {"resnet20": resnet20, "vgg16": vgg16_bn}
UNIFORM = (0.9639, 0.9, 0.8, 0.5)
ENGINES = ("onnxruntime", "openvino", "torch", "deepsparse")

sys.path.append(str(ROOT / "experiments"))
from tables import replace  # noqa: E402


def networks() -> Iterator[tuple[str, nn.Module]]:
    """Names and networks, in evaluation mode."""
    for checkpoint in sorted(CHECKPOINTS.glob("*.regrow")):
        model = MODELS[checkpoint.stem.partition("-")[0]]()
        regrow.load(model, checkpoint)
        yield f"{checkpoint.stem}, trained", model.eval()
    for sparsity in UNIFORM:
        generator = torch.Generator().manual_seed(0)
        model = vgg16_bn(generator=generator)
        with torch.no_grad():
            for weight in weights_of(model, inventory(model)).values():
                removed = torch.rand(weight.shape, generator=generator) < sparsity
                weight.masked_fill_(removed, 0.0)
        yield f"VGG16, uniformly {100 * sparsity:g} % sparse", model.eval()


def measure(settings: Settings, only: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each network's name and times, as soon as they are there."""
    with tempfile.TemporaryDirectory() as folder:
        for name, model in networks():
            if only not in name:
                continue
            path = Path(folder) / "network.regrow"
            pack(model, path, example=torch.zeros(1, 3, 32, 32))
            print(name, flush=True)
            date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
            yield name, {"date": date, **asdict(time_network(path, settings))}


def cells(timing: dict[str, Any]) -> Iterator[tuple[tuple[int, int], dict[tuple[str, str], float]]]:
    """For threads and batch, the median milliseconds by engine and dtype."""
    found: dict[tuple[int, int], dict[tuple[str, str], float]] = {}
    for row in timing["rows"]:
        if "error" not in row:
            cell = found.setdefault((row["threads"], row["batch"]), {})
            cell[row["engine"], row["dtype"]] = row["median_ms"]
    yield from found.items()


def speeds(record: dict[str, Any]) -> list[str]:
    """One row for each network, number of threads and batch."""
    each = [cell for timing in record["networks"].values() for _, cell in cells(timing)]
    columns = list(dict.fromkeys(key for cell in each for key in cell if key[0] != "regrow"))
    head = ["network", "threads", "batch", "regrow ms"]
    head += [f"{engine} {dtype}" for engine, dtype in columns]
    head += ["best dense fp32 / regrow", "best of all / regrow"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, timing in record["networks"].items():
        for (threads, batch), cell in cells(timing):
            own = cell["regrow", "fp32"]
            dense = {key: ms for key, ms in cell.items() if key[0] not in ("regrow", "deepsparse")}
            fp32 = min(ms for (_, dtype), ms in dense.items() if dtype == "fp32")
            fields = [name, str(threads), str(batch), f"{own:.3g}"]
            fields += [f"{cell[key]:.3g}" if key in cell else "" for key in columns]
            others = [ms for key, ms in cell.items() if key[0] != "regrow"]
            fields += [f"**{fp32 / own:.2f}x**", f"{min(others) / own:.2f}x"]
            lines.append("| " + " | ".join(fields) + " |")
    return lines


def layers(name: str, timing: dict[str, Any], batch: int) -> list[str]:
    """Where one thread's time goes."""
    rows = [row for row in timing["layers"] if (row["threads"], row["batch"]) == (1, batch)]
    total = sum(row["microseconds"] for row in rows)
    lines = [
        f"{name}, batch {batch}, one thread:",
        "",
        "| layer | microseconds | share of the time | GMAC/s of kept weights | share of peak |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        rate = f"{row['gmacs']:.1f} | {row['peak_share']:.0%}" if row["gmacs"] else " | "
        share = row["microseconds"] / total
        lines.append(f"| {row['module']} | {row['microseconds']:.1f} | {share:.0%} | {rate} |")
    return lines


def page(record: dict[str, Any]) -> Iterable[str]:
    first = next(iter(record["networks"].values()))
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    skipped = {
        f"{row['engine']}{' ' + row['dtype'] if row['dtype'] else ''}: {row['reason']}"
        for timing in record["networks"].values()
        for row in timing["skipped"]
    }
    load = max(timing["load"] or 0 for timing in record["networks"].values())
    dates = " and ".join(sorted({timing["date"] for timing in record["networks"].values()}))
    yield f"{first['cpu']}, {first['isa']}, {dates}; {versions}."
    yield f"Milliseconds a call, medians of interleaved calls; load average before: {load:.1f}."
    for reason in sorted(skipped):
        yield f"Left out: {reason}."
    yield ""
    yield from speeds(record)
    for name, timing in record["networks"].items():
        if "trained" in name and timing["layers"]:
            yield ""
            yield from layers(name, timing, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="only the table, from the record")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each engine in each cell")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", default="", metavar="TEXT", help="only networks so named")
    parser.add_argument("--try", dest="attempt", action="store_true", help="keep nothing")
    options = parser.parse_args()
    if not options.table:
        settings = Settings(
            tuple(options.batch), tuple(options.threads), ENGINES, options.seconds, layers=True
        )
        record = {"settings": json.loads(json.dumps(asdict(settings))), "networks": {}}
        old = json.loads(RECORD.read_text())
        if options.only and not options.attempt and old["settings"] != record["settings"]:
            parser.error(f"the record is of {old['settings']}: take those, or --try.")
        if old["settings"] == record["settings"] and not options.attempt:
            record = old
        for name, timing in measure(settings, options.only):
            record["networks"][name] = timing
            if not options.attempt:
                RECORD.write_text(json.dumps(record, indent=1) + "\n")
        if options.attempt:
            print("\n".join(page(record)))
            return
    record = json.loads(RECORD.read_text())
    replace(ROOT / "docs" / "results.md", "speed", "\n".join(page(record)))


if __name__ == "__main__":
    main()
