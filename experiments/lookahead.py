"""Is lookahead better than magnitude at high sparsity? One cut, on digits.

    python experiments/lookahead.py           # measure, then write the table
    python experiments/lookahead.py --table   # only write the table from the record

A network is trained, cut once by a criterion, layers competing or all at one rate, and trained
for a few epochs more; its test accuracy is read right after the cut and at the end. The networks
are an MLP of four hidden layers, without norms as in the paper, and the digits CNN, with batch
norms. Writes experiments/records/lookahead.json and a table in docs/methods/lookahead.md.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tables import replace
from torch import Tensor, nn

import regrow
from regrow import recipes
from regrow.bench.environment import environment
from regrow.bench.models import digits_cnn, resnet20
from regrow.bench.statistics import paired_difference
from regrow.bench.tasks import checked_splits, digits
from regrow.core.rng import generator, seed_of

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "experiments" / "records" / "lookahead.json"
PAGE = ROOT / "docs" / "methods" / "lookahead.md"
SEEDS = range(5)
SPARSITIES = (0.9, 0.97, 0.99, 0.995)
# Within a layer LAMP ranks as magnitude does: it is a control of how layers are compared.
ARMS = (
    ("global", "magnitude"),
    ("global", "lamp"),
    ("global", "lookahead"),
    ("uniform", "magnitude"),
    ("uniform", "lookahead"),
)
DENSE, AFTER, BATCH, LR = 20, 8, 60, 1.2e-3


def mlp() -> nn.Sequential:
    """64-300-300-300-300-10, 292,200 weights; Xavier-normal initial weights as in the paper."""
    sizes = (64, 300, 300, 300, 300, 10)
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
        nn.init.xavier_normal_(layers[-2].weight)  # type: ignore[arg-type]
    return nn.Sequential(*layers[:-1])


NETWORKS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "digits_cnn": digits_cnn}


def train(model: nn.Module, data: Any, epochs: int, key: tuple[Any, ...], program: Any) -> float:
    """Train with Adam; with a program its cut comes first, and what it leaves is measured then."""
    optimizer = torch.optim.Adam(model.parameters(), LR)
    handle, cut = None, 0.0
    if program is not None:
        handle = regrow.attach(model, optimizer, program, example=data.train.images[:1])
        cut = accuracy(model, data.test)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(data.train), generator=generator(*key, epoch))
        for part in order.split(BATCH):
            loss = F.cross_entropy(model(data.train.images[part]), data.train.labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if handle is not None:
            handle.epoch_end()
    if handle is not None:
        handle.finalize()
    return cut


@torch.no_grad()
def accuracy(model: nn.Module, pair: Any) -> float:
    outputs: Tensor = model.eval()(pair.images)
    return float((outputs.argmax(1) == pair.labels).double().mean())


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    data = checked_splits(digits(), None)
    rows = []
    began = time.monotonic()
    for (name, make), seed in itertools.product(NETWORKS.items(), SEEDS):
        torch.manual_seed(seed_of("lookahead", name, seed))
        dense = make()
        train(dense, data, DENSE, ("dense", seed), None)
        whole = {"network": name, "seed": seed, "dense": accuracy(dense, data.test)}
        for sparsity, (allocation, criterion) in itertools.product(SPARSITIES, ARMS):
            model = copy.deepcopy(dense)
            program = recipes.lookahead(sparsity, AFTER, criterion=criterion, allocation=allocation)
            cut = train(model, data, AFTER, ("after", seed), program)
            row = {"sparsity": sparsity, "allocation": allocation, "criterion": criterion}
            rows.append({**whole, **row, "cut": cut, "final": accuracy(model, data.test)})
        print(f"{name}, seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
    return {"environment": environment("cpu", "fp32"), "rows": rows, "cost": cost()}


def cost() -> dict[str, float]:
    """Seconds on ResNet-20: finding the neighbours with the cut, and a cut by magnitude alone."""
    x, found = torch.randn(1, 3, 32, 32), {}
    for criterion in ("magnitude", "lookahead"):
        times = []
        for _ in range(5):
            model = resnet20()
            began = time.perf_counter()
            regrow.prune(model, 0.97, criterion=criterion, example=x)
            times.append(time.perf_counter() - began)
        found[criterion] = min(times)
    return found


def table(record: dict[str, Any]) -> str:
    machine, rows = record["environment"], record["rows"]
    lines = [
        f"{len(SEEDS)} seeds; dense {DENSE} epochs, {AFTER} after the cut (Adam, {LR:g}, batches "
        f"of {BATCH}); {machine['processor']}, {machine['threads']} thread, "
        f"{machine['precision']}, torch {machine['torch']}, {machine['date']}. Test accuracy in "
        "%, the difference paired by seed.",
        "",
        "| network | layers | sparsity | criterion | after the cut | trained on | lookahead minus "
        "it (95 % interval) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, sparsity, (allocation, criterion) in itertools.product(NETWORKS, SPARSITIES, ARMS):
        here = (name, sparsity, allocation)
        cut, final = (_by_seed(rows, (*here, criterion), when) for when in ("cut", "final"))
        shown = ""
        if criterion != "lookahead":
            gap = paired_difference(_by_seed(rows, (*here, "lookahead"), "final"), final)
            shown = f"{gap.mean:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})"
        means = [f"{sum(each.values()) / len(each):.2f}" for each in (cut, final)]
        cells = [name, allocation, f"{100 * sparsity:g} %", criterion, *means, shown]
        lines.append("| " + " | ".join(cells) + " |")
    dense = {
        name: sum(row["dense"] for row in rows if row["network"] == name)
        / sum(row["network"] == name for row in rows)
        for name in NETWORKS
    }
    seconds = record["cost"]
    lines += [
        "",
        "Dense: " + ", ".join(f"{name} {100 * mean:.2f} %" for name, mean in dense.items()) + ".",
        f"One cut of ResNet-20 takes {seconds['lookahead']:.2f} s, of which the run that finds the "
        f"neighbours is most; by magnitude {seconds['magnitude']:.2f} s.",
    ]
    return "\n".join(lines)


def _by_seed(rows: list[dict[str, Any]], of: tuple[Any, ...], when: str) -> dict[int, float]:
    """Accuracies in per cent of a network, sparsity, allocation and criterion."""
    keys = ("network", "sparsity", "allocation", "criterion")
    return {r["seed"]: 100 * r[when] for r in rows if tuple(r[key] for key in keys) == of}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true")
    if not parser.parse_args().table:
        RECORD.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    replace(PAGE, "lookahead", table(json.loads(RECORD.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
