"""A model's tensors as safetensors, or as a state dict of `torch.save`; read back to the bit."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.files import write_atomic
from regrow.core.names import unwrap
from regrow.export.exported import STORES_ZEROS, Exported, about_zeros, check_plain, check_target
from regrow.export.packed import Packed, differing
from regrow.model.inspection import inspect


@dataclass(frozen=True, eq=False)
class _Source:
    """The tensors of a model on the CPU in C order, tied names sharing one, and its counts."""

    state: dict[str, Tensor]
    tied: dict[str, str]
    counts: Mapping[str, Any]
    nonzeros: int
    weights: int

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.state.values())

    def exported(self, format: str, size: int, note: str) -> Exported:
        dense, sparsity = 4 * self.counts["parameters"], self.counts["sparsity"]
        return Exported(format, size, dense, self.nonzeros, self.weights, sparsity, note)


def export_safetensors(
    source: nn.Module | Packed,
    path: str | os.PathLike[str],
    *,
    masks: Mapping[str, Tensor] | None = None,
) -> Exported:
    """Write a safetensors file, and read it back to the bit before the file takes its name.

    The keys are those of the model's own state dict, so `load_state_dict(load_file(path))` works;
    the format refuses shared memory, so tied weights are written once for each name, and named
    in the notes. The notes (text by name) are `format` ("pt", which other readers ask for),
    `regrow` (the counts of `regrow.inspect`, as JSON), `sparsity`, `tied` (JSON: a further name to
    the first) and `zeros`. Equal models give equal bytes.

    Args:
        source: a model, which may be compiled, data-parallel and on any device; or what
            `regrow.export.packed.unpack` gave.
        path: the file; a previous one stays intact unless the new one is whole and verified.
        masks: bool keep masks of a model, for its sparsity; a weight without one counts as kept
            where it is not zero. A packed file brings its own.

    Raises:
        RegrowError: a tensor that cannot be exported, the target cannot be written, or reading it
            back gave other values.
    """
    found = _read(source, masks)
    check_target(path, found.nbytes)
    notes = {
        "format": "pt",
        "regrow": json.dumps(found.counts),
        "sparsity": repr(found.counts["sparsity"]),
        "tied": json.dumps(found.tied),
        "zeros": STORES_ZEROS,
    }

    def read(written: Path) -> dict[str, Tensor]:
        with safe_open(written, framework="pt") as file:
            sound = file.metadata() == notes
            return {name: file.get_tensor(name) for name in file.keys() if sound}  # noqa: SIM118

    size = _write(path, _with_notes(save_tensors(_apart(found.state)), notes), found.state, read)
    repeats = f"{len(found.tied)} tied names are stored again; " if found.tied else ""
    note = repeats + about_zeros("safetensors", found.nonzeros, found.weights)
    return found.exported("safetensors", size, note)


def export_torch(
    source: nn.Module | Packed,
    path: str | os.PathLike[str],
    *,
    masks: Mapping[str, Tensor] | None = None,
) -> Exported:
    """Write a plain state dict with `torch.save`, and load it to the bit before it takes its name.

    The file is a dict from names to CPU tensors, loadable with `weights_only=True`. Tied weights
    are stored once and stay tied when they are loaded.

    Args:
        source, path, masks: as for `export_safetensors`.

    Raises:
        RegrowError: as `export_safetensors`.
    """
    found = _read(source, masks)
    check_target(path, found.nbytes)
    buffer = io.BytesIO()
    torch.save(found.state, buffer)

    def read(written: Path) -> Any:
        return torch.load(written, weights_only=True, map_location="cpu")

    size = _write(path, (buffer.getvalue(),), found.state, read)
    return found.exported("torch", size, about_zeros("torch", found.nonzeros, found.weights))


def _read(source: nn.Module | Packed, masks: Mapping[str, Tensor] | None) -> _Source:
    live = source.state if isinstance(source, Packed) else unwrap(source).state_dict()
    check_plain(live)
    counts = (
        source.metadata.get("inspection") or {}
        if isinstance(source, Packed)
        else inspect(source, masks=masks).to_dict()
    )
    names = _layers(counts)
    if not names or not names <= live.keys():
        raise RegrowError("the packed file does not tell its weights; write it with save.")
    state: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    firsts: dict[tuple[Any, ...], str] = {}
    for name, tensor in live.items():
        same = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        first = firsts.setdefault(same if tensor.numel() else (name,), name)
        if first == name:
            state[name] = _compact(tensor)
        else:
            state[name], tied[name] = state[first], first
    nonzeros = sum(int((state[name] != 0).sum()) for name in names)
    return _Source(state, tied, counts, nonzeros, sum(state[name].numel() for name in names))


def _layers(counts: Any) -> set[str]:
    """Names of the weights that a packed file's counts are of; none if these are no counts."""
    try:
        names = {str(layer["name"]) for layer in counts["layers"]}
        sound = type(counts["parameters"]) is int and type(counts["sparsity"]) is float
        return names if sound else set()
    except (KeyError, TypeError):
        return set()


def _compact(tensor: Tensor) -> Tensor:
    """On the CPU, in C order, in memory that holds nothing else."""
    plain = tensor.detach().cpu().contiguous()
    # A view of something larger would be saved with all of it.
    return plain if plain.untyped_storage().nbytes() == plain.nbytes else plain.clone()


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each with memory of its own."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in state.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart


def _with_notes(content: bytes, notes: Mapping[str, str]) -> tuple[bytes, bytes, bytes]:
    """A safetensors file with notes in their order: the library leaves it to chance."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": notes, **json.loads(content[8:start])}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little"), header, content[start:]


def _write(
    path: str | os.PathLike[str],
    content: Iterable[bytes],
    state: Mapping[str, Tensor],
    read: Callable[[Path], Mapping[str, Tensor]],
) -> int:
    """Write a file unless what `read` makes of it differs from the tensors in dtype or bits."""

    def check(written: Path) -> None:
        try:
            back = read(written)
        except Exception:  # Damaged files make both libraries raise of every kind.
            back = {}
        same = differing(state, back) is None
        if not same or any(tensor.dtype != back[name].dtype for name, tensor in state.items()):
            raise RegrowError(
                f"{os.fspath(path)} was not written: reading it back gave other values. Export a "
                "model that nothing is training meanwhile, and check the disk."
            )

    return write_atomic(path, content, check=check)
