"""The speed and memory tables of docs/results.md, from the records of the benchmarks.

python benchmarks/topk.py --numel 100000000 --repeats 3 --json benchmarks/records/topk.json
python benchmarks/projection.py --threads 2 --steps 31 --json benchmarks/records/projection.json
python experiments/speed_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tables import replace

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"


def topk(record: dict[str, Any]) -> str:
    """Exact selection against torch, time and peak memory."""
    names = ("regrow", "torch.topk", "torch.kthvalue", "numpy.partition")
    lines = [
        f"{record['numel']:,} float32 scores, k = {record['k']:,}; medians of "
        f"{record['repeats']}, interleaved; {record['processor']}, {record['threads']} threads, "
        f"torch {record['torch']}.",
        "",
        "| scores | list | regrow s | topk s | kthvalue s | numpy.partition s | "
        "regrow / best torch | peak extra memory / scores (topk) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        times = " | ".join(f"{row['seconds'][name]:.3f}" for name in names)
        peak = row["peak_extra"]
        lines.append(
            f"| {row['distribution']} | {row['shape']} | {times} | "
            f"{row['time_over_fastest_torch']:.2f}x | "
            f"{peak['regrow']:.2f}x ({peak['torch.topk']:.2f}x) |"
        )
    return "\n".join(lines)


def projection(record: dict[str, Any]) -> str:
    """What an attached program adds to a training step, and an event to an epoch."""
    hardware = record["hardware"]
    rows = (
        ("training step without regrow, ms", "plain_step_ms", "{:.1f}"),
        ("step with / without, median of interleaved pairs", "step_ratio", "{:.3f}"),
        ("projection and bookkeeping alone / step", "hook_share", "{:.2%}"),
        ("LAMP event / epoch of 391 steps", "event_share_of_epoch", "{:.2%}"),
        ("event with gradients of 64 batches / epoch", "gradient_event_share_of_epoch", "{:.1%}"),
        ("mask bytes per weight", "mask_bytes_per_weight", "{:.3f}"),
    )
    lines = [
        f"{record['network']}, batch {record['batch']}, {record['steps']} pairs of steps; "
        f"{hardware['device']}, {hardware['threads']} threads, torch "
        f"{record['versions']['torch']}.",
        "",
        "| | fp32 | bf16, channels last |",
        "|---|---|---|",
    ]
    for label, key, form in rows:
        shown = [form.format(record["precisions"][p][key]) for p in ("fp32", "bf16")]
        lines.append(f"| {label} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    for name, table in (("topk", topk), ("projection", projection)):
        record = json.loads((ROOT / "benchmarks" / "records" / f"{name}.json").read_text())
        replace(PAGE, name, table(record))


if __name__ == "__main__":
    main()
