from __future__ import annotations

import torch
from torch import nn

from regrow.core.names import unwrap


class Holder(nn.Module):
    """A user's model whose submodule is really called `module`."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 3)


def test_a_plain_model_is_itself() -> None:
    model = Holder()
    assert unwrap(model) is model
    assert unwrap(model.module) is model.module


def test_wrappers_come_off_in_any_order() -> None:
    model = Holder()
    parallel = nn.DataParallel(model)
    assert unwrap(parallel) is model
    compiled = torch.compile(model, backend="eager")
    assert unwrap(compiled) is model
    assert unwrap(torch.compile(parallel, backend="eager")) is model
    assert unwrap(nn.DataParallel(compiled)) is model
    assert list(unwrap(nn.DataParallel(compiled)).state_dict()) == ["module.weight", "module.bias"]


def test_a_distributed_model(tmp_path: object) -> None:
    model = Holder()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert unwrap(wrapped) is model
        assert unwrap(torch.compile(wrapped, backend="eager")) is model
    finally:
        torch.distributed.destroy_process_group()
