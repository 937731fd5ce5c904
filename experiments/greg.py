"""Growing regularisation on digits: what the pull does to weights, and what the removal costs.

    python experiments/greg.py            # measure, then write figure and tables
    python experiments/greg.py --table    # only write them from the record

Of a trained digits_cnn, three seeds, every arm from the same weights of its seed and over the same
batches and learning rates: `greg1`, `greg2`, and "no pull", one cut by magnitude at the epoch of
their removal; elements at 90 and 95 %, and channels at 60 % of the multiply-adds. At 95 % `greg2`
also picks at larger strengths. Recorded are

- at the end of every epoch up to the removal, the loss, and the mean |w| of what goes and of what
  stays; at some of them how |w| relative to its start is spread among both;
- the loss on all training images right before the removal and right after it, by running
  statistics of the norms and by those of the images themselves;
- test accuracy at the removal and after the rest of the training.

The dense networks are kept in runs/greg; the record is experiments/records/greg.json, figure and
tables are of docs/methods/greg.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import tables
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regrow
from regrow import recipes
from regrow.bench.arm import initial
from regrow.bench.cells import Cell
from regrow.bench.data import TensorPair
from regrow.bench.environment import environment
from regrow.bench.job import learning_rate
from regrow.bench.statistics import paired_difference, standard_deviation
from regrow.bench.store import Store
from regrow.bench.tasks import checked_splits, find_task
from regrow.core.rng import generator
from regrow.model.collect import batch_statistics

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "experiments" / "records" / "greg.json"
PAGE = ROOT / "docs" / "methods" / "greg.md"
FIGURE = ROOT / "docs" / "img" / "greg.svg"
SEEDS, EPOCHS, REMOVAL = range(3), 40, 20
PICKS = (0.1, 0.5)  # of greg2 at 95 %, besides its own 0.01
CASES: dict[str, dict[str, Any]] = {
    "90 %": {"sparsity": 0.9, "pattern": "element", "criterion": "magnitude"},
    "95 %": {"sparsity": 0.95, "pattern": "element", "criterion": "magnitude"},
    "channels, 60 %": {"sparsity": 0.6, "pattern": "unit", "criterion": "norm"},
}
EDGES = [-8 + 0.25 * i for i in range(41)]  # of histograms of log10 |w| / |w at the start|

TASK = find_task("digits")
TRAINING = replace(TASK.training, dense_epochs=20)


def program(arm: str, case: str, seed: int) -> Any:
    """What the arm does in all its epochs."""
    options = {**CASES[case], "epochs": EPOCHS, "seed": seed}
    if arm == "no pull":
        return recipes.manual([options.pop("sparsity")], [REMOVAL], **options)
    if arm == "greg1":
        return recipes.greg1(removal=REMOVAL, **options)
    _, _, pick = arm.partition(", pick ")
    return recipes.greg2(removal=REMOVAL, **({"pick": float(pick)} if pick else {}), **options)


ARMS = ("greg1", "greg2", "no pull")
MORE = tuple(f"greg2, pick {pick:g}" for pick in PICKS)
CHOICE = program("greg2", "95 %", 0).stages[0].plan.penalty.choice.value
SHOWN = (CHOICE, CHOICE + 2, REMOVAL)  # epochs of the histograms


def optimizer_of(model: nn.Module) -> torch.optim.SGD:
    """As the trainer's: norms and biases are not decayed."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": TRAINING.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=TRAINING.momentum, nesterov=TRAINING.nesterov)


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: TensorPair, seed: int, epoch: int
) -> None:
    model.train()
    order = torch.randperm(len(data), generator=generator(seed, "order", epoch))
    parts = order.split(TRAINING.batch_size)
    for number, part in enumerate(parts):
        now = epoch + number / len(parts)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(now, (EPOCHS,), TRAINING.fine_tune_lr)
        F.cross_entropy(model(data.images[part]), data.labels[part]).backward()
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def losses(model: nn.Module, data: TensorPair) -> dict[str, float]:
    """On all training images, by running statistics of the norms and by their own."""
    model.eval()
    running = F.cross_entropy(model(data.images), data.labels)
    with batch_statistics(model):
        batch = F.cross_entropy(model(data.images), data.labels)
    return {"running": float(running), "batch": float(batch)}


@torch.no_grad()
def accuracy(model: nn.Module, data: TensorPair) -> float:
    model.eval()
    return float((model(data.images).argmax(1) == data.labels).double().mean())


def histogram(ratios: Tensor) -> list[int]:
    inside = ratios.clamp(10 ** EDGES[0], 0.999 * 10 ** EDGES[-1]).log10().double()
    counts, _ = torch.histogram(inside, torch.tensor(EDGES, dtype=torch.float64))
    return [int(count) for count in counts]


def spread(seen: list[Tensor], keep: Tensor) -> dict[str, Any]:
    """Of all weights in one row, at the start and after every epoch: what goes and what stays."""
    start = seen[0].abs()
    known = start > 0
    given = (seen[CHOICE].abs() / start)[known].sort().values
    return {
        "given_way": [float(given[int(share * len(given))]) for share in (0.1, 0.5, 0.9)],
        "mean_going": [float(row[~keep].abs().mean()) for row in seen],
        "mean_staying": [float(row[keep].abs().mean()) for row in seen],
        "histograms": {
            str(epoch): {
                "going": histogram(seen[epoch].abs()[known & ~keep] / start[known & ~keep]),
                "staying": histogram(seen[epoch].abs()[known & keep] / start[known & keep]),
            }
            for epoch in SHOWN
        },
    }


def row(dense: dict[str, Tensor], seed: int, case: str, arm: str) -> tuple[dict[str, Any], Tensor]:
    """What is recorded of an arm, and which weights it keeps."""
    data = checked_splits(TASK, None)
    train, test = TensorPair(data.train.images, data.train.labels), data.test
    model = initial(TASK, "digits_cnn", seed)()
    model.load_state_dict(dense)
    optimizer = optimizer_of(model)
    handle = regrow.attach(model, optimizer, program(arm, case, seed), example=train.images[:1])
    weights = [dict(model.named_parameters())[name].detach() for name in handle.masks]

    def seen() -> Tensor:
        return torch.cat([weight.flatten() for weight in weights]).clone()

    found: dict[str, Any] = {"seed": seed, "case": case, "arm": arm}
    rows, followed = [seen()], [losses(model, train)]
    for epoch in range(EPOCHS):
        train_epoch(model, optimizer, train, seed, epoch)
        if epoch < REMOVAL:
            rows.append(seen())
            followed.append(losses(model, train))
        handle.epoch_end()
        if epoch + 1 == REMOVAL:
            found["after"] = losses(model, train)
            found["accuracy_at_removal"] = accuracy(model, test)
            found["sparsity"] = handle.sparsity
            keep = torch.cat([mask.flatten() for mask in handle.masks.values()])
    handle.finalize()
    assert len(handle.events) == 1
    found["accuracy"] = accuracy(model, test)
    return {**found, "before": followed[-1], "losses": followed, **spread(rows, keep)}, keep


def measure() -> list[dict[str, Any]]:
    store, found = Store(ROOT / "runs" / "greg"), []
    for seed in SEEDS:
        cell = Cell(TASK, "digits_cnn", seed, TRAINING, name="dense")
        store.finish(cell)
        dense, _ = store.state(cell)
        for case in CASES:
            kept = {}
            for arm in (*ARMS, *(MORE if case == "95 %" else ())):
                result, kept[arm] = row(dense, seed, case, arm)
                # greg1 chooses by the weights of the start.
                common = (kept[arm] & kept["greg1"]).sum() / kept[arm].sum()
                found.append({**result, "kept_as_by_greg1": float(common)})
            print(f"seed {seed}, {case}", flush=True)
    return found


def of(found: list[dict[str, Any]], case: str, arm: str) -> list[dict[str, Any]]:
    """The rows of an arm, by seed."""
    rows = [row for row in found if (row["case"], row["arm"]) == (case, arm)]
    return sorted(rows, key=lambda row: int(row["seed"]))


def ratios(row: dict[str, Any]) -> list[float]:
    """How many times as large as what goes is what stays, in the mean, after every epoch."""
    return [a / b for a, b in zip(row["mean_staying"], row["mean_going"], strict=True)]


def told(values: Iterable[float]) -> str:
    percent = [100 * value for value in values]
    return f"{statistics.fmean(percent):.2f} ± {standard_deviation(percent) or 0:.2f}"


def between(values: Iterable[float]) -> str:
    """From the least to the greatest."""
    known = sorted(values)
    ends = (f"{x:.1f}" if x < 100 else f"{x:,.0f}" if x < 1e6 else f"{x:.0e}" for x in known)
    first, *_, last = ends
    return f"{first} to {last}"


def beside(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
    ours, theirs = ({r["seed"]: 100 * r["accuracy"] for r in each} for each in (rows, others))
    gap = paired_difference(ours, theirs)
    return f"{gap.mean:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})"


def removal_table(record: dict[str, Any]) -> str:
    found, here = record["rows"], record["environment"]
    lines = [
        f"digits_cnn, {len(SEEDS)} seeds, {TRAINING.dense_epochs} epochs and {EPOCHS} more, "
        f"removal after {REMOVAL} of them; {here['processor']}, 1 thread, torch {here['torch']}, "
        f"{here['date']}.",
        "",
        "| removed | arm | mean of weights, stays / goes | training loss before -> after, by "
        "seed | largest rise | by batch statistics | test accuracy right after, % | at the end, % "
        "| minus no pull (95 % interval) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        for arm in ARMS:
            rows = of(found, case, arm)
            jumps = ", ".join(
                f"{row['before']['running']:.4f} -> {row['after']['running']:.4f}" for row in rows
            )
            rises = [
                f"{max(row['after'][how] - row['before'][how] for row in rows):.4f}"
                for how in ("running", "batch")
            ]
            lines.append(
                f"| {case} | {arm} | {between(ratios(row)[-1] for row in rows)} | {jumps} | "
                f"{rises[0]} | {rises[1]} | {told(row['accuracy_at_removal'] for row in rows)} | "
                f"{told(row['accuracy'] for row in rows)} | "
                f"{'' if arm == ARMS[-1] else beside(rows, of(found, case, ARMS[-1]))} |"
            )
    return "\n".join(lines)


def pick_table(found: list[dict[str, Any]]) -> str:
    lines = [
        "| pick | of its start a weight has at the choice: 10th, 50th, 90th percentile | kept as "
        "by magnitude at the start | loss at the choice | test accuracy at the end, % |",
        "|---|---|---|---|---|",
    ]
    for arm in ("greg2", *MORE):
        rows = of(found, "95 %", arm)
        left = [
            statistics.fmean(each) for each in zip(*(r["given_way"] for r in rows), strict=True)
        ]
        loss = statistics.fmean(row["losses"][CHOICE]["batch"] for row in rows)
        lines.append(
            f"| {arm.partition('pick ')[2] or '0.01'} | "
            f"{', '.join(f'{share:.2f}' for share in left)} | "
            f"{statistics.fmean(row['kept_as_by_greg1'] for row in rows):.1%} | {loss:.3f} | "
            f"{told(row['accuracy'] for row in rows)} |"
        )
    return "\n".join(lines)


def write(record: dict[str, Any]) -> None:
    tables.replace(PAGE, "removal", removal_table(record))
    tables.replace(PAGE, "pick", pick_table(record["rows"]))
    draw(record["rows"])


def draw(found: list[dict[str, Any]]) -> None:
    """Ratios of means, spreads of |w| relative to its start, and the loss, over the epochs."""
    plt.rcParams.update({"svg.hashsalt": "greg", "axes.titlesize": "medium"})
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 7), layout="constrained")
    colours = dict(zip(ARMS, ("tab:blue", "tab:orange", "tab:grey"), strict=True))
    for axis, case in zip(axes[0], ("95 %", "channels, 60 %"), strict=True):
        for arm, colour in colours.items():
            for number, row in enumerate(of(found, case, arm)):
                axis.semilogy(ratios(row), color=colour, lw=1.2, label=None if number else arm)
        axis.set(title=f"{case}: mean |w|, what stays / what goes", xlabel="epoch")
    for arm, colour in colours.items():
        for number, row in enumerate(of(found, "95 %", arm)):
            losses = [each["batch"] for each in row["losses"]]
            axes[1, 1].semilogy(losses, color=colour, lw=1.2, label=None if number else arm)
    axes[1, 1].set(title="95 %: training loss, batch statistics", xlabel="epoch")
    for axis in (*axes[0], axes[1, 1]):
        axis.axvline(CHOICE, color="black", lw=0.8, ls=":")
        axis.set_xticks(range(0, REMOVAL + 1, 4))
        axis.margins(y=0.2)
        axis.legend(frameon=False, loc="upper center", ncols=3)
    rows, middle = of(found, "95 %", "greg2"), [(a + b) / 2 for a, b in pairwise(EDGES)]
    for epoch, style in ((CHOICE, "--"), (REMOVAL, "-")):
        for which, colour in (("going", "tab:red"), ("staying", "tab:green")):
            each = [row["histograms"][str(epoch)][which] for row in rows]
            counts = [sum(column) for column in zip(*each, strict=True)]
            shares = [100 * count / sum(counts) for count in counts]
            label = f"{'goes' if which == 'going' else 'stays'}, epoch {epoch}"
            axes[1, 0].step(middle, shares, style, where="mid", color=colour, lw=1.2, label=label)
    axes[1, 0].set(
        title="greg2, 95 %: |w| / |w at the start|",
        xlabel="log10; the first bin holds all below",
        ylabel="% of the weights",
        yscale="log",
        ylim=(5e-4, 5e3),
    )
    axes[1, 0].legend(frameon=False, loc="upper center", ncols=2)
    figure.savefig(FIGURE, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--table", action="store_true", help="only write figure and tables")
    if not parser.parse_args().table:
        torch.set_num_threads(1)
        record = {"rows": measure(), "environment": environment("cpu", "fp32")}
        RECORD.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    write(json.loads(RECORD.read_text()))


if __name__ == "__main__":
    main()
