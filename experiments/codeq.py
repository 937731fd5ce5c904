"""CoDeQ on digits: accuracy beside bit-operations, and beside pruning first and rounding after.

    python experiments/codeq.py            # run what is missing, then write figure and tables
    python experiments/codeq.py --table    # only write them from the record

Of a trained digits_cnn, three seeds, every arm from the same weights of its seed and with the same
epochs, each at three learning rates of which validation data choose:

- `codeq` at 4 bits with the dead zone's decay from 0 to 4; with 2, 3 and 8 bits at one decay; and
  with learned bits;
- `gradual`: a ramp by magnitude to the very sparsity that each codeq network of 4 bits reached, in
  full precision; and the same networks with every layer rounded to 4 bits afterwards, at the scale
  of least squared error.

And what a step costs more, on ResNet-20 and VGG16-BN (`--part costs`). Cells are trained once in
runs/codeq; the record is experiments/records/codeq.json, figure and tables are of
docs/methods/codeq.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import tables
import torch
from torch import Tensor, nn

import regrow
from regrow.bench.arm import initial
from regrow.bench.cells import Cell
from regrow.bench.environment import environment
from regrow.bench.models import resnet20, vgg16_bn
from regrow.bench.statistics import paired_difference, standard_deviation
from regrow.bench.store import Store
from regrow.bench.tasks import checked_splits, find_task
from regrow.export.deploy import pack
from regrow.model.inventory import inventory, weights_of

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "experiments" / "records" / "codeq.json"
PAGE = ROOT / "docs" / "methods" / "codeq.md"
FIGURE = ROOT / "docs" / "img" / "codeq.svg"
SEEDS, EPOCHS, RATES = range(3), 20, (1.0, 0.5, 2.0)
DECAYS = (0.0, 0.3, 1.0, 2.0, 3.0, 4.0)
NETWORKS = {"resnet20": resnet20, "vgg16_bn": vgg16_bn}

TASK = find_task("digits")
TRAINING = replace(TASK.training, dense_epochs=20, fine_tune_epochs=EPOCHS)
ARMS: dict[str, dict[str, Any]] = {
    **{f"4 bits, decay {decay:g}": {"bits": 4, "decay": decay} for decay in DECAYS},
    **{f"{bits} bits, decay 1": {"bits": bits, "decay": 1.0} for bits in (2, 3, 8)},
    **{
        f"learned bits, decay 1, bits' decay {decay:g}": {
            "bits": 8, "learn_bits": True, "decay": 1.0, "bits_decay": decay,
        }
        for decay in (0.0, 1.0, 2.0)
    },
}  # fmt: skip


def trained(store: Store, seed: int, program: Any) -> tuple[Cell, dict[str, Any]]:
    """The cell of the learning rate that validation data choose, and its record."""
    found = []
    for rate in RATES:
        lr = rate * TRAINING.fine_tune_lr
        cell = Cell(TASK, "digits_cnn", seed, TRAINING, program, lr=lr)
        found.append((cell, store.finish(cell)))
    return max(found, key=lambda each: each[1]["result"]["validation_accuracy"])


def rounded(weight: Tensor, bits: int) -> Tensor:
    """To the equal steps of a symmetric grid, at the scale of least squared error."""
    top = 2 ** (bits - 1) - 1
    tried = weight.abs().max() / top * torch.linspace(0.3, 1, 71)
    grids = [(weight / scale).round().clamp(-top, top) * scale for scale in tried]
    return min(grids, key=lambda each: float(((weight - each) ** 2).sum()))


def network(state: dict[str, Tensor], seed: int) -> nn.Module:
    model = initial(TASK, "digits_cnn", seed)()
    model.load_state_dict(state)
    return model.eval()


def measured(model: nn.Module, bits: dict[str, int] | None, data: Any) -> dict[str, Any]:
    """Accuracy on test images, bit-operations relative to the dense network's, packed bytes."""
    with torch.no_grad():
        right = (model(data.images).argmax(1) == data.labels).double().mean()
    counts = regrow.inspect(model, example=data.images[:1])
    operations, dense = counts.bit_operations(bits), counts.bit_operations(dense=True)
    assert operations is not None
    assert dense is not None
    with tempfile.TemporaryDirectory() as folder:
        packing = pack(model, Path(folder) / "m.regrow", data.images[:8], zstd=False)
    return {
        "accuracy": float(right),
        "sparsity": counts.sparsity,
        "operations": operations / dense,
        "bytes": packing.bytes,
        "dense_bytes": packing.dense_fp32_bytes,
    }


def rows(store: Store) -> Iterator[dict[str, Any]]:
    test = checked_splits(TASK, None).test
    for seed in SEEDS:
        dense = Cell(TASK, "digits_cnn", seed, TRAINING, name="dense")
        store.finish(dense)
        model = network(store.state(dense)[0], seed)
        yield {"arm": "dense", "seed": seed, **measured(model, None, test)}
        for arm, options in ARMS.items():
            cell, record = trained(store, seed, regrow.recipes.codeq(EPOCHS, **options))
            told = record["events"][-1]["bits"]
            model = network(store.state(cell)[0], seed)
            mean = statistics.fmean(told.values())
            yield {"arm": arm, "seed": seed, "bits": mean, **measured(model, told, test)}
            if options["bits"] != 4:
                continue
            ramp = regrow.recipes.gradual(
                record["result"]["sparsity"], EPOCHS, criterion="magnitude", seed=seed
            )
            cell, record = trained(store, seed, ramp)
            model = network(store.state(cell)[0], seed)
            decay = options["decay"]
            yield {
                "arm": f"gradual beside decay {decay:g}", "seed": seed, "bits": 32,
                **measured(model, None, test),
            }  # fmt: skip
            with torch.no_grad():
                for weight in weights_of(model, inventory(model)).values():
                    weight.copy_(rounded(weight, 4))
            few = {entry.name: 4 for entry in inventory(model)}
            yield {
                "arm": f"gradual, rounded, beside decay {decay:g}", "seed": seed, "bits": 4,
                **measured(model, few, test),
            }  # fmt: skip


def cost(name: str) -> dict[str, Any]:
    """Milliseconds of a training step with and without, in turns, and bytes kept beside."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))

    def made(program: Any) -> Any:
        model = NETWORKS[name](10).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        if program is not None:
            regrow.attach(model, optimizer, program)

        def step() -> float:
            began = time.perf_counter()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            return time.perf_counter() - began

        return step, sum(p.numel() for p in model.parameters())

    (plain, count), (ours, _) = made(None), made(regrow.recipes.codeq(10))
    turns = [(plain(), ours()) for _ in range(12)][2:]
    before, after = (1000 * statistics.median(each) for each in zip(*turns, strict=True))
    return {"network": name, "plain_ms": before, "codeq_ms": after, "parameters": count}


def mean(found: list[dict[str, Any]], arm: str, key: str) -> float:
    return statistics.fmean(row[key] for row in found if row["arm"] == arm)


def accuracies(found: list[dict[str, Any]], arm: str) -> dict[int, float]:
    return {row["seed"]: 100 * row["accuracy"] for row in found if row["arm"] == arm}


def told(found: list[dict[str, Any]], arm: str) -> str:
    values = accuracies(found, arm).values()
    return f"{statistics.fmean(values):.2f} ± {standard_deviation(values) or 0:.2f}"


def beside(found: list[dict[str, Any]], arm: str, other: str) -> str:
    gap = paired_difference(accuracies(found, arm), accuracies(found, other))
    return f"{gap.mean:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})"


def write(record: dict[str, Any]) -> None:
    found, here = record["rows"], record["environment"]
    lines = [
        "| arm | sparsity | bits | bit-operations | bytes, packed | test accuracy, % |",
        "|---|---|---|---|---|---|",
        f"| dense | 0 % | 32 | 100 % | {mean(found, 'dense', 'bytes'):,.0f} | "
        f"{told(found, 'dense')} |",
    ]
    for arm in ARMS:
        lines.append(
            f"| {arm} | {mean(found, arm, 'sparsity'):.1%} | {mean(found, arm, 'bits'):.1f} | "
            f"{mean(found, arm, 'operations'):.2%} | {mean(found, arm, 'bytes'):,.0f} | "
            f"{told(found, arm)} |"
        )
    lines += [
        "",
        f"digits_cnn, {len(SEEDS)} seeds, 20 + {EPOCHS} epochs; {here['processor']}, 1 thread, "
        f"torch {here['torch']}, {here['date']}.",
    ]
    tables.replace(PAGE, "codeq", "\n".join(lines))
    lines = [
        "| decay | sparsity | codeq, 4 bits | ramp, 32 bits | ramp, then rounded to 4 bits | "
        "codeq minus ramp | codeq minus rounded |",
        "|---|---|---|---|---|---|---|",
    ]
    for decay in DECAYS:
        ours, ramp = f"4 bits, decay {decay:g}", f"gradual beside decay {decay:g}"
        cut = f"gradual, rounded, beside decay {decay:g}"
        lines.append(
            f"| {decay:g} | {mean(found, ours, 'sparsity'):.1%} | {told(found, ours)} | "
            f"{told(found, ramp)} | {told(found, cut)} | {beside(found, ours, ramp)} | "
            f"{beside(found, ours, cut)} |"
        )
    tables.replace(PAGE, "codeq-beside", "\n".join(lines))
    draw(found)
    if record.get("costs"):
        lines = [
            "| network | step without, ms | with, ms | times |",
            "|---|---|---|---|",
            *(
                f"| {each['network']} | {each['plain_ms']:.0f} | {each['codeq_ms']:.0f} | "
                f"{each['codeq_ms'] / each['plain_ms']:.2f} |"
                for each in record["costs"]
            ),
            "",
            f"Batch 64 of 32 x 32 images, fp32; {here['processor']}, 1 thread, {here['date']}; "
            "medians of steps in turns.",
        ]
        tables.replace(PAGE, "codeq-cost", "\n".join(lines))


def draw(found: list[dict[str, Any]]) -> None:
    """Accuracy over bit-operations."""
    plt.rcParams["svg.hashsalt"] = "codeq"
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    curves = {
        "codeq, 4 bits": [f"4 bits, decay {decay:g}" for decay in DECAYS],
        "codeq, learned bits": [arm for arm in ARMS if arm.startswith("learned")],
        "ramp by magnitude, 32 bits": [f"gradual beside decay {decay:g}" for decay in DECAYS],
        "the same, then rounded to 4 bits": [
            f"gradual, rounded, beside decay {decay:g}" for decay in DECAYS
        ],
    }
    for (label, arms), marker in zip(curves.items(), "os^v", strict=True):
        x = [100 * mean(found, arm, "operations") for arm in arms]
        values = [list(accuracies(found, arm).values()) for arm in arms]
        middle = [statistics.fmean(each) for each in values]
        spread = [standard_deviation(each) or 0 for each in values]
        axes.errorbar(x, middle, spread, label=label, marker=marker, capsize=3, lw=1.2)
    axes.axhline(100 * mean(found, "dense", "accuracy"), color="grey", lw=0.8, ls="--")
    axes.set(
        xscale="log",
        xlabel="bit-operations, % of the dense network's",
        ylabel="test accuracy, %",
        ylim=(80, 100),
    )
    axes.legend(frameon=False)
    figure.savefig(FIGURE, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--part", choices=("rows", "costs"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if not options.table:
        torch.set_num_threads(1)
        if options.part in (None, "rows"):
            record["rows"] = list(rows(Store(ROOT / "runs" / "codeq")))
        if options.part in (None, "costs"):
            record["costs"] = [cost(name) for name in NETWORKS]
        record["environment"] = environment("cpu", "auto")
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
    write(record)


if __name__ == "__main__":
    main()
