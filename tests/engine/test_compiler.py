"""Groups and PyTorch's compiler: it is not loaded, and compiled code runs as it was written."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import Tensor, nn

import regrow

ALONE = """
import sys
import torch
import regrow
from torch import nn

model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
assert len(regrow.groups(model, torch.randn(1, 3, 8, 8))) == 1
assert "torch._dynamo" not in sys.modules
"""


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()


def test_the_compiler_is_not_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_part_that_is_compiled_is_seen_through() -> None:
    compiled: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        compiled.append(graph)
        return graph.forward

    model = nn.Sequential(nn.Conv2d(3, 8, 3), Part(), nn.Conv2d(6, 4, 3))
    x = torch.randn(1, 3, 8, 8)
    wanted = regrow.groups(model, x)
    model[1].compile(backend=backend)
    found = regrow.groups(model, x)
    assert str(found) == str(wanted)
    assert not compiled
    with torch.no_grad():
        model(x)
    assert compiled
