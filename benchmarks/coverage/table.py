"""The record of `run.py` as a table by family, and every failure by name.

    python benchmarks/coverage/table.py [--record benchmarks/records/coverage.json]

Prints it between markers. Memory is the growth of the resident size during graph and pruning in
multiples of the bytes of the parameters; families of networks below 16 MiB show none, since a
hundred kilobytes of the interpreter's own would be a multiple there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RECORD = Path(__file__).resolve().parents[1] / "records" / "coverage.json"
LARGE = 16 << 20  # bytes
OURS, THEIRS = "regrow", "torch_pruning"
EXAMPLES = "dims"  # the setting of torch-pruning's examples; see with_torch_pruning.py
MARKER = "coverage"
HEAD = (
    "family",
    "networks",
    "regrow",
    "torch-pruning",
    "without the mask check",
    "as in its examples",
    "graph s, regrow",
    "graph s, torch-pruning",
    "memory, regrow",
    "memory, torch-pruning",
    "left %, regrow",
    "left %, torch-pruning",
)

Case = dict[str, Any]


def rows(cases: list[Case]) -> Iterable[list[str]]:
    families: dict[str, list[Case]] = {}
    for case in cases:
        families.setdefault(case["family"], []).append(case)
    for family, members in sorted(families.items()):
        yield row(family, members)
    for library in ("torchvision", "timm", "huggingface"):
        yield row(f"**all {library}**", [c for c in cases if c["name"].startswith(library)])
    yield row("**all**", cases)


def row(label: str, cases: list[Case]) -> list[str]:
    ours, theirs = ([c for c in cases if c["tool"] == tool] for tool in (OURS, THEIRS))
    count = len({c["name"] for c in cases})
    return [
        label,
        str(count),
        done(ours, "success"),
        done(theirs, "success"),
        done(theirs, "success_without_mask_check"),
        done(theirs, "examples"),
        *(median(tool, "graph_seconds") for tool in (ours, theirs)),
        *(memory(tool) for tool in (ours, theirs)),
        *(left(tool) for tool in (ours, theirs)),
    ]


def done(cases: list[Case], key: str) -> str:
    if not cases:
        return ""
    if key == "examples":
        first = [c["attempts"][0] for c in cases]
        return str(sum(a["setting"] == EXAMPLES and a["stage"] == "done" for a in first))
    return str(sum(bool(c[key]) for c in cases))


def median(cases: list[Case], key: str) -> str:
    values = [c[key] for c in cases if key in c]
    return f"{statistics.median(values):.2f}" if values else ""


def memory(cases: list[Case]) -> str:
    values = [
        c["memory_growth"] / c["parameter_bytes"]
        for c in cases
        if c.get("memory_growth") and c["parameter_bytes"] >= LARGE
    ]
    return f"{max(values):.1f}" if values else ""


def left(cases: list[Case]) -> str:
    """The median share of parameters left where the pruning succeeded."""
    shares = [100 * c["parameters_after"] / c["parameters_before"] for c in cases if c["success"]]
    return f"{statistics.median(shares):.0f}" if shares else ""


def failures(cases: list[Case], tool: str) -> Iterable[str]:
    for case in cases:
        if case["tool"] == tool and not case["success"]:
            reason = " ".join(case.get("error", "").split())
            yield f"- `{case['name']}`: {case['stage']}: {reason[:160]}"


def report(cases: list[Case]) -> str:
    parts = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    parts += ["| " + " | ".join(cells) + " |" for cells in rows(cases)]
    for tool in (OURS, THEIRS):
        told = list(failures(cases, tool))
        if told:
            parts += ["", f"{tool} fails on {len(told)}, by the first criterion that fails:", ""]
            parts += told
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", type=Path, default=RECORD)
    cases = json.loads(parser.parse_args().record.read_text())["cases"]
    print(f"<!-- {MARKER}: begin -->\n{report(cases)}\n<!-- {MARKER}: end -->")


if __name__ == "__main__":
    main()
