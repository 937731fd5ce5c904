"""Run directories made up for the tests of the report, and a reader of its page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from regrow.bench.report import write_report

LAYERS = {"conv1": (8, 1, 3, 3), "conv2": (16, 8, 3, 3), "fc": (10, 64)}
TOTAL = 72 + 1152 + 640
VOID = {"meta", "br", "path", "use"}


@dataclass
class Page(HTMLParser):
    """Every table as rows of text, the running text, and all that the page refers to."""

    tables: list[list[list[str]]] = field(default_factory=list)
    text: str = ""
    references: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    headline: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}:
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        elif tag == "span" and {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        data = plain(data)
        self.text += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data
        if "h2" in self._open:
            self.headline += data


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NON-BREAKING HYPHEN}", "-")


def fake_run(
    root: Path,
    seed: int = 0,
    *,
    kept: int = 56,
    accuracies: dict[str, float] | None = None,
    recipe: str = "bidirectional",
    history: bool = True,
    change: dict[str, dict[str, Any]] | None = None,
    **fields: Any,
) -> Path:
    """One run directory; `change` overrides fields of arms, `fields` those of the record."""
    accuracies = accuracies or {"dense": 0.98, recipe: 0.95, "one_way": 0.94}
    arms, courses = {}, {}
    for name, accuracy in accuracies.items():
        left = TOTAL if name == "dense" else kept
        phases = {"dense": 3} if name == "dense" else {"dense": 3, "fine_tune": 8}
        epochs = {**phases, "total": sum(phases.values())}
        arms[name] = {
            "recipe": name,
            "seed": seed,
            "sparsity": 1 - left / TOTAL,
            "density_denominator": "convolution and linear weights",
            "kept": left,
            "total": TOTAL,
            "test_accuracy": accuracy,
            "validation_accuracy": accuracy + 0.01,
            "epochs": epochs,
            "steps": {key: 12 * value for key, value in epochs.items()},
            "seconds": 12.5 + seed,
            "file_bytes": 7600 if name == "dense" else 400 + kept,
            "dense_bytes": 7600,
            **(change or {}).get(name, {}),
        }
        courses[name] = fake_history(kept, name, recipe)
    record = {
        "schema": 1,
        "task": "digits",
        "model": "digits_cnn",
        "recipe": recipe,
        "seed": seed,
        "environment": {"regrow": "0.1.0", "threads": 2, "date": f"2025-01-0{seed + 1}"},
        "command": f"regrow run digits --seed {seed}",
        "arms": arms,
        **fields,
    }
    path = root / f"{recipe}-{kept}-{seed}"
    path.mkdir(parents=True)
    (path / "record.json").write_text(json.dumps(record), encoding="utf-8")
    if history:
        text = json.dumps({"schema": 1, "arms": courses})
        (path / "history.json").write_text(text, encoding="utf-8")
    return path


def fake_history(kept: int, name: str, recipe: str) -> dict[str, Any]:
    if name == "dense":
        first, sparsities, events = 1, [0.0] * 3, []
    else:
        whole = [72, 1152, 640]
        low = [kept // 8, kept // 8, kept // 4]
        end = [kept // 4, kept // 4, kept - 2 * (kept // 4)]
        returns = name == recipe and recipe == "bidirectional"
        events = [fake_event(0, "prune", whole, low if returns else end)]
        events += [fake_event(4, "regrow", low, end)] if returns else []
        first, sparsities = 1, [events[0]["sparsity"]] * 4 + [events[-1]["sparsity"]] * 4
    epochs = [
        {"epoch": first + i, "phase": "any", "sparsity": s, "validation_accuracy": 0.9 + i / 100}
        for i, s in enumerate(sparsities)
    ]
    return {"epochs": epochs, "events": events}


def fake_event(epoch: int, kind: str, before: Sequence[int], after: Sequence[int]) -> dict:
    layers = [
        {
            "name": name,
            "shape": list(shape),
            "total": int(np.prod(shape)),
            "kept_before": b,
            "kept": a,
            "pruned": max(0, b - a),
            "regrown": max(0, a - b),
        }
        for (name, shape), b, a in zip(LAYERS.items(), before, after, strict=True)
    ]
    kept = sum(after)
    ends = {"sparsity": 1 - kept / TOTAL, "kept": kept, "total": TOTAL}
    return {"epoch": epoch, "step": 12 * epoch, "kind": kind, **ends, "layers": layers}


def report(runs: Sequence[Path], out: Path, command: str = "regrow report runs") -> Page:
    page = Page()
    page.feed(write_report(runs, out, command=command).read_text(encoding="utf-8"))
    page.close()
    return page
