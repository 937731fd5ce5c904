"""What regrow adds to training: a step with it attached against one without, and a mask event.

    python benchmarks/projection.py [--json PATH] [--threads 1] [--batch 128] [--steps 15]

Both arms run interleaved (A B A B) in one process on a CIFAR ResNet-20, random data, SGD with
momentum. Three numbers per arm of precision:

- step_ratio: median over pairs of (time with regrow) / (time without);
- hook_share: median time of the post-step hook alone / median plain step, which is the same cost
  with less noise;
- event shares: one mask event over an epoch of 391 plain steps (50,000 images at batch 128).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regrow
from regrow import recipes
from regrow.bench.environment import processor
from regrow.bench.models import resnet20

STEPS_PER_EPOCH = 391


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's queue drained on both sides."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def arm(precision: str, device: torch.device, batch: int) -> tuple[Any, ...]:
    """A network, its optimiser, a batch, the loss and one training step."""
    generator = torch.Generator().manual_seed(0)
    model: nn.Module = resnet20(10, generator=generator).to(device)
    images = torch.randn(batch, 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(0, 10, (batch,), generator=generator).to(device)
    if precision == "bf16":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def loss_fn(net: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return F.cross_entropy(net(data[0]), data[1])

    def step() -> None:
        loss_fn(model, (images, labels)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, (images, labels), loss_fn, step


def measure(precision: str, device: torch.device, batch: int, steps: int) -> dict[str, float]:
    """Medians for one precision."""
    plain = arm(precision, device, batch)[-1]
    model, optimizer, data, loss_fn, pruned = arm(precision, device, batch)
    pruning = regrow.attach(model, optimizer, recipes.one_shot(0.97, 10**6))
    for _ in range(2):
        plain(), pruned()
    pairs = [(seconds(plain, device), seconds(pruned, device)) for _ in range(steps)]
    dense_step = statistics.median(first for first, _ in pairs)
    hooks = [seconds(pruning._after_step, device) for _ in range(50)]
    pruning.detach()
    epoch = dense_step * STEPS_PER_EPOCH

    def event(sparsity: float, **options: Any) -> Callable[[], object]:
        return lambda: regrow.attach(
            model, optimizer, recipes.one_shot(sparsity, 1, **options)
        ).detach()

    start = seconds(event(0.0), device)  # an attach without an event
    cut = statistics.median(seconds(event(0.97), device) for _ in range(5)) - start
    gradients = recipes.one_shot(0.97, 1, criterion="taylor")
    gathered = seconds(
        lambda: regrow.attach(
            model, optimizer, gradients, loss_fn=loss_fn, data=[data] * 64
        ).detach(),
        device,
    )
    return {
        "plain_step_ms": 1e3 * dense_step,
        "step_ratio": statistics.median(second / first for first, second in pairs),
        "hook_ms": 1e3 * statistics.median(hooks),
        "hook_share": statistics.median(hooks) / dense_step,
        "attach_ms": 1e3 * start,
        "event_ms": 1e3 * cut,
        "event_share_of_epoch": cut / epoch,
        "gradient_event_ms": 1e3 * (gathered - start),
        "gradient_event_share_of_epoch": (gathered - start) / epoch,
        "mask_bytes_per_weight": pruning.masks.nbytes / sum(pruning.masks.total.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the record here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=15, help="pairs of steps")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    found = {
        "hardware": {
            "machine": platform.machine(),
            "device": name,
            "threads": options.threads,
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "network": "resnet20",
        "batch": options.batch,
        "steps": options.steps,
        "precisions": {
            precision: measure(precision, device, options.batch, options.steps)
            for precision in ("fp32", "bf16")
        },
    }
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{found['hardware']} {found['versions']}, batch {options.batch}")
    for precision, row in found["precisions"].items():  # type: ignore[attr-defined]
        print(precision + (", channels_last" if precision == "bf16" else ""))
        for key, value in row.items():
            print(f"  {key:<32} {value:12.5f}")


if __name__ == "__main__":
    main()
