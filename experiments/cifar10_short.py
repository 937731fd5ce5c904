"""One short CIFAR-10 run with ResNet-20, start to end: does the whole path work on real images?

    REGROW_DATA=FOLDER python experiments/cifar10_short.py    # about 20 minutes on two cores
    python experiments/cifar10_short.py --table

FOLDER holds cifar-10-batches-bin (`regrow data get cifar10`). The epochs are far too few for the
accuracies to say which method is better; docs/results.md says so beside them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tables import compared, replace

from regrow.bench.config import configure
from regrow.bench.run import run

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "experiments" / "records" / "cifar10-short.json"
SETTINGS = (
    "training.dense_epochs=3",
    "epochs=[2, 2]",
    "sparsity=0.9",
    "overshoot=0.97",
    "training.threads=1",
    "training.compile=auto",  # Too few epochs to earn a compilation on a processor.
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only write the table")
    if not parser.parse_args().table:
        config, task = configure("bidirectional_paper", task="cifar10", seed=0, settings=SETTINGS)
        command = "python experiments/cifar10_short.py"
        record = run(config, task, ROOT / "runs" / "cifar10-short", command=command)
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    group = [json.loads(RECORD.read_text())]
    replace(
        ROOT / "docs" / "results.md",
        "cifar10-short",
        compared([group], (group[0]["recipe"], "one_way")),
    )


if __name__ == "__main__":
    main()
