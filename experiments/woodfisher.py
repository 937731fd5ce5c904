"""WoodFisher on a small network, without retraining, and what one of its events costs.

    python experiments/woodfisher.py            # measure both, then write the tables
    python experiments/woodfisher.py --part costs
    python experiments/woodfisher.py --table    # only write the tables from the record

Of a trained digits_cnn, five seeds: one cut to each sparsity, no training afterwards, every arm
from the same weights. The cost is of one event on ResNet-20 and VGG16-BN, each in a process of its
own, with random weights and random images of CIFAR's shape. The record is
experiments/records/woodfisher.json, the tables are in docs/methods/woodfisher.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tables import replace
from torch import Tensor, nn

import regrow
from regrow.bench.data.digits import load_digits
from regrow.bench.environment import environment
from regrow.bench.models import digits_cnn, resnet20, vgg16_bn
from regrow.bench.statistics import standard_deviation
from regrow.core.evidence import InverseFisher
from regrow.model.fisher import chunk_for, fisher_bytes
from regrow.model.inventory import inventory
from regrow.parts.criteria.woodfisher import WoodFisher
from regrow.parts.repair.surgeon import Surgeon

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "experiments" / "records" / "woodfisher.json"
PAGE = ROOT / "docs" / "methods" / "woodfisher.md"
SEEDS = range(5)
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
GRADIENTS, SAMPLES = 400, 2
FISHER: dict[str, Any] = {"gradients": GRADIENTS, "chunk": 128}
ARMS: dict[str, dict[str, Any]] = {
    "magnitude": {"criterion": "magnitude"},
    "fisher diagonal": {"criterion": "saliency"},
    "woodfisher, none": {"criterion": WoodFisher(**FISHER)},
    "woodfisher, single": {"criterion": WoodFisher(**FISHER), "repair": Surgeon(**FISHER)},
    "woodfisher, joint": {
        "criterion": WoodFisher(**FISHER),
        "repair": Surgeon(joint=True, **FISHER),
    },
}
NETWORKS = {"resnet20": resnet20, "vgg16_bn": vgg16_bn}
EVENT: dict[str, Any] = {"gradients": 400, "batch": 2, "sparsity": 0.9}

Batch = tuple[Tensor, Tensor]


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def trained(seed: int) -> tuple[nn.Module, list[Batch]]:
    """digits_cnn after twenty epochs, and its training data in small batches."""
    train = load_digits().train
    source = torch.Generator().manual_seed(seed)
    model = digits_cnn(generator=source)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    steps = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for _ in range(20):
        for part in torch.randperm(len(train), generator=source).split(64):
            loss_fn(model, (train.images[part], train.labels[part])).backward()
            optimizer.step()
            optimizer.zero_grad()
        steps.step()
    order = torch.randperm(len(train), generator=source).split(SAMPLES)
    return model.eval(), [(train.images[part], train.labels[part]) for part in order]


def accuracies() -> list[dict[str, Any]]:
    test = load_digits().test
    rows = []
    for seed in SEEDS:
        model, data = trained(seed)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for sparsity in (0.0, *SPARSITIES):
            for arm, options in ARMS.items() if sparsity else [("dense", None)]:
                model.load_state_dict(state)
                if options is not None:
                    regrow.prune(
                        model, sparsity, loss_fn=loss_fn, data=data, batches=GRADIENTS, **options
                    )
                with torch.no_grad():
                    right = (model(test.images).argmax(1) == test.labels).double().mean()
                found = float(right)
                rows.append({"seed": seed, "sparsity": sparsity, "arm": arm, "accuracy": found})
        print(f"seed {seed}", flush=True)
    return rows


def event(name: str) -> dict[str, Any]:
    """Seconds and peak memory of one cut with repair, in this process."""
    torch.manual_seed(0)
    model = NETWORKS[name](10)
    count, size = EVENT["gradients"], EVENT["batch"]
    data = [(torch.randn(size, 3, 32, 32), torch.randint(0, 10, (size,))) for _ in range(count)]
    entries, how = inventory(model), InverseFisher(count)
    chunk = chunk_for(entries, how)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, used = time.perf_counter(), time.process_time()
    regrow.prune(
        model,
        EVENT["sparsity"],
        criterion=WoodFisher(count),
        repair=Surgeon(gradients=count),
        loss_fn=loss_fn,
        data=data,
    )
    return {
        "network": name,
        "weights": entries.total,
        "chunk": chunk,
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - used,
        "threads": torch.get_num_threads(),
        "estimate_gib": fisher_bytes([entry.numel for entry in entries], chunk) / 2**30,
        "before_gib": before / 2**20,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def costs() -> list[dict[str, Any]]:
    found = []
    for name in NETWORKS:
        command = [sys.executable, __file__, "--event", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(found[-1], flush=True)
    return found


def tables(record: dict[str, Any]) -> None:
    """Write both into the page."""
    rows, here = record["accuracies"], record["environment"]
    dense = [100 * row["accuracy"] for row in rows if row["arm"] == "dense"]
    lines = [
        f"digits_cnn, {len(SEEDS)} seeds, N = {GRADIENTS} gradients of {SAMPLES} images, "
        f"blocks of {FISHER['chunk']}, no "
        f"retraining; dense {sum(dense) / len(dense):.2f} %. Test accuracy %, mean ± sd; "
        f"{here['processor']}, torch {here['torch']}, {here['date']}.",
        "",
        "| arm | " + " | ".join(f"{100 * s:.0f} %" for s in SPARSITIES) + " |",
        "|---" * (len(SPARSITIES) + 1) + "|",
    ]
    for arm in ARMS:
        cells = []
        for sparsity in SPARSITIES:
            seen = [
                100 * row["accuracy"]
                for row in rows
                if (row["arm"], row["sparsity"]) == (arm, sparsity)
            ]
            cells.append(f"{sum(seen) / len(seen):.2f} ± {standard_deviation(seen) or 0:.2f}")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    replace(PAGE, "accuracies", "\n".join(lines))
    lines = [
        "| network | weights | chunk | seconds | of processor time | threads | estimate, GiB | "
        "peak, GiB | before, GiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['network']} | {row['weights']:,} | {row['chunk']} | {row['seconds']:.0f} | "
        f"{row['processor_seconds']:.0f} | {row['threads']} | {row['estimate_gib']:.2f} | "
        f"{row['peak_gib']:.2f} | {row['before_gib']:.2f} |"
        for row in record["costs"]
    ]
    replace(PAGE, "costs", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only write the tables")
    parser.add_argument("--part", choices=("accuracies", "costs"), help="measure only this")
    parser.add_argument("--event", choices=NETWORKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.event:
        print(json.dumps(event(arguments.event)))
        return
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if not arguments.table:
        for part, measure in (("accuracies", accuracies), ("costs", costs)):
            if arguments.part in (None, part):
                record[part] = measure()
        record["environment"] = environment("cpu", "fp32")
        RECORD.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    if {"accuracies", "costs"} <= record.keys():
        tables(record)


if __name__ == "__main__":
    main()
