"""How small the committed checkpoints get, at which loss of accuracy, beside zstd.

    REGROW_DATA=FOLDER python benchmarks/pack.py

Packs every network under experiments/checkpoints/ in every precision with `regrow pack`, times the
reading of each file (the median of several, one core), and writes benchmarks/records/pack.json and
the table in docs/results.md. FOLDER holds cifar-10-batches-bin (`regrow data get cifar10`).
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from regrow.bench.environment import processor
from regrow_runtime.file import read

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ROOT / "experiments" / "checkpoints"
RECORD = ROOT / "benchmarks" / "records" / "pack.json"
MODELS = {"resnet20": "resnet20", "vgg16": "vgg16_bn"}
READS = 9

sys.path.append(str(ROOT / "experiments"))
from tables import replace  # noqa: E402


def packed(checkpoint: Path, values: str, folder: Path) -> dict[str, Any]:
    """What `regrow pack --json` tells, and the seconds of reading the file."""
    out = folder / f"{checkpoint.stem}-{values}.regrow"
    model = MODELS[checkpoint.stem.partition("-")[0]]
    command = [sys.executable, "-m", "regrow", "pack", str(checkpoint), "--values", values]
    command += ["--task", "cifar10", "--model", model, "-o", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    times = []
    for _ in range(READS):
        start = time.perf_counter()
        read(out)
        times.append(time.perf_counter() - start)
    return {**json.loads(done.stdout), "read_seconds": statistics.median(times)}


def row(name: str, told: dict[str, Any]) -> str:
    loss = 100 * (told["test_accuracy_before"] - told["test_accuracy"])
    cells = [
        name,
        told["values"],
        f"{told['bytes']:,}",
        f"{told['dense_fp32_bytes'] / told['bytes']:.1f}x",
        f"{told['zstd_bytes'] / told['bytes']:.2f}x",
        f"{told['position_bits'] / told['position_bits_bound']:.3f}",
        f"{loss:+.2f}",
        f"{told['read_seconds']:.3f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="only the table, from the record")
    if not parser.parse_args().table:
        measure()
    record = json.loads(RECORD.read_text())
    lines = [
        f"{record['processor']}, {record['date']}.",
        "",
        "| network | values | bytes | smaller than dense fp32 | zstd -19 of the same has | "
        "position bits / log2 C(n, k) | points of accuracy lost | seconds to read |",
        "|---|---|---|---|---|---|---|---|",
        *(row(told["checkpoint"], told) for told in record["results"]),
    ]
    replace(ROOT / "docs" / "results.md", "pack", "\n".join(lines))


def measure() -> None:
    found = sorted(CHECKPOINTS.glob("*.regrow"))
    with tempfile.TemporaryDirectory() as folder:
        results = [
            {"checkpoint": checkpoint.stem, **packed(checkpoint, values, Path(folder))}
            for checkpoint in found
            for values in ("fp32", "fp16", "bf16", "int8")
        ]
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    record = {"processor": processor(), "date": date, "results": results}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
