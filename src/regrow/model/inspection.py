"""What a network holds: the one counter behind every sparsity that regrow prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from regrow.core.errors import unknown
from regrow.core.names import unwrap
from regrow.model.counters import positions
from regrow.model.inventory import DENOMINATOR, inventory

_NORM = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


@dataclass(frozen=True)
class LayerCount:
    """One prunable weight.

    Attributes:
        name, shape: as in the state dict.
        total: its entries.
        kept: entries that the mask keeps, or, without a mask, entries that are not zero.
        positions: how often each entry is used in one forward pass of one sample; None where no
            example was given. Multiply-adds are entries times positions.
    """

    name: str
    shape: tuple[int, ...]
    total: int
    kept: int
    positions: int | None = None

    @property
    def sparsity(self) -> float:
        return 1 - self.kept / self.total


@dataclass(frozen=True)
class Inspection:
    """Counts of a network; `str()` is a table.

    Attributes:
        layers: the prunable weights, which are the denominator of `sparsity`.
        other: parameters outside the denominator by kind: bias, norm, embedding, other.
    """

    layers: tuple[LayerCount, ...]
    other: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(layer.total for layer in self.layers)

    @property
    def kept(self) -> int:
        return sum(layer.kept for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Fraction removed of all convolution and linear weights, tied ones counted once."""
        return 1 - self.kept / self.total

    @property
    def parameters(self) -> int:
        """All parameters, pruned or not."""
        return self.total + sum(self.other.values())

    def macs(self, *, dense: bool = False) -> int | None:
        """Multiply-adds of one sample on kept weights, or on all; None without an example."""
        if any(layer.positions is None for layer in self.layers):
            return None
        return sum((x.total if dense else x.kept) * (x.positions or 0) for x in self.layers)

    def bit_operations(
        self, bits: Mapping[str, int] | None = None, *, activations: int = 32, dense: bool = False
    ) -> int | None:
        """Sum of multiply-adds times bits of the weight times bits of the activation.

        Source: arXiv 2512.12981 (2025), "CoDeQ", which leaves activations at 32 bits.

        Args:
            bits: of each layer's weights by name, such as `events[-1]["bits"]` of a handle; 32
                where nothing is said.
            activations: bits of what weights are multiplied by.
            dense: count all weights, not the kept ones alone.

        Returns:
            of one sample; None without an example.

        Raises:
            RegrowError: bits of a layer that the network does not have.
        """
        if strangers := (bits or {}).keys() - {layer.name for layer in self.layers}:
            raise unknown("weight", min(strangers), [layer.name for layer in self.layers])
        if any(layer.positions is None for layer in self.layers):
            return None
        return sum(
            (x.total if dense else x.kept)
            * (x.positions or 0)
            * (bits or {}).get(x.name, 32)
            * activations
            for x in self.layers
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for machines."""
        return {
            "density_denominator": DENOMINATOR,
            "sparsity": self.sparsity,
            "kept": self.kept,
            "total": self.total,
            "parameters": self.parameters,
            "other_parameters": dict(self.other),
            "macs_dense": self.macs(dense=True),
            "macs_kept": self.macs(),
            "layers": [
                {
                    "name": x.name,
                    "shape": list(x.shape),
                    "total": x.total,
                    "kept": x.kept,
                    "sparsity": x.sparsity,
                    "positions": x.positions,
                }
                for x in self.layers
            ],
        }

    def __str__(self) -> str:
        wide = max(len("layer"), *(len(layer.name) for layer in self.layers))
        lines = [f"{'layer':<{wide}}  {'shape':>18}  {'kept':>12}  {'of':>12}  sparsity"]
        for x in self.layers:
            shape = "x".join(map(str, x.shape))
            lines.append(
                f"{x.name:<{wide}}  {shape:>18}  {x.kept:>12,}  {x.total:>12,}  {x.sparsity:8.4f}"
            )
        lines.append(
            f"{'total':<{wide}}  {'':>18}  {self.kept:>12,}  {self.total:>12,}  "
            f"{self.sparsity:8.4f}"
        )
        apart = ", ".join(f"{kind} {count:,}" for kind, count in self.other.items() if count)
        lines.append(f"sparsity is over {DENOMINATOR}" + (f"; apart: {apart}" if apart else ""))
        macs, dense = self.macs(), self.macs(dense=True)
        if macs is not None and dense is not None:
            lines.append(
                f"multiply-adds per sample: {macs:,} on kept weights, {dense:,} dense "
                "(a count, not a speed)"
            )
        return "\n".join(lines)


def inspect(
    model: nn.Module, *, masks: Mapping[str, Tensor] | None = None, example: Any = None
) -> Inspection:
    """Count a network's weights.

    Args:
        model: any network; wrappers are looked through.
        masks: keep masks, as in `Pruning.masks`; of a weight without one, kept means not zero.
        example: one batch of inputs, for multiply-adds.

    Raises:
        RegrowError: nothing can be pruned, or the example does not fit.
    """
    model, masks = unwrap(model), masks or {}
    entries = inventory(model)
    state = model.state_dict(keep_vars=True)
    uses = positions(model, example) if example is not None else {}
    layers = tuple(
        LayerCount(
            e.name,
            e.shape,
            e.numel,
            int((masks[e.name] if e.name in masks else state[e.name] != 0).sum()),
            uses.get(e.name),
        )
        for e in entries
    )
    counted = {id(state[e.name]) for e in entries}
    other = {"bias": 0, "norm": 0, "embedding": 0, "other": 0}
    for module in model.modules():
        for field, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in counted:
                counted.add(id(parameter))
                other[_kind(module, field)] += parameter.numel()
    return Inspection(layers, other)


def _kind(module: nn.Module, field: str) -> str:
    if isinstance(module, _NORM):
        return "norm"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "embedding"
    return "bias" if "bias" in field else "other"
