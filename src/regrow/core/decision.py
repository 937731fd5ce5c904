"""The outcome of one event: plain tensors, performed by the engine and by nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Decision:
    """What shall be kept, and how weights move.

    Attributes:
        keep: boolean keep masks of the weights' shapes, True = kept, by clean weight name.
        delta: added to the weights once, before projection: the values of regrown entries (which
            stand at zero), or the repair of those that stay when others are cut.
        told: what the criterion tells of it, plain data for the log.
    """

    keep: Mapping[str, Tensor]
    delta: Mapping[str, Tensor] | None = None
    told: Mapping[str, Any] | None = None
