"""Checkpoint files of a run: whole, sound and of this very run, or refused by name."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regrow.core.errors import RegrowError
from regrow.core.files import write_atomic

_MAGIC = b"regrow state 1\n"
_DIGEST = 32


def digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()


def identity(*facts: Any) -> bytes:
    """A digest of plain data; equal data gives an equal digest, tuples counting as lists."""
    return digest(json.dumps(facts, sort_keys=True).encode())


@dataclass(frozen=True)
class StateFile:
    """A file of tensors and plain data that belongs to one arm of one run.

    Layout: a line with name and version, the run's identity, a digest of the content, the content
    as `torch.save` writes it. PyTorch alone would read flipped bits without a word.

    Attributes:
        path: where it lies.
        identity: of all that the arm's result depends on; see `identity`.
    """

    path: Path
    identity: bytes

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file at once; a kill at any moment leaves the old one or the new one.

        Raises:
            RegrowError: the disk refused.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        write_atomic(self.path, (_MAGIC, self.identity, digest(content), content))

    def read(self) -> dict[str, Any] | None:
        """What was written, on the CPU, or None where there is no file.

        Raises:
            RegrowError: the file is damaged, or belongs to another run.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegrowError(f"{self.path} cannot be read: {error.strerror}.") from error
        start = len(_MAGIC) + 2 * _DIGEST
        content = data[start:]
        if not data.startswith(_MAGIC) or digest(content) != data[start - _DIGEST : start]:
            raise RegrowError(
                f"{self.path} is damaged or no checkpoint of this regrow; delete it to train its "
                "arm again from the start."
            )
        if data[len(_MAGIC) : start - _DIGEST] != self.identity:
            raise RegrowError(
                f"{self.path} belongs to another run: its recipe, parameters, training, seed, data "
                "or network are not those of recipe.toml. Put the old recipe.toml back, or delete "
                "the file to train its arm again."
            )
        found = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        assert isinstance(found, dict)
        return found

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
