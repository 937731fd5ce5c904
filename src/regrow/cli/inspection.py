"""Looking into a run directory or a file of weights without the model's class."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import TypeAdapter, ValidationError
from rich.markup import escape
from rich.table import Table
from safetensors import SafetensorError, safe_open
from typing_extensions import TypedDict

from regrow.core.errors import RegrowError
from regrow.export.packed import unpack


class _Layer(TypedDict):
    name: str
    shape: list[int]
    total: int
    kept: int
    sparsity: float
    positions: int | None


class _Counts(TypedDict):
    density_denominator: str
    sparsity: float
    kept: int
    total: int
    parameters: int
    other_parameters: dict[str, int]
    macs_dense: int | None
    macs_kept: int | None
    layers: list[_Layer]


@dataclass(frozen=True)
class Look:
    """Counts of a file, as `Inspection.to_dict`, with the file's size.

    Attributes:
        path, file_bytes: of the file itself.
        counts: from the metadata that regrow wrote, or counted from the tensors.
    """

    path: Path
    file_bytes: int
    counts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"path": str(self.path), "file_bytes": self.file_bytes, **self.counts}

    def table(self) -> Table:
        table = Table(title=escape(str(self.path)), title_justify="left")
        table.add_column("layer", style="bold")
        for name in ("shape", "kept", "of", "sparsity", "multiply-adds"):
            table.add_column(name, justify="right")
        for layer in self.counts["layers"]:
            uses = layer["positions"]
            table.add_row(
                escape(layer["name"]),
                "x".join(map(str, layer["shape"])),
                f"{layer['kept']:,}",
                f"{layer['total']:,}",
                f"{layer['sparsity']:.4f}",
                "" if uses is None else f"{layer['kept'] * uses:,}",
            )
        table.add_section()
        macs = self.counts["macs_kept"]
        table.add_row(
            "total",
            "",
            f"{self.counts['kept']:,}",
            f"{self.counts['total']:,}",
            f"{self.counts['sparsity']:.4f}",
            "" if macs is None else f"{macs:,}",
        )
        return table

    def notes(self) -> Iterator[str]:
        other = ", ".join(f"{k} {v:,}" for k, v in self.counts["other_parameters"].items() if v)
        yield f"sparsity is over {self.counts['density_denominator']}; apart: {other or 'nothing'}"
        yield f"parameters: {self.counts['parameters']:,}"
        if self.counts["macs_kept"] is not None:
            yield (
                f"multiply-adds per sample: {self.counts['macs_kept']:,} on kept weights of "
                f"{self.counts['macs_dense']:,} dense (a count, not a speed)"
            )
        yield f"bytes: {self.file_bytes:,} in this file, {4 * self.counts['parameters']:,} as fp32"


_COUNTS = TypeAdapter(_Counts)


def look(path: Path) -> Look:
    """Counts of a run directory's model, a packed file or a safetensors file.

    Raises:
        RegrowError: there is no such file, or it is damaged or of another kind.
    """
    if path.is_dir():
        found = [path / name for name in ("model.regrow", "model.safetensors")]
        existing = [file for file in found if file.exists()]
        if not existing:
            raise RegrowError(_without_model(path))
        path = existing[0]
    if not path.is_file():
        raise RegrowError(f"there is no file {str(path)!r}.")
    size = path.stat().st_size
    if path.suffix == ".safetensors":
        return Look(path, size, _of_safetensors(path))
    packed = unpack(path)
    counts = packed.metadata.get("inspection")
    return Look(path, size, counts if _sound(counts) else _counted(packed.state))


def _without_model(directory: Path) -> str:
    if (directory / "recipe.toml").exists():
        where = shlex.quote(str(directory))
        return (
            f"{directory} holds no model.regrow yet; finish the run with `regrow resume {where}`."
        )
    return f"{directory} holds no run; give a run directory, or a .regrow or .safetensors file."


def _of_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            note = (file.metadata() or {}).get("regrow")
            counts = None if note is None else _parsed(note)
            if _sound(counts):
                return counts
            return _counted({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RegrowError(f"{path} is no sound safetensors file: {error}.") from error


def _parsed(note: str) -> Any:
    try:
        return json.loads(note)
    except json.JSONDecodeError:
        return None  # Somebody else's note under the same name.


def _sound(counts: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether these are counts as `Inspection.to_dict` writes them."""
    try:
        _COUNTS.validate_python(counts, strict=True)
    except ValidationError:
        return False
    return True


def _counted(state: Mapping[str, Any]) -> Mapping[str, Any]:
    # Without the model's class, a weight is what has two or more dimensions.
    layers = []
    other = 0
    for name, tensor in state.items():
        if tensor.ndim < 2 or not tensor.is_floating_point():
            other += tensor.numel() if tensor.is_floating_point() else 0
            continue
        kept = int((tensor != 0).sum())
        layers.append(
            {
                "name": name,
                "shape": list(tensor.shape),
                "total": tensor.numel(),
                "kept": kept,
                "sparsity": 1 - kept / max(tensor.numel(), 1),
                "positions": None,
            }
        )
    kept, total = (sum(layer[key] for layer in layers) for key in ("kept", "total"))
    return {
        "density_denominator": "tensors of two or more dimensions",
        "sparsity": 1 - kept / max(total, 1),
        "kept": kept,
        "total": total,
        "parameters": total + other,
        "other_parameters": {"other": other},
        "macs_dense": None,
        "macs_kept": None,
        "layers": layers,
    }
