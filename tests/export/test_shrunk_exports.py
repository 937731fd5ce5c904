"""A smaller network leaves as any other does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import regrow
from regrow.bench.models import resnet20
from regrow.export.deploy import pack
from regrow.export.onnx import export_onnx

X = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def small() -> torch.nn.Module:
    net = resnet20(width=0.5, generator=torch.Generator().manual_seed(0)).eval()
    groups = regrow.groups(net, X)
    keep = regrow.choose(net, groups, 0.5, of="macs")
    return regrow.shrink(net, X, keep, groups=groups).model.eval()


def test_into_the_runtime(small: torch.nn.Module, tmp_path: Path) -> None:
    regrow_runtime = pytest.importorskip("regrow_runtime")
    pack(small, tmp_path / "small.regrow", X)
    found = regrow_runtime.load(tmp_path / "small.regrow")(X.numpy())
    np.testing.assert_allclose(found, small(X).detach().numpy(), atol=1e-5)


def test_into_onnx_runtime(small: torch.nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = export_onnx(small, tmp_path / "small.onnx", X)
    assert done.bytes < 4 * sum(p.numel() for p in resnet20(width=0.5).parameters())


def test_pruned_further_and_saved(small: torch.nn.Module, tmp_path: Path) -> None:
    assert regrow.prune(small, 0.9).sparsity == pytest.approx(0.9, abs=1e-3)
    regrow.save(small, tmp_path / "weights.regrow")
    assert "conv1.weight" in regrow.load_masks(tmp_path / "weights.regrow")
