"""The record of `run.py` as tables: sums by part, every family, and every failure by name.

    python benchmarks/coverage/table.py [--record benchmarks/records/coverage.json] [--families]

Writes the networks that both tools ran, part by part, and what failed, into docs/results.md; with
--families, prints a row for every family. Graph seconds are medians; "without trial" is regrow's
graph without the trial of a cut, which the other tool's has not either. Memory is the growth of the
resident size during graph and pruning in multiples of the bytes of the parameters; networks below
16 MiB do not count, since some megabytes of code compiled for new shapes would be a multiple there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "experiments"))
from tables import replace  # noqa: E402

RECORD = ROOT / "benchmarks" / "records" / "coverage.json"
LARGE = 16 << 20  # bytes
MOST = 3  # times the parameters, the goal
OURS, THEIRS = "regrow", "torch_pruning"
EXAMPLES = "dims"  # the setting of torch-pruning's examples; see with_torch_pruning.py
MARKER = "coverage"
HEAD = (
    "networks",
    "number",
    "regrow",
    "torch-pruning",
    "without the mask check",
    "as in its examples",
    "graph s, regrow",
    "without trial",
    "graph s, torch-pruning",
    "memory, regrow",
    "memory, torch-pruning",
    "left %, regrow",
    "left %, torch-pruning",
)
SEGMENTATION = ("fcn", "deeplabv3", "lraspp")

Case = dict[str, Any]


def part(case: Case) -> str:
    """The part of a library that a network belongs to."""
    library, _, name = case["name"].partition("/")
    if library != "torchvision":
        return library
    if case["family"].startswith("torchvision video"):
        return "torchvision, video"
    kind = "segmentation" if name.startswith(SEGMENTATION) else "classification"
    return f"torchvision, {kind}"


def rows(cases: list[Case], families: bool) -> Iterable[list[str]]:
    parts: dict[str, list[Case]] = {}
    for case in cases:
        parts.setdefault(case["family"] if families else part(case), []).append(case)
    for label, members in sorted(parts.items()):
        yield row(label, members)
    yield row("**all**", cases)


def row(label: str, cases: list[Case]) -> list[str]:
    ours, theirs = ([c for c in cases if c["tool"] == tool] for tool in (OURS, THEIRS))
    return [
        label,
        str(len({c["name"] for c in cases})),
        done(ours, "success"),
        done(theirs, "success"),
        done(theirs, "success_without_mask_check"),
        done(theirs, "examples"),
        median(ours, "graph_seconds"),
        median(ours, "untried_seconds"),
        median(theirs, "graph_seconds"),
        *(memory(tool) for tool in (ours, theirs)),
        *(left(tool) for tool in (ours, theirs)),
    ]


def done(cases: list[Case], key: str) -> str:
    """How many, of how many that ran."""
    if not cases:
        return ""
    count = sum(bool(c.get(key)) for c in cases)
    if key == "examples":
        first = [c.get("attempts", [c])[0] for c in cases]
        count = sum(a["setting"] == EXAMPLES and a["stage"] == "done" for a in first)
    return f"{count} of {len(cases)}"


def median(cases: list[Case], key: str) -> str:
    values = [c[key] for c in cases if key in c]
    return f"{statistics.median(values):.2f}" if values else ""


def memory(cases: list[Case]) -> str:
    """Median and most."""
    values = [times(c, "memory_growth") for c in large(cases) if c.get("memory_growth")]
    return f"{statistics.median(values):.1f}, at most {max(values):.1f}" if values else ""


def large(cases: list[Case]) -> list[Case]:
    return [c for c in cases if c.get("parameter_bytes", 0) >= LARGE]


def times(case: Case, key: str) -> float:
    """A growth in multiples of the parameters' bytes."""
    return float(case[key] / case["parameter_bytes"])


def heaviest(cases: list[Case]) -> list[str]:
    """For which networks regrow took more than `MOST` times the parameters."""
    ours = [c for c in large(cases) if c["tool"] == OURS and "run_growth" in c]
    if not ours:
        return []
    above = [c for c in ours if times(c, "memory_growth") > MOST]
    above.sort(key=lambda c: -times(c, "memory_growth"))
    listed = ", ".join(
        f"`{c['name']}` {times(c, 'memory_growth'):.1f} ({times(c, 'run_growth'):.1f})"
        for c in above
    )
    beyond = max(times(c, "memory_growth") - times(c, "run_growth") for c in ours)
    told = (
        f"Of {len(ours)} networks of 16 MiB and more, {len(above)} took more than {MOST} times "
        f"their parameters' bytes"
    )
    told += f" (one run of the network itself, in brackets): {listed}." if above else "."
    return [f"{told} Beyond a run of the network, regrow took {beyond:.1f} times at most."]


def left(cases: list[Case]) -> str:
    """The median share of parameters left where the pruning succeeded."""
    shares = [100 * c["parameters_after"] / c["parameters_before"] for c in cases if c["success"]]
    return f"{statistics.median(shares):.0f}" if shares else ""


def both(cases: list[Case], networks: int) -> list[str]:
    """Ratios over the networks whose graph both tools found, and what did not run.

    Those that `run.py --graphs` measured anew count alone, if there are any.
    """
    named: dict[str, dict[str, Case]] = {}
    for case in cases:
        named.setdefault(case["name"], {})[case["tool"]] = case
    pairs = [
        (each[OURS], each[THEIRS])
        for each in named.values()
        if len(each) == 2 and all("graph_seconds" in c for c in each.values())
    ]
    pairs = [each for each in pairs if all(c.get("anew") for c in each)] or pairs
    told = []
    if pairs:
        whole, untried = (
            statistics.median(ours[key] / theirs["graph_seconds"] for ours, theirs in pairs)
            for key in ("graph_seconds", "untried_seconds")
        )
        told.append(
            f"Over {len(pairs)} networks whose graph both found, regrow's takes {whole:.1f} "
            f"times as long as torch-pruning's in the median, {untried:.1f} times without trial."
        )
    for tool in (OURS, THEIRS):
        ran = sum(tool in each for each in named.values())
        if ran < networks:
            told.append(
                f"{networks - ran} of {networks} did not run with {tool}, for want of time."
            )
    return told


def failures(cases: list[Case], tool: str) -> Iterable[str]:
    for case in cases:
        if case["tool"] == tool and not case["success"]:
            reason = " ".join(case.get("error", "").split())
            if case.get("units") == 0 and case.get("refused"):
                counts = Counter(why.partition(" in ")[0] for why in case["refused"].values())
                listed = ", ".join(f"{why} ({n})" for why, n in counts.most_common(4))
                reason = f"every layer is refused by name: {listed}"
            yield f"- `{case['name']}`: {case['stage']}: {reason[:160]}"


def table(cases: list[Case], families: bool) -> list[str]:
    parts = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    return parts + ["| " + " | ".join(cells) + " |" for cells in rows(cases, families)]


def report(cases: list[Case], networks: int, families: bool) -> str:
    parts = table(cases, families)
    for line in (*both(cases, networks), *heaviest(cases)):
        parts += ["", line]
    for tool in (OURS, THEIRS):
        told = list(failures(cases, tool))
        if told:
            parts += ["", f"{tool} fails on {len(told)}, by the first criterion that fails:", ""]
            parts += told
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--families", action="store_true", help="a row for every family")
    arguments = parser.parse_args()
    record = json.loads(arguments.record.read_text())
    told = report(record["cases"], record["networks"], arguments.families)
    if arguments.families:
        print(told)
    else:
        replace(ROOT / "docs" / "results.md", MARKER, told)


if __name__ == "__main__":
    main()
