"""Loads a pruned network in a fresh process and prints how far its outputs are from the expected.

python reload.py TOOL SETTING NAME FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import environment
import models
import torch
from case import difference
from network import call


def main(arguments: list[str]) -> None:
    name, setting, network, folder = arguments
    torch.set_num_threads(1)
    environment.prepare()
    import tools

    tool = tools.tool(name, setting)
    torch.manual_seed(1)  # a fresh network has other weights
    model = tool.load(models.find(network), folder)
    example, expected = torch.load(Path(folder) / "expected.pt", weights_only=False)
    with torch.no_grad():
        print(difference(call(model.eval(), example), expected))


if __name__ == "__main__":
    main(sys.argv[1:])
