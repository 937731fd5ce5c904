"""A smaller network on disk: its edits as JSON and its tensors as safetensors, in one folder."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.files import write_atomic
from regrow.core.names import unwrap
from regrow.engine.cut import Shrunk
from regrow.engine.surgery import Edits, apply

EDITS, TENSORS = "edits.json", "model.safetensors"
_FORMAT, _VERSION = "regrow-edits", 1
_MOST_BYTES = 1 << 28  # of edits


def save_shrunk(shrunk: Shrunk, folder: str | os.PathLike[str]) -> None:
    """Write a smaller network into a folder, which is created if it is missing.

    Raises:
        RegrowError: the disk refused.
    """
    where = Path(folder)
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegrowError(f"{where} cannot be made: {error.strerror}.") from error
    edits, tensors = shrunk.edits.json(), to_bytes(_own(shrunk.model))
    digests = {EDITS: _digest(json.dumps(edits).encode()), TENSORS: _digest(tensors)}
    content = {"format": _FORMAT, "version": _VERSION, "sha256": digests, **edits}
    write_atomic(where / TENSORS, tensors)
    write_atomic(where / EDITS, json.dumps(content).encode())


def load_shrunk(model: nn.Module, folder: str | os.PathLike[str]) -> nn.Module:
    """The smaller network of a folder, from a fresh one of its class as it was before the cut.

    Args:
        model: of the same class and sizes; it is left as it is.
        folder: written by `save_shrunk`. Nothing in it is executed.

    Raises:
        RegrowError: a file is missing or damaged, or of another network.
    """
    edits, digest = _read(Path(folder) / EDITS)
    made = apply(unwrap(model), edits)
    path = Path(folder) / TENSORS
    try:
        content = path.read_bytes()
        state = from_bytes(content) if _digest(content) == digest else None
    except (OSError, SafetensorError) as error:
        raise RegrowError(f"{path} cannot be read: {error}.") from error
    if state is None:
        raise RegrowError(f"{path} is damaged, or not of these edits: its SHA-256 is another.")
    expected = _own(made)
    for name in sorted(expected.keys() ^ state.keys()):
        has = "the file" if name in state else "the network"
        raise RegrowError(f"{path} is of another network: only {has} has {name}.")
    for name, tensor in expected.items():
        there = state[name]
        if tensor.shape != there.shape or tensor.dtype != there.dtype:
            raise RegrowError(
                f"{path} is of another network: {name} has shape {tuple(there.shape)} there and "
                f"{tuple(tensor.shape)} here, and type {there.dtype} there and {tensor.dtype} here."
            )
    whole = made.state_dict()  # with the versions that modules may ask for
    whole.update(state)
    made.load_state_dict(whole)
    return made


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> tuple[Edits, str]:
    """The edits of a file, and the digest of the tensors that belong to them."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RegrowError(f"{path} is larger than edits can be.")
        data: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise RegrowError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise RegrowError(f"{path} is damaged: {error}.") from error
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise RegrowError(f"{path} holds no edits of a network.")
    if data.get("version") != _VERSION:
        raise RegrowError(
            f"{path} has version {data.get('version')!r}; this regrow reads {_VERSION}."
        )
    edits, digests = Edits.of(data), data.get("sha256")
    own = _digest(json.dumps(edits.json()).encode())
    if not isinstance(digests, dict) or digests.get(EDITS) != own:
        raise RegrowError(f"{path} is damaged: its SHA-256 is another.")
    return edits, str(digests.get(TENSORS))


def _own(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, tied tensors once."""
    found: dict[str, Tensor] = {}
    seen: set[tuple[int, ...]] = set()
    memory: set[int] = set()
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise RegrowError(
                f"{name} in the state dict is no tensor ({type(tensor).__name__}), and nothing "
                "else is stored; save it apart."
            )
        key = (tensor.data_ptr(), *tensor.shape, *tensor.stride())
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        tensor = tensor.detach().contiguous()
        # The file's format takes no two that overlap, such as a buffer and its beginning.
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in memory else tensor
        memory.add(place)
    return found
