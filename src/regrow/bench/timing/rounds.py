"""Turns, comparisons and order statistics: what needs no process."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol, TypeVar

import numpy as np

from regrow.bench.timing.process import WorkerFailed
from regrow.bench.timing.source import Floats, Source
from regrow.bench.timing.torch_graph import TorchNetwork, run_numpy

ROUNDS = 10
"""How often the engines take turns; each makes at least as many calls."""
FAR = 1e-3
"""Of the largest output: an fp32 engine that is further from torch computes something else."""
FAR_ROUNDED = 0.2
"""The same in bf16 and int8. Rounding was up to 0.03 in networks of 14 to 57 layers; outputs of
zeros are 1 away, and those of another network about as much. This lies between."""
_MOST = 2000  # calls of a turn

Name = TypeVar("Name", bound=Hashable)


class Turn(Protocol):
    """Makes so many calls in a row and tells the seconds of each."""

    def __call__(self, calls: int) -> list[float]: ...


def interleaved(
    turns: Mapping[Name, Turn], seconds: float, rounds: int = ROUNDS
) -> tuple[dict[Name, list[float]], dict[Name, str]]:
    """Seconds of every timed call by name, and why some have none.

    After a warm-up of three calls each, all take a short turn in every round, so that a change of
    the machine's clock or load meets all alike. Another begins each round.

    Args:
        turns: by name; one that raises WorkerFailed has no further turn.
        seconds: of timed calls each; more where one call takes more than a round's part of it.
        rounds: see above.
    """
    times: dict[Name, list[float]] = {}
    failed: dict[Name, str] = {}
    calls: dict[Name, int] = {}
    for name, turn in turns.items():
        try:
            shortest = min(turn(1) + turn(2))
        except WorkerFailed as failure:
            failed[name] = str(failure)
            continue
        part = seconds / rounds
        calls[name] = _MOST if shortest * _MOST <= part else max(1, round(part / shortest))
        times[name] = []
    names = list(times)
    for number in range(rounds):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            if name in failed:
                continue
            try:
                times[name] += turns[name](calls[name])
            except WorkerFailed as failure:
                failed[name] = str(failure)
                del times[name]
    return times, failed


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Median, 10th and 90th percentile in milliseconds (linear between two), and how many."""
    low, middle, high = np.quantile(np.asarray(seconds) * 1e3, [0.1, 0.5, 0.9])
    return {
        "median_ms": float(middle),
        "p10_ms": float(low),
        "p90_ms": float(high),
        "calls": len(seconds),
    }


def by_module(steps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each module, its steps that follow one another taken together.

    Args:
        steps: module, seconds, multiply_adds and peak_share of each.
    """
    found = []
    for module, each in groupby(steps, lambda step: step["module"]):
        parts = list(each)
        seconds = sum(part["seconds"] for part in parts)
        work = sum(part["multiply_adds"] for part in parts)
        rate = work / seconds / 1e9 if seconds > 0 else 0.0
        reached = sum(part["peak_share"] * part["seconds"] for part in parts)
        found.append(
            {
                "module": module,
                "microseconds": 1e6 * seconds,
                "gmacs": rate,
                "peak_share": reached / seconds if seconds > 0 else 0.0,
            }
        )
    return found


def reference(source: Source, inputs: list[Floats]) -> list[Floats]:
    """What torch computes in fp32, on this process's threads."""
    return run_numpy(TorchNetwork(source), inputs)


def compared(outputs: Sequence[Any], expected: Sequence[Floats], dtype: str) -> dict[str, Any]:
    """The largest difference, alone and over the largest expected value of that output.

    Has an "error" where an engine is off by more than `FAR`, or `FAR_ROUNDED` in bf16 and int8, or
    outputs are of other shapes.
    """
    shapes, wanted = [np.shape(each) for each in outputs], [each.shape for each in expected]
    if shapes != wanted:
        words = f"outputs of shapes {shapes}, torch's are {wanted}"
        return {"max_abs_diff": None, "relative_diff": None, "error": words}
    far = relative = 0.0
    for found, other in zip(outputs, expected, strict=True):
        off = float(np.abs(found.astype(np.float64) - other).max(initial=0.0))
        # A NaN must not lose against a number.
        far = off if np.isnan(off) else max(far, off)
        relative = max(relative, off / (float(np.abs(other).max(initial=0.0)) or 1.0))
    if np.isnan(far):
        words = "outputs are not numbers where torch's are"
        return {"max_abs_diff": None, "relative_diff": None, "error": words}
    told: dict[str, Any] = {"max_abs_diff": far, "relative_diff": relative}
    if relative > (FAR if dtype == "fp32" else FAR_ROUNDED):
        told["error"] = f"outputs are {relative:.2g} of the largest away from torch's"
    return told
