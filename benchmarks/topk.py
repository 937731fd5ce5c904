"""Time and memory of exact selection over many tensors, beside one torch.topk over the same data.

    python benchmarks/topk.py --numel 100000000 --k-fraction 0.05 --repeats 5 --threads 2

One row per shape of the score list and distribution. "regrow" is `count_largest` and then
`largest` for every tensor, masks included; the others are one pass over one flat tensor that
holds the same scores. Memory is the rise of the peak resident size of a fresh process over its
size with the scores in place, in multiples of the bytes of the scores; masks are part of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrow.bench.environment import processor
from regrow.core.topk import count_largest, largest

SHAPES = {"one tensor": 1, "50 uneven": 50}
DISTRIBUTIONS = ("normal", "zeros", "equal")
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def scores_of(distribution: str, numel: int) -> Tensor:
    """Flat float32 scores, made in place so that making them leaves no peak of its own.

    normal: magnitudes of normal weights; zeros: about 95 % exact zeros; equal: all the same.
    """
    flat = torch.empty(numel)
    if distribution == "equal":
        return flat.fill_(0.25)
    flat.normal_(generator=torch.Generator().manual_seed(0)).abs_()
    return flat.sub_(1.96).clamp_(min=0) if distribution == "zeros" else flat


def split(flat: Tensor, parts: int) -> list[Tensor]:
    """Consecutive views whose sizes grow as the cubes, as from biases to wide layers."""
    edges = [flat.numel() * i**3 // parts**3 for i in range(parts + 1)]
    return [flat[a:b] for a, b in itertools.pairwise(edges)]


def select(pieces: list[Tensor], k: int) -> list[Tensor]:
    counts = count_largest(pieces, k)
    return [largest(piece, count) for piece, count in zip(pieces, counts, strict=True)]


def methods(flat: Tensor, pieces: list[Tensor], k: int) -> dict[str, Callable[[], Any]]:
    rank = flat.numel() - k
    return {
        "regrow": lambda: select(pieces, k),
        "torch.topk": lambda: torch.topk(flat, k, sorted=False),
        "torch.kthvalue": lambda: torch.kthvalue(flat, rank + 1),
        "numpy.partition": lambda: np.partition(flat.numpy(), rank),
    }


def peak(distribution: str, parts: int, method: str, numel: int, k: int, threads: int) -> float:
    """Peak extra memory of one method in multiples of the scores; call it in a fresh process."""
    torch.set_num_threads(threads)
    warm = scores_of(distribution, 200_000)
    methods(warm, split(warm, parts), 10_000)[method]()
    flat = scores_of(distribution, numel)
    run = methods(flat, split(flat, parts), k)[method]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = run()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del result
    return (after - before) * MAXRSS_UNIT / (flat.numel() * flat.element_size())


def measure(args: argparse.Namespace, k: int) -> list[dict[str, Any]]:
    """One row per case. Memory goes first: a child inherits the peak of a parent that has grown."""
    cases = [(d, s) for d in DISTRIBUTIONS for s in SHAPES]
    rows: list[dict[str, Any]] = []
    for distribution, shape in cases:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            memory = {
                name: pool.apply(
                    peak, (distribution, SHAPES[shape], name, args.numel, k, args.threads)
                )
                for name in ("regrow", "torch.topk")
            }
        rows.append({"distribution": distribution, "shape": shape, "peak_extra": memory})
    for row in rows:
        flat = scores_of(row["distribution"], args.numel)
        pieces = split(flat, SHAPES[row["shape"]])
        seconds: dict[str, list[float]] = {name: [] for name in methods(flat, pieces, k)}
        for _ in range(args.repeats):
            for name, run in methods(flat, pieces, k).items():
                start = time.perf_counter()
                result = run()
                seconds[name].append(time.perf_counter() - start)
                if name == "regrow" and sum(int(keep.sum()) for keep in result) != k:
                    raise SystemExit(f"regrow did not select exactly {k} scores")
                del result
        row["seconds"] = {name: statistics.median(times) for name, times in seconds.items()}
        fastest = min(row["seconds"]["torch.topk"], row["seconds"]["torch.kthvalue"])
        row["time_over_fastest_torch"] = row["seconds"]["regrow"] / fastest
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["seconds"])
    heads = ["scores", "list", *(f"{n} s" for n in names), "time/best torch", "memory", "topk mem."]
    lines = [heads]
    for row in rows:
        times = [f"{row['seconds'][name]:.3f}" for name in names]
        memory = [f"{row['peak_extra'][name]:.2f}x" for name in ("regrow", "torch.topk")]
        over = f"{row['time_over_fastest_torch']:.2f}x"
        lines.append([row["distribution"], row["shape"], *times, over, *memory])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--numel", type=int, default=20_000_000)
    parser.add_argument("--k-fraction", type=float, default=0.05, help="selected, in [0, 1]")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the record here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    k = max(1, round(args.k_fraction * args.numel))
    machine = {"processor": processor(), "torch": torch.__version__, "threads": args.threads}
    work = {"numel": args.numel, "k": k, "repeats": args.repeats}
    print(", ".join(f"{name} {value}" for name, value in {**machine, **work}.items()))
    rows = measure(args, k)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps({**machine, **work, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
