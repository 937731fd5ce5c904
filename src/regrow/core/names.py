"""Finding the user's own module inside the wrappers that compile or parallelise it."""

from __future__ import annotations

import sys

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel


def unwrap(model: nn.Module) -> nn.Module:
    """The module that `torch.compile`, `DataParallel`, DDP or `AveragedModel` wraps.

    Wrappers prefix every state-dict name (`_orig_mod.`, `module.`); the module inside has the
    names of its own class. Wrappers are recognised by their type, so a submodule that a user
    calls `module` is left alone. Only wrappers around the whole model are removed, in any order
    and depth; a compiled submodule inside the model stays.

    Args:
        model: a model, wrapped or not.

    Returns:
        The innermost module; the same object where nothing wraps it.
    """
    while True:
        # A compiled module exists only once this file of torch is loaded; loading it is slow.
        dynamo = sys.modules.get("torch._dynamo.eval_frame")
        if dynamo is not None and isinstance(model, dynamo.OptimizedModule):
            model = model._orig_mod
        elif isinstance(model, (DataParallel, DistributedDataParallel, AveragedModel)):
            model = model.module
        else:
            return model
