"""Networks that whole branches have left, as files: on disk, in ONNX Runtime, in the runtime."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.bench.models import resnet20
from regrow.core.errors import RegrowError
from regrow.engine.stand_ins import Passing
from regrow.engine.surgery import Edits, apply
from regrow.export.deploy import pack
from regrow.export.onnx import export_onnx
from regrow.export.settle import Constant, settle

X = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def fresh(seed: int = 0) -> nn.Module:
    return resnet20(width=0.5, generator=torch.Generator().manual_seed(seed)).eval()


def cut(net: nn.Module, x: Tensor = X, names: tuple[str, ...] | None = None) -> regrow.Shrunk:
    """Without the first branch of each stage, or without these groups."""
    numbers = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=numbers) + 0.5 * ("var" in name))
    groups = regrow.groups(net, x)
    names = names or ("layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer3.2.conv1")
    keep = {g.name: torch.full((len(g),), g.name not in names) for g in groups}
    return regrow.shrink(net, x, keep, groups=groups)


def outputs(net: nn.Module, x: Tensor = X) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = net(x).numpy()
    return found


def test_a_fresh_process_computes_the_same_bits(tmp_path: Path) -> None:
    small = cut(fresh())
    regrow.save_shrunk(small, tmp_path / "small")
    torch.save(X, tmp_path / "in.pt")
    code = f"""
import torch, regrow
from regrow.bench.models import resnet20
torch.set_num_threads(1)
net = regrow.load_shrunk(resnet20(width=0.5).eval(), {str(tmp_path / "small")!r})
x = torch.load({str(tmp_path / "in.pt")!r}, weights_only=True)
torch.save(net(x).detach(), {str(tmp_path / "out.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = outputs(small.model)
    torch.set_num_threads(threads)
    found = torch.load(tmp_path / "out.pt", weights_only=True).numpy()
    assert np.array_equal(found, expected)
    assert any(isinstance(module, Passing) for module in small.model.modules())


def test_a_settled_network_holds_constants_alone() -> None:
    small = cut(fresh()).model
    settled = copy.deepcopy(small)
    with torch.no_grad():
        settle(settled, (X,))
    np.testing.assert_allclose(outputs(settled), outputs(small), atol=1e-6)
    assert sum(isinstance(module, Constant) for module in settled.modules()) == 4
    assert all(tensor.numel() for tensor in settled.state_dict().values())
    assert isinstance(settled.layer1[0].bn2, nn.Identity)
    dense = fresh()
    before = str(dense)
    settle(dense, (X,))
    assert str(dense) == before


class Aside(nn.Module):
    """A branch of linear layers, one without norm, and a norm that two layers use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 4)
        self.c, self.d = nn.Linear(4, 5), nn.Linear(5, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = x + self.norm(self.b(self.a(x).relu()))
        return self.head(x + self.d(self.c(x).relu()))


def test_a_norm_of_two_layers_stays(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    x = torch.randn(4, 6)
    small = cut(Aside().eval(), x, ("a", "c")).model
    settled = copy.deepcopy(small)
    with torch.no_grad():
        settle(settled, (x,))
    assert isinstance(settled.norm, nn.BatchNorm1d)
    np.testing.assert_allclose(outputs(settled, x), outputs(small, x), atol=1e-6)
    export_onnx(small, tmp_path / "small.onnx", x)


def test_onnx_runtime_computes_it_and_no_work_of_a_branch_is_left(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    export_onnx(fresh(), tmp_path / "dense.onnx", X)
    done = export_onnx(cut(fresh()).model, tmp_path / "small.onnx", X)
    assert done.max_abs_diff is not None
    before, after = (
        Counter(node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node)
        for name in ("dense", "small")
    )
    # Two convolutions and a sum of each branch are one convolution of one pixel.
    assert after["Conv"] == before["Conv"] - 2 * 4 + 4
    assert after["Add"] == before["Add"] - 4
    assert not {"Expand", "Shape", "Concat", "BatchNormalization"} & after.keys()


def test_the_runtime_computes_it(tmp_path: Path) -> None:
    regrow_runtime = pytest.importorskip("regrow_runtime")
    small = cut(fresh()).model
    names = list(small.state_dict())
    pack(small, tmp_path / "small.regrow", X)
    found = regrow_runtime.load(tmp_path / "small.regrow")(X.numpy())
    np.testing.assert_allclose(found, outputs(small), atol=1e-5)
    assert list(small.state_dict()) == names
    counts = regrow.inspect(small, example=X)
    assert counts.parameters == sum(p.numel() for p in small.parameters())


class Encoder(nn.Module):
    """PyTorch's layers, which read the weights of those inside them."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x).mean(1)
        return y


def test_layers_that_look_into_others(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net, x = Encoder().eval(), torch.randn(3, 5, 8)
    groups = regrow.groups(net, x)
    keep = {group.name: torch.zeros(len(group), dtype=torch.bool) for group in groups}
    assert len(keep) == 2
    small = regrow.shrink(net, x, keep, groups=groups).model
    expected = outputs(regrow.masked(net, keep, groups=groups), x)
    np.testing.assert_allclose(outputs(small, x), expected, atol=1e-6)
    export_onnx(small, tmp_path / "small.onnx", x)


def test_edits_of_nothing_left_need_their_sizes() -> None:
    small = cut(fresh())
    data = small.edits.json()
    assert {"module": "layer1.0.conv1", "name": "out_channels", "value": 0} in data["attributes"]
    data["attributes"] = []
    with pytest.raises(RegrowError, match="the edits are damaged"):
        apply(fresh(), Edits.of(data))
