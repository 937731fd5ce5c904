"""The one counter, against counts by hand."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.bench.models import resnet20, vgg16_bn


class Text(nn.Module):
    """An embedding tied to the output layer, a norm, attention and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.rnn = nn.GRU(8, 4)
        self.scale = nn.Parameter(torch.ones(3))
        self.out = nn.Linear(8, 11)
        self.free = nn.Embedding(5, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.out(self.norm(self.attention(h, h, h)[0]))


def test_dense_network_by_hand() -> None:
    report = regrow.inspect(resnet20(10))
    assert (report.total, report.kept, report.sparsity) == (268_336, 268_336, 0.0)
    model = resnet20(10)
    assert report.parameters == sum(p.numel() for p in model.parameters())
    assert report.other["bias"] == 10
    assert report.other["norm"] == 2 * (16 * 7 + 32 * 6 + 64 * 6)
    assert report.other["embedding"] == report.other["other"] == 0


def test_kinds_apart_and_tied_weights_once() -> None:
    model = Text()
    report = regrow.inspect(model)
    assert {layer.name: layer.total for layer in report.layers} == {
        "attention.in_proj_weight": 192,
        "attention.out_proj.weight": 64,
        "out.weight": 88,
    }
    assert report.other == {
        "bias": 24 + 8 + 11 + 24,
        "norm": 16,
        "embedding": 88 + 40,
        "other": 3 + 12 * 8 + 12 * 4,
    }
    model.out.weight = model.embed.weight
    tied = regrow.inspect(model)
    assert tied.total == report.total
    assert tied.other["embedding"] == 40
    assert tied.parameters == sum(p.numel() for p in model.parameters())


def test_zeros_are_counted_one_by_one() -> None:
    torch.manual_seed(0)
    model = vgg16_bn(10, width=0.0625)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[torch.rand(parameter.shape) < 0.3] = 0
    report = regrow.inspect(model)
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    kept = sum(value != 0 for w in weights for value in w.flatten().tolist())
    total = sum(w.numel() for w in weights)
    assert (report.kept, report.total) == (kept, total)
    assert report.sparsity == pytest.approx(1 - kept / total)


def test_masks_say_what_is_kept_even_where_a_kept_weight_is_zero() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    keep = torch.tensor([True, False]).repeat(8).view(4, 4)
    with torch.no_grad():
        model[0].weight.mul_(keep)[0, 0] = 0
    assert regrow.inspect(model).kept == 7
    assert regrow.inspect(model, masks={"0.weight": keep}).kept == 8


def test_multiply_adds_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),  # 216 weights, 8 x 8 positions
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    with torch.no_grad():
        model[0].weight[0] = 0
        model[3].weight[:5] = 0
    report = regrow.inspect(model, example=torch.zeros(4, 3, 16, 16))
    assert report.macs(dense=True) == 216 * 64 + 5120
    assert report.macs() == (216 - 27) * 64 + 2560
    assert regrow.inspect(model).macs() is None
    assert model.training


def test_resnet20_multiply_adds_are_the_literature_s() -> None:
    report = regrow.inspect(resnet20(10), example=torch.zeros(1, 3, 32, 32))
    # Convolutions: 27*16*1024, then 6 of 2304*1024; stage two 4608*256 and 5 of 9216*256; stage
    # three 18432*64 and 5 of 36864*64; and the 640 of the classifier: the usual "41 M".
    by_hand = 432 * 1024 + 6 * 2304 * 1024 + (4608 + 5 * 9216) * 256 + (18432 + 5 * 36864) * 64
    assert report.macs() == report.macs(dense=True) == by_hand + 640
    assert 40e6 < by_hand < 41e6


def test_printed_and_machine_readable() -> None:
    model = Text()
    regrow.prune(model, 0.5)
    report = regrow.inspect(model)
    text = str(report)
    assert "attention.in_proj_weight" in text
    assert f"{report.kept:,}" in text
    assert "sparsity is over convolution and linear weights; apart: bias 67, norm 16" in text
    assert len({len(line) for line in text.splitlines()[:-1]}) == 1  # columns line up
    data = json.loads(json.dumps(report.to_dict()))
    assert data["sparsity"] == 0.5
    assert data["kept"] == sum(layer["kept"] for layer in data["layers"]) == 172
    assert data["macs_kept"] is None
    shown = str(regrow.inspect(nn.Sequential(nn.Linear(2, 2)), example=torch.zeros(1, 2)))
    assert shown.endswith(
        "multiply-adds per sample: 4 on kept weights, 4 dense (a count, not a speed)"
    )


def test_wrappers_are_looked_through_and_bad_input_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    compiled = torch.compile(model, backend="eager")
    assert regrow.inspect(compiled) == regrow.inspect(model)
    with pytest.raises(regrow.RegrowError, match="nothing can be"):
        regrow.inspect(nn.ReLU())
    with pytest.raises(regrow.RegrowError, match="does not run"):
        regrow.inspect(model, example=torch.zeros(1, 7))


def test_bit_operations_weigh_multiply_adds_by_bits() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(), nn.Linear(288, 10))
    with torch.no_grad():
        model[0].weight[0] = 0
    report = regrow.inspect(model, example=torch.zeros(1, 3, 8, 8))
    first, second = (216 - 27) * 36, 2880
    assert report.bit_operations() == (first + second) * 32 * 32
    bits = {"0.weight": 4, "2.weight": 3}
    assert report.bit_operations(bits) == (first * 4 + second * 3) * 32
    assert report.bit_operations(bits, activations=8) == (first * 4 + second * 3) * 8
    assert report.bit_operations(dense=True) == report.macs(dense=True) * 1024  # type: ignore[operator]
    assert regrow.inspect(model).bit_operations() is None
    with pytest.raises(regrow.RegrowError, match="unknown weight 'weight'"):
        report.bit_operations({"weight": 4})
