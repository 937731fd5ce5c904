"""How far gradients tell, in a trained sparse network, what should go and what should return.

    REGROW_DATA=FOLDER python experiments/headline/evidence.py
    ... --table                                   # the table alone, from the committed record

Reads the same network's evidence twice, from two disjoint halves of its training images: of the
weights that one half would cut or return first, a tenth of the living, how many would the other
half too? Networks are those of arm `gradual_batch`; whichever is not in the store is trained first.
FOLDER holds cifar-10-batches-bin (`regrow data get cifar10`).
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import resnet20
import torch
import vgg16_quarter
from common import RECORDS, ROOT, say
from page import DOCS
from spec import Spec
from tables import replace
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regrow.bench.cells import Cell
from regrow.bench.environment import processor
from regrow.bench.store import Store
from regrow.core.evidence import Evidence, Need, Statistics
from regrow.core.files import write_atomic
from regrow.model.collect import gradients
from regrow.model.inventory import inventory, weights_of
from regrow.parts.criteria import CRITERIA
from regrow.parts.regrowth import RULES

RECORD = RECORDS / "evidence.json"
NETWORKS: tuple[tuple[Spec, str], ...] = (
    (vgg16_quarter.SPEC, "gradual_batch@99.5"),
    (resnet20.SPEC, "gradual_batch@97"),
)
SEEDS, BATCHES, SHARE = 3, (16, 64), 0.1
RANKS = ("saliency, cut", "newton, return", "gradient, return")


def measure(cell: Cell, store: Store, folder: Path | None) -> Iterator[dict[str, Any]]:
    """One entry for each kind of statistics and number of batches."""
    store.finish(cell)
    state, keep = store.state(cell)
    assert keep is not None
    model = cell.task.models[cell.model](torch.Generator())
    model.load_state_dict(state)
    train = cell.task.splits(folder).train
    order = torch.randperm(len(train.images), generator=torch.Generator().manual_seed(cell.seed))
    size, smooth = cell.training.batch_size, cell.training.label_smoothing
    weights = weights_of(model, inventory(model))

    def loss_fn(net: nn.Module, at: Tensor) -> Tensor:
        return cross_entropy(net(train.images[at]), train.labels[at], label_smoothing=smooth)

    for how in get_args(Statistics):
        for count in BATCHES:
            seen = []
            for part in order.chunk(2):
                batches = part[: count * size].split(size)
                mean, square = gradients(
                    model, weights, loss_fn, batches, square=True, statistics=how
                )
                values = {name: weight.detach() for name, weight in weights.items()}
                tensors = {Need("gradient"): mean, Need("gradient_square"): square}
                seen.append(Evidence({**tensors, Need("weight"): values}))
            yield {
                "model": cell.model,
                "seed": cell.seed,
                "statistics": how,
                "batches": count,
                "removed": sum(int((~mask).sum()) for mask in keep.values()),
                "kept": sum(int(mask.sum()) for mask in keep.values()),
                "energy": _energy(seen, keep),
                "repeated": dict(zip(RANKS, _repeated(seen, keep), strict=True)),
            }


def _energy(seen: Sequence[Evidence], keep: Mapping[str, Tensor]) -> float:
    """The squared mean gradient over the removed weights; the halves' product has no bias."""
    one, other = (each[Need("gradient")] for each in seen)
    return sum(float((one[n] * other[n])[~mask].sum()) for n, mask in keep.items())


def _repeated(seen: Sequence[Evidence], keep: Mapping[str, Tensor]) -> Iterator[float]:
    """For each rank, the part of one half's first tenth that is in the other's too."""
    count = round(SHARE * sum(int(mask.sum()) for mask in keep.values()))

    def common(scores: Sequence[Tensor]) -> float:
        first, second = (set(score.topk(count).indices.tolist()) for score in scores)
        return len(first & second) / count

    def flat(scores: Mapping[str, Tensor], where: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([scores[name][mask] for name, mask in where.items()])

    removed = {name: ~mask for name, mask in keep.items()}
    yield common([-flat(CRITERIA.build("saliency").score(each), keep) for each in seen])
    for rule in ("newton", "gradient"):
        yield common([flat(RULES.build(rule).score(each), removed) for each in seen])


def table(record: Mapping[str, Any]) -> str:
    lines = [
        f"Means over {SEEDS} seeds; {record['processor']}, torch {record['torch']}, "
        f"{record['date']}.",
        "",
        "| network | statistics | batches | squared gradient | "
        + " | ".join(f"{rank}: repeated" for rank in RANKS)
        + " | by chance: cut, return |",
        "|---" * 8 + "|",
    ]
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for entry in record["entries"]:
        place = (entry["model"], entry["statistics"], entry["batches"])
        groups.setdefault(place, []).append(entry)
    for (model, how, count), entries in groups.items():
        energy = statistics.fmean(entry["energy"] for entry in entries)
        parts = [statistics.fmean(entry["repeated"][rank] for entry in entries) for rank in RANKS]
        chance = SHARE * entries[0]["kept"] / entries[0]["removed"]
        lines.append(
            f"| {model} | {how} | {count} | {energy:.2g} | "
            + " | ".join(f"{part:.0%}" for part in parts)
            + f" | {SHARE:.0%}, {chance:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--data-dir", type=Path, help="where data sets lie (else $REGROW_DATA)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "headline")
    options = parser.parse_args()
    if not options.table:
        torch.set_num_threads(1)
        command = "python experiments/headline/evidence.py"
        store = Store(options.out, data_dir=options.data_dir, command=command)
        entries: list[dict[str, Any]] = []
        for spec, arm in NETWORKS:
            for seed in range(SEEDS):
                cell = spec.table().arms[arm](seed)
                say(f"{spec.model}, {arm}, seed {seed}")
                entries += measure(cell, store, options.data_dir)
        found = {
            "processor": processor(),
            "torch": torch.__version__,
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "entries": entries,
        }
        write_atomic(RECORD, (json.dumps(found, indent=1) + "\n").encode())
    replace(DOCS / "bidirectional.md", "evidence", table(json.loads(RECORD.read_text())))


if __name__ == "__main__":
    main()
