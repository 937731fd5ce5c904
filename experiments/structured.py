"""Networks of half the multiply-adds: cut, cut further and grown back, or built so small.

    REGROW_DATA=FOLDER python experiments/structured.py --arms norm taylor small
    REGROW_DATA=FOLDER python experiments/structured.py --task cifar10_small --arms norm whole small
    python experiments/structured.py --task digits --seeds 5 \\
        --arms norm taylor random bidirectional small

Every arm of a seed ends at the same multiply-adds (half of the dense network's; of the digits CNN,
a tenth) and gets the same epochs in all, those of its dense network included:

- `norm`, `taylor`, `random`: the dense network, trained, cut by that criterion, trained on;
- `whole`: cut by norm too, but groups leave whole, the insides of residual branches;
- `bidirectional`: cut by norm to half of that, trained, grown back by summed Taylor scores of the
  dense network, trained on;
- `small`: a network of the family with the width that has as many multiply-adds, from scratch.

Writes runs/structured, experiments/records/structured-TASK.json and a table in docs/results.md. It
can be stopped and called again. FOLDER holds cifar-10-batches-bin (`regrow data get cifar10`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tables
import torch
from torch import Tensor, nn

import regrow
from regrow.bench import models
from regrow.bench.arm import initial, open_fabric, train_arm
from regrow.bench.environment import environment
from regrow.bench.job import Job
from regrow.bench.state import StateFile, identity
from regrow.bench.statistics import paired_difference
from regrow.bench.tasks import Task, checked_splits, cifar10, cifar10_small, digits
from regrow.bench.trainer import Trainer
from regrow.core.rng import generator

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Setting:
    """A comparison: epochs of the dense network and after the cut, of which the learning rate.

    Attributes:
        sparsity: of multiply-adds, at the end.
        overshoot: the sparsity from which `bidirectional` grows back.
    """

    task: Task
    model: str
    before: int
    after: int
    lr: float
    sparsity: float
    overshoot: float


SETTINGS = {
    "cifar10": Setting(cifar10(), "resnet20", 12, 8, 0.1, 0.5, 0.75),
    "cifar10_small": Setting(cifar10_small(), "resnet20", 20, 10, 0.1, 0.5, 0.75),
    "digits": Setting(digits(), "digits_cnn", 30, 20, 0.05, 0.9, 0.95),
}
ARMS = ("norm", "whole", "taylor", "small", "random", "bidirectional")


class Seed:
    """All arms of one seed."""

    def __init__(self, name: str, seed: int, out: Path, data_dir: Path | None) -> None:
        self.name, self.seed = name, seed
        self.setting = SETTINGS[name]
        self.task, self.model = self.setting.task, self.setting.model
        self.training = replace(self.task.training, threads=self.task.training.threads or 1)
        self.splits = checked_splits(self.task, data_dir)
        self.fabric = open_fabric("auto", 1, self.training)
        self.folder = out / name / str(seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.example = self.splits.validation.images[:1]

    def arm(self, arm: str) -> dict[str, Any]:
        """What an arm reached, from its file if it is finished."""
        path = self.folder / f"{arm}.json"
        if not path.exists():
            result = self.small() if arm == "small" else self.cut(arm)
            path.write_text(json.dumps(result))
        return json.loads(path.read_text())

    def train(
        self, stage: str, make: Callable[[], nn.Module], epochs: int, lr: float
    ) -> tuple[nn.Module, dict[str, Any]]:
        """A network trained, kept on disk."""
        trainer = Trainer(
            self.fabric, self.task, self.training, make, self.splits.train,
            self.splits.validation, self.seed, lambda *_, **__: None,
        )  # fmt: skip
        mark = identity([self.name, self.seed, stage, epochs, lr])
        final = StateFile(self.folder / f"{stage}.final", mark)
        progress = StateFile(self.folder / f"{stage}.progress", mark)
        found = final.read()
        if found is None:
            job = Job(stage, None, None, (epochs,), epochs, lr)
            found = train_arm(trainer, job, progress, self.splits.test)
            found = {"state": found["state"], "result": found["result"]}
            final.write(found)
            progress.delete()
        model = make()
        model.load_state_dict(found["state"])
        return model, found["result"]

    def dense(self) -> nn.Module:
        make = initial(self.task, self.model, self.seed)
        return self.train("dense", make, self.setting.before, self.training.lr)[0]

    def cut(self, arm: str) -> dict[str, Any]:
        dense = self.dense()
        groups = regrow.groups(dense, self.example)
        choose = partial(
            regrow.choose, dense, groups, of="macs", loss_fn=self.loss, data=self.batches()
        )
        taylor = {"name": "taylor", "summed": True}
        if arm == "bidirectional":
            first = choose(self.setting.overshoot, criterion="norm")
            shrunk = regrow.shrink(dense, self.example, first, groups=groups)
            half = self.setting.after // 2
            shrunk = replace(shrunk, model=self.tuned(f"{arm}-first", shrunk.model, half)[0])
            keep = choose(self.setting.sparsity, criterion=taylor, alive=first)
            shrunk = regrow.grow(shrunk, dense, self.example, keep, groups=groups)
            _, result = self.tuned(arm, shrunk.model, self.setting.after - half)
        else:
            whole = arm == "whole"
            criterion = taylor if arm == "taylor" else "norm" if whole else arm
            keep = choose(self.setting.sparsity, criterion=criterion, seed=self.seed, whole=whole)
            shrunk = regrow.shrink(dense, self.example, keep, groups=groups)
            _, result = self.tuned(arm, shrunk.model, self.setting.after)
        return {**result, "macs": groups.macs(keep), "macs_dense": groups.macs()}

    def tuned(self, stage: str, model: nn.Module, epochs: int) -> tuple[nn.Module, dict[str, Any]]:
        regrow.recalibrate(model, self.loss, self.batches())
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}

        def make() -> nn.Module:
            model.load_state_dict(start)
            return model

        return self.train(stage, make, epochs, self.setting.lr)

    def small(self) -> dict[str, Any]:
        whole = regrow.groups(self.task.models[self.model](generator(0)), self.example).macs()

        def build(width: float) -> nn.Module:
            if self.model == "resnet20":
                return models.resnet20(10, width, generator=generator(self.seed, "weights"))
            return _thin_digits(width, generator(self.seed, "weights"))

        low, high = 0.05, 1.0
        for _ in range(20):
            width = (low + high) / 2
            macs = regrow.groups(build(width), self.example).macs()
            if macs > (1 - self.setting.sparsity) * whole:
                high = width
            else:
                low = width
        epochs = self.setting.before + self.setting.after
        _, result = self.train("small", lambda: build(low), epochs, self.training.lr)
        macs = regrow.groups(build(low), self.example).macs()
        return {**result, "macs": macs, "macs_dense": whole, "width": low}

    def batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        train = self.splits.train
        order = torch.randperm(len(train), generator=generator(self.seed, "evidence"))
        return [(train.images[part], train.labels[part]) for part in order[: 32 * 128].split(128)]

    @staticmethod
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


def _thin_digits(width: float, source: torch.Generator) -> nn.Module:
    """A digits CNN of some width: one whose channels are cut before it is trained."""
    net = models.digits_cnn(generator=source)
    groups = regrow.groups(net, torch.zeros(1, 1, 8, 8))
    keep = {g.name: torch.arange(len(g)) < max(1, round(width * len(g))) for g in groups}
    return regrow.shrink(net, torch.zeros(1, 1, 8, 8), keep, groups=groups).model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", choices=sorted(SETTINGS), default="cifar10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="only these")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "structured")
    parser.add_argument("--data-dir", type=Path, help="where data sets lie (else $REGROW_DATA)")
    parser.add_argument("--table", action="store_true", help="only the table, from the record")
    options = parser.parse_args()
    path = ROOT / "experiments" / "records" / f"structured-{options.task}.json"
    if not options.table:
        record = measured(options)
        path.write_text(json.dumps(record, indent=1) + "\n")
    told = table(json.loads(path.read_text()))
    tables.replace(ROOT / "docs" / "results.md", f"structured-{options.task}", told)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The record of a task's arms."""
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
    seeds = [Seed(options.task, n, options.out, options.data_dir) for n in range(options.seeds)]
    for arm in options.arms:  # the controls last, should there be no time for them
        for one in seeds:
            found[arm].append(one.arm(arm))
            print(options.task, one.seed, arm, found[arm][-1]["test_accuracy"], flush=True)
    setting = SETTINGS[options.task]
    return {
        "task": options.task, "model": setting.model, "arms": found,
        "epochs": [setting.before, setting.after],
        "environment": environment("cpu", "auto"),
    }  # fmt: skip


def table(record: dict[str, Any]) -> str:
    lines = [
        "| arm | multiply-adds | test accuracy, % | beside `small` |",
        "|---|---|---|---|",
    ]
    arms = record["arms"]
    small = [100 * one["test_accuracy"] for one in arms["small"]]
    for arm, results in arms.items():
        values = [100 * one["test_accuracy"] for one in results]
        share = sum(one["macs"] / one["macs_dense"] for one in results) / len(results)
        beside = "" if arm == "small" else _beside(values, small)
        spread = torch.tensor(values).std().item() if len(values) > 1 else 0.0
        mean = sum(values) / len(values)
        lines.append(f"| {arm} | {share:.1%} | {mean:.2f} ± {spread:.2f} | {beside} |")
    before, after = record["epochs"]
    lines += ["", f"{record['model']}, {len(small)} seeds, {before} + {after} epochs."]
    return "\n".join(lines)


def _beside(values: list[float], small: list[float]) -> str:
    found = paired_difference(dict(enumerate(values)), dict(enumerate(small)))
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


if __name__ == "__main__":
    main()
