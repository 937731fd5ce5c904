"""Keep masks as packed bits: an eighth of a byte a weight."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import torch
from torch import Tensor

from regrow.core.errors import RegrowError


@cache
def _bytes_of(device: torch.device) -> Tensor:
    # Row b holds the eight booleans of byte b, lowest bit first, seen as one int64: unpacking is
    # then a single gather of eight bytes for every packed byte.
    bits = (torch.arange(256).unsqueeze(1) >> torch.arange(8)) & 1
    return bits.to(torch.uint8).view(torch.int64).squeeze(1).to(device)


def pack_bits(mask: Tensor) -> Tensor:
    """uint8 of ceil(numel / 8) bytes: C-order flat index, lowest bit first, zero padding."""
    flat = mask.reshape(-1).to(torch.uint8)
    flat = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=flat.device)
    return (flat * weights).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The boolean mask of the shape; the inverse of `pack_bits`."""
    numel = 1
    for extent in shape:
        numel *= extent
    eights = _bytes_of(packed.device)[packed.int()]
    return eights.view(torch.uint8).view(torch.bool)[:numel].view(shape)


class MaskSet(Mapping[str, Tensor]):
    """Boolean keep masks by clean weight name, True = kept; stored packed, read unpacked.

    Immutable: `replaced` returns a new set. Reading `masks[name]` unpacks one mask of the
    weight's shape on the device where the bits live.
    """

    def __init__(self, keep: Mapping[str, Tensor]) -> None:
        self._shapes = {name: tuple(mask.shape) for name, mask in keep.items()}
        self._packed = {name: pack_bits(mask) for name, mask in keep.items()}
        self._kept = {name: int(mask.sum()) for name, mask in keep.items()}

    def __getitem__(self, name: str) -> Tensor:
        return unpack_bits(self._packed[name], self._shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def removed(self, name: str) -> Tensor:
        """The complement of `masks[name]`, unpacked in one pass for projection."""
        return unpack_bits(self._packed[name].bitwise_not(), self._shapes[name])

    def full(self, name: str) -> bool:
        """Whether all entries of a weight are kept."""
        return self._kept[name] == torch.Size(self._shapes[name]).numel()

    def replaced(self, keep: Mapping[str, Tensor]) -> MaskSet:
        """A new set with some masks replaced."""
        fresh = MaskSet(keep)
        out = copy.copy(self)
        out._shapes = {**self._shapes, **fresh._shapes}
        out._packed = {**self._packed, **fresh._packed}
        out._kept = {**self._kept, **fresh._kept}
        return out

    def __or__(self, other: MaskSet) -> MaskSet:
        """What either of two sets of the same names and shapes keeps."""
        return MaskSet({name: self[name] | other[name] for name in self})

    def only(self, names: Iterable[str]) -> MaskSet:
        """Some of the masks, sharing their bits."""
        out, wanted = copy.copy(self), list(names)
        for field in ("_shapes", "_packed", "_kept"):
            setattr(out, field, {name: getattr(self, field)[name] for name in wanted})
        return out

    @property
    def kept(self) -> dict[str, int]:
        """Kept entries per weight."""
        return dict(self._kept)

    @property
    def total(self) -> dict[str, int]:
        """Entries per weight."""
        return {name: torch.Size(shape).numel() for name, shape in self._shapes.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of the packed bits."""
        return sum(bits.numel() for bits in self._packed.values())

    def checksum(self) -> str:
        """A digest of names, shapes and bits: equal on two ranks only if the masks are."""
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(self._packed):
            digest.update(repr((name, self._shapes[name])).encode())
            digest.update(self._packed[name].cpu().numpy().tobytes())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Tensor]:
        """The packed bits by name, as plain tensors."""
        return {name: bits.clone() for name, bits in self._packed.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> MaskSet:
        """The inverse of `state_dict`, for weights of the given shapes and devices.

        Raises:
            RegrowError: a name is missing or unexpected, or the bits do not fit a shape.
        """
        for name in sorted(set(state) ^ set(weights)):
            has = "the checkpoint" if name in state else "the model"
            raise RegrowError(f"the masks are of another model: only {has} has weight {name!r}.")
        for name, weight in weights.items():
            need = -(-weight.numel() // 8)
            if state[name].dtype != torch.uint8 or state[name].numel() != need:
                raise RegrowError(
                    f"the masks are of another model: {name} of shape {tuple(weight.shape)} needs "
                    f"{need} bytes of mask, the checkpoint has {state[name].numel()}."
                )
        return cls(
            {n: unpack_bits(state[n].to(w.device), tuple(w.shape)) for n, w in weights.items()}
        )
