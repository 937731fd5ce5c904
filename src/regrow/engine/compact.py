"""What stays of a large tensor, in its own memory: new memory costs more than the work."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from regrow.engine.surgery import cut

_PIECE = 1 << 17  # numbers, which a processor's cache holds
LARGE = 8 * _PIECE  # from here on it is worth it


def compacted(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    """The entries at the indices that stay, moved to the front; the tensor's own are lost.

    Args:
        tensor: contiguous.
        dims: the indices that stay, ascending, by dimension; as for `surgery.cut`.
    """
    shape = [len(dims[i]) if i in dims else size for i, size in enumerate(tensor.shape)]
    made = tensor.view(-1)[: math.prod(shape)].view(shape)
    inner = {dim: indices for dim, indices in dims.items() if dim}
    step = max(1, _PIECE // max(1, tensor[0].numel()))
    for start in range(0, shape[0], step):  # what is written lies before what is still to be read
        stop = min(start + step, shape[0])
        if 0 in dims:
            rows = tensor.index_select(0, dims[0][start:stop].to(tensor.device))
        else:
            rows = tensor[start:stop]
        made[start:stop] = cut(rows, inner)
    return made
