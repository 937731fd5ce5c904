"""Dimensions that were merged into one, told apart again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def told_apart(
    columns: npt.NDArray[np.int64], sizes: Sequence[int]
) -> list[list[npt.NDArray[np.int64]]] | None:
    """Which factors depend on which of the merged dimensions alone; None where one does not.

    Args:
        columns: the factors of each index of the merged dimension; (indices, factors).
        sizes: of the dimensions, in the order in which they were merged.

    Returns:
        for each dimension: its factors, (size,) each.
    """
    found: list[list[npt.NDArray[np.int64]]] = [[] for _ in sizes]
    for column in columns.T:
        grid = column.reshape(sizes)
        for i in range(len(sizes)):
            others = tuple(j for j in range(len(sizes)) if j != i)
            along = grid[tuple(slice(None) if j == i else 0 for j in range(len(sizes)))]
            if (grid == np.expand_dims(along, others)).all():
                found[i].append(along)
                break
        else:
            return None
    return found
