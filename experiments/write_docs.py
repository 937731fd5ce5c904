"""Every table and figure of the docs, written anew from the committed records.

    python experiments/write_docs.py    # or: make docs

Nothing is trained or measured. Where the docs change by it, they were not those of the records, or
of the present way of telling them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ("--table",)
GAPS = (*TABLE, "--partial")  # of a study that was never finished, as the docs say
# By the page that they write into: scripts of one page take turns.
PAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "docs/results.md": (
        ("experiments/compare.py",),
        ("experiments/digits.py", *TABLE),
        ("experiments/cifar10_short.py", *TABLE),
        ("experiments/preset.py", *TABLE),
        *(
            ("experiments/structured.py", *TABLE, "--task", task)
            for task in ("cifar10", "cifar10_small", "digits")
        ),
        ("experiments/speed_tables.py",),
        ("benchmarks/pack.py", *TABLE),
        ("benchmarks/workers.py", *TABLE),
        ("benchmarks/coverage/table.py",),
        ("benchmarks/shrink.py", *TABLE),
        ("benchmarks/latency.py", *TABLE),
        ("benchmarks/speed.py", *TABLE),
        ("benchmarks/threads.py", *TABLE),
        ("benchmarks/events.py", *TABLE),
    ),
    "docs/bidirectional.md": (
        ("experiments/headline/screen.py", *TABLE),
        ("experiments/headline/vgg16_quarter.py", *TABLE),
        ("experiments/headline/vgg16_quarter_long.py", *GAPS),
        ("experiments/headline/resnet20.py", *TABLE),
        ("experiments/headline/evidence.py", *TABLE),
        ("experiments/headline/checkpoints.py", *TABLE),
    ),
    "docs/methods": (
        ("experiments/codeq.py", *TABLE),
        ("experiments/greg.py", *TABLE),
        ("experiments/lookahead.py", *TABLE),
        ("experiments/sparse_training.py", *TABLE),
        ("experiments/woodfisher.py", *TABLE),
    ),
}


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, PAGES))


def write(page: str) -> None:
    for command in PAGES[page]:
        print(f"{page}: {' '.join(command)}", flush=True)
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
