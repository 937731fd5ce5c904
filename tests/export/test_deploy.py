"""The deploy file from torch's side: what is stored, what it computes, what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regrow.bench.models import digits_cnn, resnet20
from regrow.core.errors import RegrowError
from regrow.engine.prune import prune
from regrow.export.deploy import Packing, Values, pack
from regrow.export.packed import load, load_masks, unpack
from regrow.export.quantise import input_energy, levels_of, quantise
from regrow.model.inventory import inventory, weights_of
from regrow.parts.reparam.dead_zone import DeadZone

regrow_runtime = pytest.importorskip("regrow_runtime", reason="the runtime is not installed")


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and norms as after training, with random zeros."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, mean in ((module.weight, 1), (module.bias, 0), (module.running_mean, 0)):
                if tensor is not None:
                    tensor.data.normal_(mean, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    prune(model, 0.9)
    return model.eval()


def images(count: int, channels: int = 1, size: int = 8) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> nn.Module:
    return trained(digits_cnn())


@pytest.mark.parametrize("values", ["fp32", "fp16", "bf16", "int8"])
def test_the_runtime_computes_what_torch_computes(
    model: nn.Module, values: Any, tmp_path: Path
) -> None:
    x = images(5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    packing = pack(model, tmp_path / "m.regrow", x, values=values)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    found = regrow_runtime.load(tmp_path / "m.regrow")(x.numpy())
    with torch.no_grad():
        expected = model(x).numpy()
    scale = np.abs(expected).max()
    loose = {"fp32": 1e-6, "fp16": 2e-3, "bf16": 2e-2, "int8": 3e-2}[values]
    assert np.abs(found - expected).max() < loose * scale
    assert packing.max_abs_diff < 1e-5 * scale
    assert packing.bytes == (tmp_path / "m.regrow").stat().st_size
    assert packing.nonzeros <= packing.weights // 10 + 1


def test_weights_are_stored_to_the_bit_and_smaller_with_every_precision(
    model: nn.Module, tmp_path: Path
) -> None:
    sizes = []
    for values in VALUES:
        sizes.append(pack(model, tmp_path / values, images(2), values=values).bytes)
    assert sizes[0] > sizes[1] > sizes[2]
    contents = regrow_runtime.file.read(tmp_path / "fp32")
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(contents.arrays[name].values, tensor.numpy())


class Norms(nn.Module):
    """Convolutions whose norms can be folded, and some whose norms cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False))
        self.twice = nn.Sequential(
            nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        )
        self.read = nn.Conv2d(8, 8, 3, padding=1)
        self.after = nn.BatchNorm2d(8)
        self.tied = nn.ModuleList([nn.Conv2d(8, 8, 1, bias=False) for _ in range(2)])
        self.tied[1].weight = self.tied[0].weight
        self.norms = nn.ModuleList([nn.BatchNorm2d(8) for _ in range(2)])
        self.shared = nn.ModuleList([nn.Conv2d(8, 8, 1) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.twice(self.plain(x)))
        y = self.read(x)
        x = torch.relu(self.after(y)) + y
        for conv, norm in zip(self.tied, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        for conv in self.shared:
            x = self.after(conv(x))
        return x


def test_weights_of_few_magnitudes_are_stored_as_whole_numbers(
    model: nn.Module, tmp_path: Path
) -> None:
    """As a quantiser leaves them: exact, and in a few bits each."""
    plain = pack(model, tmp_path / "plain", images(2))
    how = DeadZone(4)
    with torch.no_grad():
        for weight in weights_of(model, inventory(model)).values():
            numbers = {"width": torch.tensor(0.5)}
            weight.copy_(how.used(weight, weight.abs().max(), numbers))
    packing = pack(model, tmp_path / "few", images(2))
    assert packing.bytes < 0.6 * plain.bytes
    contents = regrow_runtime.file.read(tmp_path / "few")
    for name, weight in weights_of(model, inventory(model)).items():
        array = contents.arrays[name]
        assert np.array_equal(array.floats(), weight.detach().numpy())
        if int((weight != 0).sum()) < 4 * 7:  # the table would cost more than it saves
            continue
        assert array.dtype == "int8"
        assert int(np.abs(array.values).max()) == len(array.levels) <= 7
    assert packing.nonzeros == sum(
        int((weight != 0).sum()) for weight in weights_of(model, inventory(model)).values()
    )
    again = digits_cnn()
    load(again, tmp_path / "few")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_levels_are_exact_or_none() -> None:
    weight = torch.tensor([[0.5, -0.25, 0.0, 0.25], [2.0, -2.0, -0.5, 0.0]]).repeat(8, 1)
    found = levels_of(weight)
    assert found is not None
    whole, magnitudes = found
    assert magnitudes.tolist() == [0.25, 0.5, 2.0]
    assert whole[:2].tolist() == [[2, -1, 0, 1], [3, -3, -2, 0]]
    assert levels_of(torch.randn(40, 40)) is None
    assert levels_of(torch.zeros(4, 4)) is None
    assert levels_of(weight.double()) is None
    assert levels_of(weight / 0) is None


def test_norms_go_into_the_scales_of_int8_weights(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "m"
    pack(model, path, images(2), values="int8")
    contents = regrow_runtime.file.read(path)
    assert all(node.op != "batch_norm" for node in contents.graph.nodes)
    assert not any("running" in name or "tracked" in name for name in contents.arrays)
    with pytest.raises(RegrowError, match="norms were folded into its int8 weights"):
        load(digits_cnn(), path)
    network = trained(Norms())
    packing = pack(network, path, images(3, 3, 9), values="int8")
    assert packing.max_abs_diff < 1e-4
    graph = regrow_runtime.file.read(path).graph
    # The one after `read`, whose output is read twice, and those of the tied weights; the other
    # uses of `after` are folded.
    left = [node.module for node in graph.nodes if node.op == "batch_norm"]
    assert left == ["after", "norms.0", "norms.1"]


def test_counts_and_bits_of_a_residual_network(tmp_path: Path) -> None:
    model = trained(resnet20())
    packing = pack(model, tmp_path / "r", images(2, 3, 32))
    weights = {n: p for n, p in model.named_parameters() if p.ndim > 1}
    assert packing.weights == sum(p.numel() for p in weights.values()) == 268_336
    assert packing.nonzeros == sum(int((p != 0).sum()) for p in weights.values())
    assert packing.dense_fp32_bytes == 4 * sum(p.numel() for p in model.parameters())
    assert {layer["name"] for layer in packing.layers} == set(weights)
    assert packing.position_bits == sum(layer["position_bits"] for layer in packing.layers)
    # Kept at random in layers alike: no code could do much better than the bound.
    assert 0.9 < packing.position_bits / packing.position_bits_bound < 1.15
    assert set(Packing.__dataclass_fields__) == set(packing.to_dict())


def test_a_zero_times_a_negative_weight_is_not_stored(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 32))
    layer: Any = model[0]
    layer.weight.data *= torch.rand(32, 64, generator=torch.Generator().manual_seed(0)) < 0.1
    assert bool(torch.signbit(layer.weight[layer.weight == 0]).any())
    packing = pack(model, tmp_path / "m", torch.randn(3, 64))
    assert packing.nonzeros == int((layer.weight != 0).sum())
    assert packing.layers[0]["kept"] == packing.nonzeros


def test_it_runs_where_there_is_no_torch(model: nn.Module, tmp_path: Path) -> None:
    x = images(3)
    pack(model, tmp_path / "m.regrow", x)
    np.save(tmp_path / "x.npy", x.numpy())
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, regrow_runtime\n"
        "y = regrow_runtime.load('m.regrow')(np.load('x.npy'))\n"
        "np.save('y.npy', y)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    with torch.no_grad():
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(x).numpy(), atol=1e-5)


def test_refusals_come_before_the_file(model: nn.Module, tmp_path: Path) -> None:
    target = tmp_path / "m"
    with pytest.raises(RegrowError, match="values"):
        pack(model, target, images(1), values="int4")  # type: ignore[arg-type]
    with pytest.raises(RegrowError, match="no sample"):
        pack(model, target, images(0))
    with pytest.raises(RegrowError, match="create it first"):
        pack(model, tmp_path / "none" / "m", images(1))
    model.get_submodule("conv1").weight.data[0, 0, 0, 0] = 1e6  # type: ignore[union-attr, operator, index]
    with pytest.raises(RegrowError, match=r"conv1\.weight has values beyond .* float16"):
        pack(model, target, images(1), values="fp16")
    model.get_submodule("conv1").weight.data[0, 0, 0, 0] = torch.nan  # type: ignore[union-attr, operator, index]
    with pytest.raises(RegrowError, match="was not written"):
        pack(model, target, images(1))
    with pytest.raises(RegrowError, match=r"aten.*cumsum.*1"):
        pack(nn.Sequential(nn.Linear(4, 4), Cumulative()), target, torch.randn(2, 4))
    assert not target.exists()


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    first, last = model[0], model[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    last.weight = first.weight
    sizes = [pack(model, tmp_path / "m", torch.randn(3, 16), values=v).bytes for v in VALUES]
    assert sizes == sorted(sizes, reverse=True)
    arrays = regrow_runtime.file.read(tmp_path / "m").arrays
    assert arrays["0.weight"] is arrays["2.weight"]
    assert arrays["2.weight"].dtype == "int8"


def test_what_is_not_finite_or_unknown_is_refused(model: nn.Module, tmp_path: Path) -> None:
    target, x = tmp_path / "m", images(2)
    with pytest.raises(RegrowError, match="mask of tensor"):
        pack(model, target, x, masks={"conv9.weight": torch.ones(1, dtype=torch.bool)})
    masks = {"hidden.weight": torch.zeros_like(model.get_parameter("hidden.weight")).bool()}
    with pytest.raises(RegrowError, match=r"hidden\.weight.*removed"):
        pack(model, target, x, masks=masks)
    broken = x.clone()
    broken[0, 0, 0, 0] = torch.nan
    with pytest.raises(RegrowError, match="energies"):
        pack(model, target, x, values="int8", calibration=[broken])
    model.get_parameter("hidden.weight").data[0, 0] = torch.inf
    with pytest.raises(RegrowError, match="weights are not all finite"):
        pack(model, target, x, values="int8")
    assert not target.exists()


VALUES: tuple[Values, ...] = ("fp32", "fp16", "int8")


class Cumulative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


def test_scales_are_the_best_of_all_that_are_tried() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(7, 5, 3, 3, generator=generator) * 0.1
    weight[2] = 0
    energy = torch.rand(5, 3, 3, generator=generator)
    whole, scales = quantise(weight, energy)
    assert whole.dtype == torch.int8
    assert int(whole.abs().max()) <= 127
    assert (whole[2] == 0).all()
    assert scales[2] == 1
    error = ((weight - whole * scales.view(-1, 1, 1, 1)) ** 2 * energy).sum((1, 2, 3))
    for shrink in torch.linspace(0.5, 1.0, 51):
        tried = (weight.abs().amax((1, 2, 3)) * shrink / 127).clamp(min=1e-30).view(-1, 1, 1, 1)
        other = (weight / tried).round().clamp(-127, 127) * tried
        assert (error <= ((weight - other) ** 2 * energy).sum((1, 2, 3)) + 1e-12).all()


def test_energy_is_the_mean_square_of_a_layers_inputs() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    batches = [torch.randn(3, 2, 4, 4), torch.randn(5, 2, 4, 4)]
    found = input_energy(model, batches)
    every = torch.cat(batches)
    expected = (every**2).mean((0, 2, 3))
    torch.testing.assert_close(found["0.weight"], expected[:, None, None].expand(2, 3, 3))
    with torch.no_grad():
        hidden = model[:3](every)
    torch.testing.assert_close(found["3.weight"], (hidden**2).mean(0))


def test_a_deploy_file_is_loaded_inspected_and_pruned_further(
    model: nn.Module, tmp_path: Path
) -> None:
    file = tmp_path / "m.regrow"
    masks = {n: p != 0 for n, p in model.named_parameters() if p.ndim > 1}
    pack(model, file, images(2), masks=masks, metadata={"note": 1})
    other = load(digits_cnn(), file)
    assert all(torch.equal(a, b) for a, b in zip(
        model.state_dict().values(), other.state_dict().values(), strict=True
    ))  # fmt: skip
    assert all(torch.equal(mask, masks[name]) for name, mask in load_masks(file).items())
    assert unpack(file).metadata["note"] == 1
    pack(model, file, images(2), values="bf16")
    rounded = load(digits_cnn(), file).state_dict()["hidden.weight"]
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, model.state_dict()["hidden.weight"].bfloat16().float())
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RegrowError, match=r"m\.regrow"):
        unpack(file)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RegrowError, match="not a file"):
        unpack(tmp_path / "pipe")
