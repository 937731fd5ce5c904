"""What one event costs, by method: seconds, and memory beside the network.

    python benchmarks/events.py                     # every case, then the table
    python benchmarks/events.py --only resnet20     # the cases whose name holds this text
    python benchmarks/events.py --table             # only the table, from the record

ResNet-20 and VGG16-BN with random weights, and random images of CIFAR's shape; sparsity 0.9, one
thread. Every case runs in a process of its own. "prepare" is `attach`, "event" the end of the epoch
at which the recipe's own plan cuts; of those that take less than five seconds the median of
five. Memory is the rise of the peak resident size over both, the first time; what the network and
the images take is there before. A case that has been measured replaces its row in
benchmarks/records/events.json; the table is in docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regrow
from regrow import recipes
from regrow.bench.environment import environment
from regrow.bench.models import resnet20, small_cnn, vgg16_bn
from regrow.core.step import Step
from regrow.engine.program import Program, Stage
from regrow.parts.schedule.manual import Manual

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "records" / "events.json"
sys.path.append(str(ROOT / "experiments"))
from tables import replace as put  # noqa: E402

NETWORKS: dict[str, Callable[[], nn.Module]] = {"resnet20": resnet20, "vgg16_bn": vgg16_bn}
SMALL = "small_cnn"  # goes first in every process: what is loaded once is no event's cost
SPARSITY, BATCHES, BATCH, FEW = 0.9, 16, 64, 5
GRADIENTS, SAMPLES = 400, 2  # of WoodFisher
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
# What the table calls it, its program, and what it reads.
METHODS: dict[str, tuple[str, Callable[[], Program], str]] = {
    "magnitude": ("magnitude", lambda: recipes.one_shot(SPARSITY, 1, criterion="magnitude"), ""),
    "lamp": ("LAMP", lambda: recipes.one_shot(SPARSITY, 1, criterion="lamp"), ""),
    "lookahead": ("lookahead", lambda: recipes.lookahead(SPARSITY, 1), "one input"),
    "synflow": ("SynFlow, 100 rounds", lambda: recipes.synflow(SPARSITY, 1), "one input"),
    "taylor": ("Taylor", lambda: recipes.one_shot(SPARSITY, 1, criterion="taylor"), "batches"),
    "snip": ("SNIP", lambda: recipes.snip(SPARSITY, 1), "batches"),
    "granet": ("GraNet, exchange", lambda: recipes.granet(SPARSITY, 3, ramp=1, end=2), "batches"),
    "grasp": ("GraSP", lambda: recipes.grasp(SPARSITY, 1), "batches"),
    "cops": ("COPS, SNIP over SynFlow", lambda: recipes.cops(SPARSITY, 1), "batches, one input"),
    "woodfisher": (
        "WoodFisher with repair",
        lambda: recipes.woodfisher(SPARSITY, 1, end=0, gradients=GRADIENTS),
        f"{GRADIENTS} gradients of {SAMPLES} images",
    ),
}
STEP = "step"  # of training on one batch, to compare with

Batch = tuple[Tensor, Tensor]


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def at_the_end_of_an_epoch(program: Program) -> Program:
    """The same plan, its one cut apart from what `attach` does besides."""
    plan: Any = program.stages[0].plan
    if plan.schedule.last.value:  # a program over time: its first event is there already
        return program
    later = replace(plan, schedule=Manual((SPARSITY,), (Step.epochs(1),)))
    return Program((Stage(later, Step.epochs(2)),), program.seed)


def turn(network: str, method: str, data: list[Batch]) -> tuple[float, float]:
    """Seconds of `attach` and of the event, of a network made for it."""
    torch.manual_seed(0)
    model = {**NETWORKS, SMALL: small_cnn}[network]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if method == STEP:
        began = time.perf_counter()
        loss_fn(model, data[0]).backward()
        optimizer.step()
        return 0.0, time.perf_counter() - began
    program, masks = at_the_end_of_an_epoch(METHODS[method][1]()), None
    if method == "granet":  # an exchange at the target
        weights = {n: p for n, p in model.named_parameters() if p.ndim > 1}
        masks = {name: torch.rand(w.shape) < 1 - SPARSITY for name, w in weights.items()}
        with torch.no_grad():
            for name, weight in weights.items():
                weight.mul_(masks[name])
    began = time.perf_counter()
    handle = regrow.attach(
        model,
        optimizer,
        program,
        loss_fn=loss_fn,
        data=data,
        batches=len(data),
        example=data[0][0][:1],
        masks=masks,
    )
    prepared = time.perf_counter()
    handle.epoch_end()
    done = time.perf_counter()
    assert len(handle.events) == 1
    handle.detach()
    return prepared - began, done - prepared


def case(network: str, method: str) -> dict[str, Any]:
    """One row, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    count, size = (GRADIENTS, SAMPLES) if method == "woodfisher" else (BATCHES, BATCH)
    data = [(torch.randn(size, 3, 32, 32), torch.randint(0, 10, (size,))) for _ in range(count)]
    turn(SMALL, method, [(images[:2], labels[:2]) for images, labels in data[:2]])
    NETWORKS[network]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    turns = [turn(network, method, data)]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sum(turns[0]) < 5:
        turns = [turn(network, method, data) for _ in range(FEW)]
    prepare, event = (statistics.median(each) for each in zip(*turns, strict=True))
    return {
        "network": network,
        "method": method,
        "prepare_s": prepare,
        "event_s": event,
        "turns": len(turns),
        "extra_mib": (after - before) * MAXRSS_UNIT / 2**20,
        "before_mib": before * MAXRSS_UNIT / 2**20,
    }


def measure(only: str) -> None:
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"rows": []}
    rows = {(row["network"], row["method"]): row for row in record["rows"]}
    for network in NETWORKS:
        for method in (STEP, *METHODS):
            if only not in f"{network} {method}":
                continue
            command = [sys.executable, __file__, "--case", network, method]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = rows[network, method] = json.loads(done.stdout.splitlines()[-1])
            print(row, flush=True)
            torch.set_num_threads(1)  # the cases' own number, for the record
            record = {"environment": environment("cpu", "fp32"), "rows": list(rows.values())}
            RECORD.write_text(json.dumps(record, indent=1) + "\n")


def table(record: dict[str, Any]) -> str:
    here = record["environment"]
    rows = {(row["network"], row["method"]): row for row in record["rows"]}
    lines = [
        f"Sparsity {SPARSITY:g}; batches are {BATCHES} of {BATCH} images, 3 x 32 x 32; "
        f"{here['processor']}, 1 thread, fp32, torch {here['torch']}, {here['date']}.",
        "",
        "| event | reads | "
        + " | ".join(f"{net}: prepare, s | event, s | extra memory, MiB" for net in NETWORKS)
        + " |",
        "|---|---" + "|---" * 3 * len(NETWORKS) + "|",
    ]
    names = {method: (name, reads) for method, (name, _, reads) in METHODS.items()}
    for method, (name, reads) in {STEP: ("(one training step)", "a batch"), **names}.items():
        cells = [name, reads or "weights"]
        for network in NETWORKS:
            row = rows.get((network, method))
            if row is None:
                cells += ["", "", ""]
                continue
            first = "" if method == STEP else f"{row['prepare_s']:.2g}"
            cells += [first, f"{row['event_s']:.2g}", f"{row['extra_mib']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds it")
    parser.add_argument("--table", action="store_true", help="only the table")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(case(*options.case)))
        return
    if not options.table:
        measure(options.only)
    put(ROOT / "docs" / "results.md", "events", table(json.loads(RECORD.read_text())))


if __name__ == "__main__":
    main()
