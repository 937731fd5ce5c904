"""Uses of weights per sample: published totals, a brute-force oracle, awkward models."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regrow.bench.models import resnet20, vgg16_bn
from regrow.core.errors import RegrowError
from regrow.model.counters import positions
from regrow.model.inventory import inventory


def macs(model: nn.Module, example: Any) -> int:
    parameters = dict(model.named_parameters())
    return sum(parameters[n].numel() * p for n, p in positions(model, example).items())


def test_resnet20_on_cifar_is_40_55_million() -> None:
    # stem and stage 1 at 32 x 32, stage 2 at 16 x 16, stage 3 at 8 x 8, then the linear layer
    one = 9 * (3 * 16 + 6 * 16 * 16) * 32**2
    two = 9 * (16 * 32 + 5 * 32 * 32) * 16**2
    three = 9 * (32 * 64 + 5 * 64 * 64) * 8**2
    assert macs(resnet20(), torch.rand(2, 3, 32, 32)) == one + two + three + 640 == 40_551_040


def test_vgg16_on_cifar_is_313_million() -> None:
    chain = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    sides = [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2]
    convs = sum(
        9 * a * b * s * s for (a, b), s in zip(itertools.pairwise(chain), sides, strict=True)
    )
    assert macs(vgg16_bn(), torch.rand(1, 3, 32, 32)) == convs + 5120 == 313_201_664


def brute_force(conv: nn.Conv2d | nn.ConvTranspose2d, height: int, width: int) -> Tensor:
    """Multiply-adds of every weight entry, by the loops that define the operation.

    Each step adds weight * input into the output, so the outputs prove that the loops are the
    operation whose steps are being counted. Steps that read or write padding count as steps.
    """
    x = torch.rand(conv.in_channels, height, width)
    out_h, out_w = conv(x[None]).shape[-2:]
    used = torch.zeros(conv.weight.shape)
    out = torch.zeros(conv.out_channels, out_h, out_w)
    transposed = isinstance(conv, nn.ConvTranspose2d)
    anchors = (height, width) if transposed else (out_h, out_w)
    ins, outs = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    kernel = [range(k) for k in conv.kernel_size]
    for g, i, o, u, v in itertools.product(range(conv.groups), range(ins), range(outs), *kernel):
        at = (g * ins + i, o, u, v) if transposed else (g * outs + o, i, u, v)
        for row, column in itertools.product(range(anchors[0]), range(anchors[1])):
            used[at] += 1
            far = (
                row * conv.stride[0] - conv.padding[0] + u * conv.dilation[0],  # type: ignore
                column * conv.stride[1] - conv.padding[1] + v * conv.dilation[1],  # type: ignore
            )
            source, target = ((row, column), far) if transposed else (far, (row, column))
            inside = 0 <= source[0] < height and 0 <= source[1] < width
            if inside and 0 <= target[0] < out_h and 0 <= target[1] < out_w:
                value = conv.weight[at].detach() * x[g * ins + i, source[0], source[1]]
                out[g * outs + o, target[0], target[1]] += value
    torch.testing.assert_close(out, conv(x[None])[0].detach(), rtol=1e-4, atol=1e-5)
    return used


@settings(max_examples=15, deadline=None)
@given(
    transposed=st.booleans(),
    groups=st.sampled_from([1, 2]),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 1),
    side=st.tuples(st.integers(3, 5), st.integers(3, 5)),
)
def test_convolutions_against_brute_force(
    transposed: bool,
    groups: int,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    padding: int,
    side: tuple[int, int],
) -> None:
    build = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = build(
        channels[0] * groups,
        channels[1] * groups,
        kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        bias=False,
    )
    spans = [dilation * (k - 1) + 1 for k in kernel]
    if transposed:
        assume(
            all((n - 1) * stride - 2 * padding + k > 0 for n, k in zip(side, spans, strict=True))
        )
    else:
        assume(all(n + 2 * padding >= k for n, k in zip(side, spans, strict=True)))
    used = brute_force(conv, *side)
    found = positions(conv, torch.rand(3, conv.in_channels, *side))
    assert found == {"weight": int(used.max())}
    assert used.min() == used.max()


@pytest.mark.parametrize(
    ("layer", "shape", "uses"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, groups=2), (5, 4, 11), 5),
        (nn.Conv3d(2, 2, 2), (5, 2, 4, 5, 6), 3 * 4 * 5),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), (5, 4, 6, 7), 6 * 7),
        (nn.ConvTranspose1d(4, 6, 3, stride=2), (5, 4, 11), 11),
        (nn.ConvTranspose3d(2, 2, 2, stride=2), (5, 2, 4, 5, 6), 4 * 5 * 6),
        (nn.Linear(4, 7), (5, 4), 1),
        (nn.Linear(4, 7), (5, 3, 2, 4), 3 * 2),
    ],
)
def test_every_layer_type(layer: nn.Module, shape: tuple[int, ...], uses: int) -> None:
    assert positions(layer, torch.rand(shape)) == {"weight": uses}
    assert positions(layer, torch.rand(1, *shape[1:])) == {"weight": uses}


class Awkward(nn.Module):
    """A layer that runs twice, tied weights, a layer that never runs, a batch folded into rows."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.again = self.twice
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.twice.weight
        self.never = nn.Linear(4, 4)
        self.folded = nn.Linear(4, 2)
        self.table = nn.Parameter(torch.rand(9, 4))
        self.constant = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        x = self.tied(self.again(self.twice(self.norm(x.mT).mT))) * scale
        x = x + self.constant(self.table).mean(0)  # nine rows whatever the batch
        return self.folded(x.reshape(-1, 4))


AWKWARD = {
    "twice.weight": 3 * 6,
    "never.weight": 0,
    "folded.weight": 6,
    "constant.weight": 9,
}


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(
    "example",
    [
        lambda x: x,
        lambda x: (x,),
        lambda x: [x, 2.0],
        lambda x: (x, torch.rand(len(x), 1, 1)),
        lambda x: (x, torch.tensor(2.0)),
        lambda x: {"x": x, "scale": torch.rand(len(x), 1, 1)},
    ],
)
def test_shared_tied_unused_and_folded_layers(batch: int, example: Callable[[Tensor], Any]) -> None:
    model = Awkward()
    found = positions(model, example(torch.rand(batch, 6, 4)))
    assert found == AWKWARD
    assert list(found) == [entry.name for entry in inventory(model)]


@pytest.mark.parametrize("compiled", ["whole", "in place", "part in place"])
def test_compiled_models_are_seen_without_compiling_again(compiled: str) -> None:
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    model, x = Awkward().eval(), torch.rand(1, 6, 4)
    wrapped: nn.Module = model
    prefix = ""
    if compiled == "whole":
        wrapped = torch.compile(model, backend=backend)  # type: ignore[assignment]
    else:
        model.compile(backend=backend)
    if compiled == "part in place":
        wrapped, prefix = nn.Sequential(model), "0."
    with torch.no_grad():
        wrapped(x)
    assert len(graphs) == 1
    assert positions(wrapped, x) == {prefix + name: uses for name, uses in AWKWARD.items()}
    assert len(graphs) == 1


def test_attention_weights_are_counted_though_they_are_applied_by_functions() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    found = positions(model, torch.rand(3, 5, 8))
    assert set(found) == {entry.name for entry in inventory(model)}
    assert set(found.values()) == {5}

    cross = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)
    example = {
        "query": torch.rand(2, 5, 8),
        "key": torch.rand(2, 7, 6),
        "value": torch.rand(2, 7, 4),
    }
    assert positions(cross, example) == {
        "q_proj_weight": 5,
        "k_proj_weight": 7,
        "v_proj_weight": 7,
        "out_proj.weight": 5,
    }


def test_frames_folded_into_the_batch_count_for_their_sample() -> None:
    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3)
            self.up = nn.ConvTranspose2d(4, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.conv(x.flatten(0, 1)))

    frames, area = 3, 4 * 5
    found = positions(Video(), torch.rand(2, frames, 2, 6, 7))
    assert found == {"conv.weight": frames * area, "up.weight": frames * area}


def test_parametrised_layers_keep_their_clean_names() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    for layer in model:
        nn.utils.parametrize.register_parametrization(layer, "weight", nn.Identity())
    assert positions(model, torch.rand(2, 4)) == {"0.weight": 2}


def test_the_model_is_left_as_it_was() -> None:
    model = Awkward().train()
    model.twice.eval()  # frozen on purpose
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen: list[bool] = []
    handle = model.folded.register_forward_hook(
        lambda m, i, o: seen.extend([m.training, torch.is_grad_enabled()])
    )
    positions(model, torch.rand(2, 6, 4))
    assert seen == [False, False]
    handle.remove()
    with pytest.raises(RegrowError):
        positions(model, torch.rand(2, 6, 5))
    assert model.training
    assert not model.twice.training
    assert all(m.training for m in model.children() if m is not model.twice)
    assert not any(m._forward_hooks for m in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.is_grad_enabled()


def test_an_example_that_does_not_fit_says_what_it_was() -> None:
    model = resnet20()
    with pytest.raises(
        RegrowError, match=r"Sequential does not run .*\(1, 1, 32, 32\) float32"
    ) as e:
        positions(model, torch.rand(2, 1, 32, 32))
    assert "expected input" in str(e.value)  # PyTorch's own words
    with pytest.raises(RegrowError, match=r"wrong=\(1, 3, 32, 32\) float32"):
        positions(model, {"wrong": torch.rand(2, 3, 32, 32)})


@pytest.mark.parametrize("example", [3, (), {}, torch.tensor(1.0), torch.rand(0, 3, 32, 32)])
def test_an_example_without_a_batch_is_refused(example: Any) -> None:
    with pytest.raises(RegrowError, match="holds no batch"):
        positions(resnet20(), example)


def test_weights_used_by_a_function_are_not_seen() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.layer.weight)

    assert positions(Functional(), torch.rand(2, 4)) == {"layer.weight": 0}
