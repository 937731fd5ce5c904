"""Random numbers from named keys: no hidden state, so nothing to save and nothing to drift."""

from __future__ import annotations

import hashlib

import torch


def seed_of(*key: object) -> int:
    """A 63-bit seed from a key of plain values; equal keys give equal seeds on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: object) -> torch.Generator:
    """A CPU generator for a key.

    Draw on the CPU and move the result: accelerators number their streams differently, and
    masks must be equal on every device and rank.
    """
    return torch.Generator().manual_seed(seed_of(*key))
