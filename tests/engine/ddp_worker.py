"""One rank of test_distributed.py; started by torch.distributed.run."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from engine_small import assert_projected, batches, loss_fn, network
from torch.nn.parallel import DistributedDataParallel

import regrow
from regrow import recipes
from regrow.core.evidence import InverseFisher, Need
from regrow.engine.gather import Source, gather
from regrow.model.fisher import invert, outer_products
from regrow.model.inventory import inventory, weights_of


def digest(model: torch.nn.Module) -> str:
    found = hashlib.blake2b(digest_size=16)
    for parameter in model.parameters():
        found.update(parameter.detach().numpy().tobytes())
    return found.hexdigest()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    told = _trained(rank) | {"exchanged": _exchanged(rank), "tampered": _tampered(rank)}
    told["quantised"] = _quantised(rank)
    (folder / f"{rank}.json").write_text(json.dumps(told))
    # Every DDP module is gone by now: one that outlives its group can abort the interpreter's exit.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def _trained(rank: int) -> dict[str, object]:
    """What this rank holds after a program in DDP."""
    # Weights, data and random streams of its own: DDP broadcasts the weights of rank 0.
    model = DistributedDataParallel(network(seed=rank))
    data = batches(4, seed=10 + rank)
    torch.manual_seed(rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    program = recipes.bidirectional_paper(
        0.6, 0.9, (2, 2), rounds=2, regrow="gradient", value="init", criterion="saliency"
    )
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=data)
    checksums = [pruning.masks.checksum()]
    for _ in range(4):
        for batch in data:
            loss_fn(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            assert_projected(model.module, pruning.masks)
        pruning.epoch_end()
        checksums.append(pruning.masks.checksum())
    pruning.finalize()
    _fisher_of_all(rank)
    return {
        "data": float(data[0][0].sum()),
        "checksums": checksums,
        "weights": digest(model),
        "kept": pruning.events[-1]["kept"],
    }


def _quantised(rank: int) -> list[object]:
    """Masks, weights and bits after training weights that are not those in use."""
    model = DistributedDataParallel(network(seed=rank))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    program = recipes.codeq(2, bits=5, learn_bits=True, decay=4.0, bits_decay=2.0, lr=0.05)
    pruning = regrow.attach(model, optimizer, program)
    for _ in range(2):
        for batch in batches(4, seed=10 + rank):
            loss_fn(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        pruning.epoch_end()
    pruning.finalize()
    return [pruning.masks.checksum(), digest(model), pruning.events[-1]["bits"], pruning.sparsity]


def _exchanged(rank: int) -> list[object]:
    """Masks after a sparse start and events within an epoch, and what they have explored."""
    model = DistributedDataParallel(network(seed=rank))
    data = batches(4, seed=10 + rank)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    program = recipes.granet_st(0.8, 2, every="2it", ramp="4it", end="7it", seed=3)
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=data, batches=1)
    found: list[object] = [pruning.masks.checksum()]
    for _ in range(2):
        for batch in data:
            loss_fn(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(pruning.masks.checksum())
        pruning.epoch_end()
    pruning.finalize()
    return [*found, pruning.explored, pruning.events[-1]["kept"], digest(model)]


def _fisher_of_all(rank: int) -> None:
    """The inverse Fisher of both ranks' gradients, of which one rank has more, is that of one."""
    model, need = network(), Need("inverse_fisher", how=InverseFisher(chunk=16, damping=1e-2))
    entries, shares = inventory(model), (batches(5, seed=1), batches(3, seed=2))
    found = gather(
        frozenset({need}), model, entries, {}, Source(loss_fn, shares[rank]), (0,), "running"
    )
    every = [*shares[0], *shares[1]]
    sums, count = outer_products(model, weights_of(model, entries), loss_fn, every, 16)
    invert(sums, count, 1e-2)
    for name, blocks in sums.items():
        torch.testing.assert_close(found[need][name], blocks, rtol=1e-4, atol=1e-3)


def _tampered(rank: int) -> str:
    """What the next event says when one rank's masks have been altered in between."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    program = recipes.manual((0.5, 0.8), (0, 1), 2, regrow="random")
    pruning = regrow.attach(model, optimizer, program)
    if rank == 1:
        keep = pruning.masks["4.weight"]
        kept = tuple(keep.nonzero()[0])
        keep[kept] = False
        pruning._at.masks = pruning.masks.replaced({"4.weight": keep})
        with torch.no_grad():
            model.get_submodule("4").weight[kept] = 0
    try:
        pruning.epoch_end()
    except regrow.RegrowError as error:
        return str(error)
    return ""


main(Path(sys.argv[1]))
