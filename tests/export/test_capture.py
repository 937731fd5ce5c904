from __future__ import annotations

import copy
import json
import logging
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import run
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils._pytree import tree_leaves

from regrow.bench import models
from regrow.core.errors import RegrowError
from regrow.export.capture import capture

if TYPE_CHECKING:
    from regrow_runtime.graph import Graph

pytest.importorskip("regrow_runtime", reason="the runtime is not installed")
Function = Callable[..., Any]


class Call(nn.Module):
    """A function of (module, *inputs) as a module, with parameters and whatever else."""

    def __init__(self, function: Function, **attributes: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


class Many(nn.Module):
    """Modules side by side, so that one tracing serves them all."""

    def __init__(self, **sides: nn.Module | Function) -> None:
        super().__init__()
        self.sides = nn.ModuleDict(
            {k: v if isinstance(v, nn.Module) else Call(v) for k, v in sides.items()}
        )

    def forward(self, x: Tensor) -> list[Any]:
        return [side(x) for side in self.sides.values()]


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def scrambled(model: nn.Module) -> nn.Module:
    """No statistic of a batch norm is 0 or 1, and no affine parameter either."""
    torch.manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point() and tensor.dim() == 1:
            tensor.normal_()
    return model


def agree(
    model: nn.Module, *shapes: tuple[int, ...], batches: tuple[int, ...] = (1, 2, 5)
) -> Graph:
    """Capture, and compare with the model itself, both in double precision."""
    scrambled(model)
    graph = capture(model, tuple(torch.randn(3, *shape) for shape in shapes))
    assert [shape for _, shape, _ in graph.inputs] == list(shapes)
    reference = copy.deepcopy(model).double().eval()
    for batch in batches:
        xs = [2 * torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes]
        with torch.no_grad():
            found = run(graph, model.state_dict(), *xs)
            expected = tree_leaves(reference(*[x.clone() for x in xs]))
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            torch.testing.assert_close(
                one, other, rtol=1e-9, atol=1e-9, msg=lambda m, i=index: f"output {i}: {m}"
            )
    return graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (models.digits_cnn, (1, 8, 8)),
        (lambda: models.resnet20(10, 0.5), (3, 16, 16)),
        (lambda: models.vgg16_bn(10, 0.25), (3, 32, 32)),
    ],
    ids=["digits_cnn", "resnet20", "vgg16_bn"],
)
def test_the_reference_networks(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    graph = agree(build(), shape)
    assert {"conv2d", "batch_norm", "relu", "reshape", "linear"} <= set(ops(graph))
    json.dumps([[node.op, dict(node.arrays), dict(node.attributes)] for node in graph.nodes])


def test_activations() -> None:
    agree(
        Many(
            relu=nn.ReLU(inplace=True),
            relu6=nn.ReLU6(),
            sigmoid=nn.Sigmoid(),
            tanh=nn.Tanh(),
            silu=nn.SiLU(inplace=True),
            mish=nn.Mish(),
            hardswish=nn.Hardswish(),
            hardsigmoid=nn.Hardsigmoid(),
            softplus=nn.Softplus(),
            leaky=nn.LeakyReLU(0.2, inplace=True),
            elu=nn.ELU(0.7),
            gelu=nn.GELU(),
            gelu_tanh=nn.GELU(approximate="tanh"),
            hardtanh=nn.Hardtanh(-0.5, 2),
            prelu=nn.PReLU(),
            prelus=nn.PReLU(4),
            softmax=nn.Softmax(-1),
            log_softmax=nn.LogSoftmax(1),
            clamp=lambda _, x: x.clamp(-1, 0.5),
            low=lambda _, x: x.clamp(min=-0.5),
            high=lambda _, x: torch.clamp_max(x, 0.5),
            least=lambda _, x: x.clamp_min(0.25),
        ),
        (4, 3),
    )


def test_shapes() -> None:
    graph = agree(
        Many(
            flatten=nn.Flatten(),
            unflatten=lambda _, x: x.unflatten(1, (2, 2)),
            view=lambda _, x: x.view(x.size(0), 2, -1),
            guessed=lambda _, x: x.reshape(-1, 4, 9),
            turned=lambda _, x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1),
            more=lambda _, x: x.unsqueeze(-1).unsqueeze(1),
            less=lambda _, x: x[:, :1].squeeze(1),
            some=lambda _, x: x[:, :1, :1].squeeze((1, 2)),
            permute=lambda _, x: x.permute(0, -1, 1, 2),
            transpose=lambda _, x: x.transpose(-1, 1),
            matrix=lambda _, x: x.mT,
            moved=lambda _, x: x.movedim(1, -1),
            shuffle=lambda _, x: x.view(-1, 2, 2, 3, 3).transpose(1, 2).reshape(-1, 4, 3, 3),
            slices=lambda _, x: x[:, 1:-1, ::2, -2:],
            narrow=lambda _, x: x.narrow(-1, 1, 2),
            row=lambda _, x: x[:, -1],
            column=lambda _, x: x.select(3, 1),
            new=lambda _, x: x[:, None, ..., 0],
            chunks=lambda _, x: x.chunk(3, 1),
            halves=lambda _, x: x.split(2, dim=-1),
            parts=lambda _, x: x.split([1, 3], 1)[1],
            rows=lambda _, x: x.unbind(2)[::2],
            concat=lambda _, x: torch.cat([x, x[:, :1], x], 1),
            concat_last=lambda _, x: torch.concat((x, 2 * x), -1),
            pad=lambda _, x: F.pad(x, (1, 2, 0, 3), value=-0.5),
            channels=lambda _, x: F.pad(x, (0, 0, 0, 0, 2, 1)),
            zeros=nn.ZeroPad2d((1, 0, 2, 0)),
            same=lambda _, x: x.expand(-1, 4, -1, 3),
        ),
        (4, 3, 3),
    )
    made = {node.module for node in graph.nodes}
    assert "sides.shuffle" in made
    assert "sides.same" not in made


def test_a_batch_of_one_keeps_its_axis() -> None:
    model = Call(lambda _, x: x[:, :1].squeeze() * (1 if x.size(0) > 1 else 2))
    graph = agree(model, (4, 3), batches=(2, 5))
    (single,) = run(graph, {}, torch.ones(1, 4, 3))
    assert torch.equal(single, torch.ones(1, 3))


def test_arithmetic() -> None:
    buffered = Call(lambda self, x: (x + self.shift) * self.scale)
    buffered.register_buffer("shift", torch.randn(3))
    buffered.register_buffer("scale", torch.randn(4, 1))
    agree(
        Many(
            add=lambda _, x: x + x * x,
            mean=lambda _, x: x - x.mean(-1, keepdim=True),
            broadcast=lambda _, x: x[:, :, :1] * x[:, :1],
            squeezed=lambda _, x: x.mean((-1, 1)),
            alpha=lambda _, x: torch.add(x, x.tanh(), alpha=0.3),
            beta=lambda _, x: torch.sub(x, x.tanh(), alpha=2),
            number=lambda _, x: 1 + x + 2,
            scaled=lambda _, x: torch.add(x, 2, alpha=3),
            minus=lambda _, x: 1.5 - x,
            rsub=lambda _, x: torch.rsub(x, 3, alpha=2),
            less=lambda _, x: x - 4,
            times=lambda _, x: 3 * x * True,
            parts=lambda _, x: x / 7,
            neg=lambda _, x: -x,
            bias=Call(lambda self, x: self.b + x, b=weights(3)),
            unbias=Call(lambda self, x: x - self.b, b=weights(4, 1)),
            flipped=Call(lambda self, x: self.b - x, b=weights(1, 4, 3)),
            gamma=Call(lambda self, x: self.g * x, g=weights(4, 1)),
            one=Call(lambda self, x: x * self.g, g=weights()),
            detached=Call(lambda self, x: x * self.g.detach().clone(), g=weights(3)),
            buffered=buffered,
        ),
        (4, 3),
    )


def test_normalisation_and_pooling() -> None:
    agree(
        Many(
            batch=nn.BatchNorm2d(4, eps=1e-3),
            plain=nn.BatchNorm2d(4, affine=False),
            layer=nn.LayerNorm(9),
            layers=nn.LayerNorm((9, 9), eps=0.1),
            bare=nn.LayerNorm(9, elementwise_affine=False),
            functional=lambda _, x: F.layer_norm(x, (4, 9, 9)),
            max=nn.MaxPool2d(2),
            max_more=nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0), dilation=2),
            max_ceil=nn.MaxPool2d(2, ceil_mode=True),
            avg=nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
            avg_count=nn.AvgPool2d((2, 3), padding=1),
            adaptive=nn.AdaptiveAvgPool2d((2, None)),
            whole=nn.AdaptiveAvgPool2d(1),
            mean=lambda _, x: x.mean(dim=(2, 3)),
        ),
        (4, 9, 9),
    )
    agree(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (4,))


def test_linear_layers() -> None:
    graph = agree(
        Many(
            linear=nn.Linear(4, 3),
            bare=nn.Linear(4, 3, bias=False),
            functional=Call(
                lambda self, x: F.linear(x, self.w, self.b), w=weights(3, 4), b=weights(3)
            ),
            matmul=Call(lambda self, x: x @ self.w.t(), w=weights(4, 4)),
            turned=Call(lambda self, x: x.matmul(self.w.permute(1, 0)), w=weights(3, 4)),
            twice=Call(lambda self, x: x @ self.w.mT.t().transpose(-1, 0), w=weights(4, 4)),
            back=Call(lambda self, x: F.linear(x, self.w.t().T), w=weights(3, 4)),
            addmm=Call(
                lambda self, x: torch.addmm(self.b, x, self.w.T), w=weights(3, 4), b=weights(3)
            ),
            mm=Call(lambda self, x: torch.mm(x, self.w.t()), w=weights(3, 4)),
        ),
        (4,),
    )
    assert ops(graph) == ["linear"] * 9
    rows = agree(
        nn.Sequential(nn.Linear(4, 3), Call(lambda self, x: x @ self.w.t(), w=weights(2, 3))),
        (5, 4),
    )
    assert ops(rows) == ["linear"] * 2


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    groups = draw(st.sampled_from([1, 2, 4]))
    padding = draw(st.sampled_from(["same", "valid", 0, 1, (2, 0), (0, 3)]))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    stride = (1, 1) if padding == "same" else draw(pair)
    outputs, kernel, dilation = groups * draw(st.integers(1, 3)), draw(pair), draw(pair)
    return nn.Conv2d(
        4, outputs, kernel, stride, padding, dilation, groups, bias=draw(st.booleans())
    )


@st.composite
def pools(draw: st.DrawFn) -> nn.Module:
    pair = st.tuples(st.integers(2, 4), st.integers(2, 4))
    kernel, padding, ceil = draw(pair), draw(st.integers(0, 1)), draw(st.booleans())
    stride = draw(st.none() | pair)
    if draw(st.booleans()):
        return nn.MaxPool2d(kernel, stride, padding, draw(st.integers(1, 2)), ceil_mode=ceil)
    return nn.AvgPool2d(kernel, stride, padding, ceil, draw(st.booleans()))


@settings(max_examples=6, deadline=None)
@given(st.lists(convolutions() | pools(), min_size=6, max_size=10))
def test_convolutions_and_pools(layers: list[nn.Module]) -> None:
    agree(Many(**{f"n{i}": layer for i, layer in enumerate(layers)}), (4, 9, 10), batches=(2,))


def test_same_padding_that_is_not_symmetric() -> None:
    graph = agree(nn.Conv2d(2, 3, (2, 5), padding="same", dilation=(3, 1)), (2, 6, 6))
    pad, conv = graph.nodes
    assert (pad.attributes["before"], pad.attributes["after"]) == ([0, 1, 2], [0, 2, 2])
    assert conv.attributes["padding"] == [0, 0]


bounds = st.none() | st.integers(-9, 9)


@settings(max_examples=4, deadline=None)
@given(st.lists(st.builds(slice, bounds, bounds, st.integers(1, 4)), min_size=6, max_size=12))
def test_slices(cuts: list[slice]) -> None:
    kept = [cut for cut in cuts if range(6)[cut]]
    model = Call(lambda _, x: [x[:, :, cut] + 1 for cut in [*kept, slice(None)]])
    agree(model, (2, 6, 2), batches=(2,))


def test_a_slice_that_is_empty_is_refused() -> None:
    assert "aten.slice.Tensor (it makes an empty value" in refusal(Call(lambda _, x: x[:, 4:]), 4)


class Squeeze(nn.Module):
    """An inverted residual with squeeze and excitation, as in MobileNetV3."""

    def __init__(self, gate: type[nn.Module]) -> None:
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(inplace=True)
        )
        self.depth = nn.Sequential(
            nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False), nn.BatchNorm2d(8)
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(8, 2, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2, 8, 1),
            gate(),
        )
        self.project = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.depth(self.expand(x))
        return x + self.project(F.relu6(inner * self.gate(inner)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(c), nn.ReLU(inplace=True), nn.Conv2d(c, 2, 3, padding=1, bias=False)
            )
            for c in (4, 6, 8)
        )
        self.out = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1)))
        return self.out(F.dropout(torch.cat(seen, 1).mean([2, 3]), training=self.training))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.tokens = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 4))
        self.channels = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))
        self.scale = weights(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).permute(0, 2, 1)
        x = x + self.scale * self.channels(self.norm2(x))
        return self.head(x.mean(1)).softmax(-1)


def test_blocks_of_known_networks() -> None:
    squeeze = agree(nn.Sequential(Squeeze(nn.Sigmoid), Squeeze(nn.Hardsigmoid)), (4, 6, 6))
    assert {"hardswish", "hardsigmoid", "sigmoid", "relu6", "mul", "add"} < set(ops(squeeze))
    assert squeeze.nodes[-1].module == "1"
    assert {node.module for node in squeeze.nodes} >= {"0.gate.4", "1.expand.2", "1.project.1"}
    dense = agree(Dense(), (4, 5, 5))
    assert ops(dense).count("concat") == 3  # the first has one input, and is none
    agree(Mixer(), (3, 8, 8))


def test_writes_in_place_are_seen_by_what_reads_later() -> None:
    def chain(_: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x * 2
        before = y + 0.5
        z = y.relu_()
        y += 1
        return before, y * z  # y and z are one tensor

    def through_a_view(_: Any, x: Tensor) -> Tensor:
        y = x * 2
        view = y.view(x.size(0), 2, -1).transpose(1, 2)
        view.add_(1)
        y.mul_(x)
        return y - view.transpose(1, 2).reshape(y.shape)

    def the_input(_: Any, x: Tensor) -> Tensor:
        y = x.clone()
        return F.relu(y, inplace=True) + y

    agree(Many(chain=chain, view=through_a_view, input=the_input), (4, 3))
    first = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2))
    x = torch.randn(2, 3)
    kept = x.clone()
    capture(first, x)
    assert torch.equal(x, kept)
    agree(first, (3,))


def test_what_computes_nothing_leaves_no_node() -> None:
    def nothing(_: Any, x: Tensor) -> Tensor:
        same = (
            x.float()
            .to("cpu")
            .to(torch.float32, copy=True)
            .contiguous()
            .clone()
            .detach()
            .type_as(x)
        )
        return torch.ops.aten.alias(same[:].view(x.shape).permute(0, 1, 2)[..., :99])

    model = nn.Sequential(nn.Dropout(), nn.Identity(), nn.AlphaDropout(), Call(nothing))
    graph = capture(model.train(), torch.zeros(1, 2, 3, requires_grad=True))
    assert graph.nodes == ()
    assert graph.outputs == (graph.inputs[0][0],) == ("input",)


def test_gradients_may_be_switched_inside() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.layer(x)
        with torch.enable_grad():
            return y + x

    model = Call(forward, layer=nn.Linear(3, 3))
    assert ops(agree(model, (3,))) == ["linear", "add"]


def test_several_inputs_and_nested_outputs() -> None:
    def forward(self: Any, x: Tensor, y: Tensor) -> Any:
        unused = torch.fft.fft(y)  # no result depends on it
        torch._assert(x.size(0) > 0, "a batch")
        return {"sum": x + y, "rest": [y, (x * y, unused.shape[1] * x)]}

    graph = agree(Call(forward), (3,), (3,))
    assert len(graph.outputs) == 4
    assert graph.outputs[1] == graph.inputs[1][0]
    # One tensor given twice is two inputs, whatever their values.
    x = torch.randn(1, 3)
    same = capture(Call(lambda _, x, y: x - y), (x, x))
    assert same.nodes[0].inputs == (same.inputs[0][0], same.inputs[1][0])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(x))))


def test_names_are_those_of_the_state_dict_and_tied_ones_the_first() -> None:
    model = Tied()
    graph = agree(model, (3,))
    linears = [node for node in graph.nodes if node.op == "linear"]
    assert [dict(node.arrays) for node in linears] == [
        {"weight": "first.weight", "bias": "first.bias"},
        {"weight": "first.weight", "bias": "second.bias"},
    ]
    assert [node.module for node in graph.nodes] == ["first", "act", "second", "act"]
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        assert capture(wrapped, torch.zeros(1, 3)) == graph
    inner = nn.Sequential(torch.compile(nn.Linear(3, 2), backend="eager"), nn.ReLU())
    agree(inner, (3,))


def test_a_second_capture_is_equal() -> None:
    model = scrambled(models.digits_cnn())
    first = capture(model, torch.zeros(1, 1, 8, 8))
    assert capture(model, torch.randn(7, 1, 8, 8)) == first


def test_the_model_stays_as_it_was() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.layer(x)
        self.trail.append(self.seen)
        return self.seen * 2

    model = Call(forward, layer=nn.Sequential(nn.Linear(3, 3), nn.Dropout()), calls=0, trail=[])
    model.layer[1].eval()
    model.layer[0](torch.randn(2, 3)).sum().backward()
    model.layer[0].bias.requires_grad_(False)
    live = model.state_dict(keep_vars=True)
    state = copy.deepcopy(model.state_dict())
    gradient = live["layer.0.weight"].grad.clone()
    random = torch.get_rng_state()
    capture(model, torch.ones(2, 3))
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert (model.calls, model.trail, hasattr(model, "seen")) == (0, [], False)
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is live[name] for name in live)
    assert all(torch.equal(after[name], state[name]) for name in state)
    assert torch.equal(live["layer.0.weight"].grad, gradient)
    assert not live["layer.0.bias"].requires_grad
    assert torch.equal(random, torch.get_rng_state())
    assert torch.is_grad_enabled()


def refusal(model: nn.Module, *shape: int) -> str:
    with pytest.raises(RegrowError) as caught:
        capture(model, torch.randn(2, *shape))
    return str(caught.value)


def write_part(_: Any, x: Tensor) -> Tensor:
    y = x * 2
    y[:, :2] = 1
    return y


def padded(mode: str) -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1, padding_mode=mode)


REFUSED: dict[str, tuple[nn.Module | Function, str]] = {
    "group": (nn.GroupNorm(2, 4), "aten.group_norm.default"),
    "instance": (nn.InstanceNorm2d(4), "aten.instance_norm.default"),
    "transposed": (nn.ConvTranspose2d(4, 4, 2), "aten.conv_transpose2d.input"),
    "conv1d": (lambda _, x: F.conv1d(x[..., 0], torch.ones(1, 4, 1)), "aten.conv1d.default"),
    "own": (nn.BatchNorm2d(4, track_running_stats=False), "the batch's own mean"),
    "drop": (lambda _, x: F.dropout(x), r"native_dropout.default \(it drops out in evaluation"),
    "part": (write_part, r"scatter.default \(it writes into a part"),
    "reflect": (padded("reflect"), r"aten.pad.default \(its mode is reflect"),
    "circular": (padded("circular"), r"aten.pad.default \(its mode is circular"),
    "crop": (lambda _, x: F.pad(x, (1, -1)), r"aten.pad.default \(it crops"),
    "infinite": (lambda _, x: F.pad(x, (1, 1), value=-torch.inf), "a number in it is -inf"),
    "huge": (lambda _, x: x * 1e39, r"a number in it is 1e\+39"),
    "precise": (lambda _, x: x.double(), r"aten._to_copy.default \(it makes torch.float64"),
    "mix": (lambda _, x: x.view(-1, 3), r"view.default \(it makes a value of shape \(12\*batch, 3"),
    "swap": (lambda _, x: x.transpose(0, 1), r"of shape \(4, batch, 3, 3\)"),
    "turn": (lambda _, x: x[:, 0, 0].t(), r"aten.t.default \(it makes .* shape \(3, batch\)"),
    "mean": (lambda _, x: x.mean(0, keepdim=True), r"aten.mean.dim \(it makes a value of shape"),
    "all": (lambda _, x: x.mean(), "aten.mean.default"),
    "softmax": (lambda _, x: x.softmax(0), r"aten.softmax.int \(it works along the batch axis"),
    "join": (lambda _, x: torch.cat([x, x]), r"aten.cat.default .*2\*batch"),
    "first": (lambda _, x: x[:1], r"aten.slice.Tensor \(it makes a value of shape \(1, 4, 3, 3"),
    "size": (lambda _, x: x * x.size(0), r"aten.mul.Tensor \(a number in it depends"),
    "expand": (lambda _, x: x[:, :1].expand(-1, 4, -1, -1), r"aten.expand.default \(it repeats"),
    "divide": (lambda _, x: x / (x + 1), r"aten.div.Tensor \(it divides by a tensor"),
    "divisor": (lambda _, x: F.avg_pool2d(x, 2, divisor_override=3), "divisor_override is 3"),
    "indices": (lambda _, x: F.max_pool2d(x, 2, return_indices=True)[0], "max_pool2d_with_indices"),
    "unbatched": (lambda _, x: F.max_pool2d(x[:, 0], 2), r"aten.max_pool2d.default \(its input"),
    "selu": (nn.SELU(), "aten.selu.default"),
    "softplus": (nn.Softplus(2), r"aten.softplus.default \(beta is 2"),
    "matmul": (lambda _, x: x @ x, r"aten.matmul.default \(it multiplies by what is computed"),
    "right": (
        Call(lambda self, x: x @ self.w, w=weights(3, 3)),
        r"\(it multiplies by sides.right.w",
    ),
    "turned": (
        Call(lambda self, x: F.linear(x, self.w.t()), w=weights(3, 3)),
        "its weight is a transpose of sides.turned.w",
    ),
    "larger": (Call(lambda self, x: x[:, :1] + self.b, b=weights(4, 3, 3)), "sides.larger.b would"),
    "alpha": (Call(lambda self, x: torch.add(x, self.b, alpha=2), b=weights(3)), "alpha is 2"),
    "token": (
        Call(
            lambda self, x: torch.cat([x, self.b.expand(x.size(0), 1, 3, 3)], 1), b=weights(1, 3, 3)
        ),
        r"aten.cat.default \(an operand is computed from sides.token.b by aten.expand.default",
    ),
    "zeros": (lambda _, x: x + torch.zeros(3), r"made in forward by aten.zeros.default"),
    "lifted": (lambda _, x: x * torch.tensor(2.0), "which the state dict lacks: register"),
    "plain": (Call(lambda self, x: x * self.t, t=torch.ones(3)), "tensor sides.plain.t, which the"),
    "integers": (Call(lambda self, x: x + self.n), "sides.integers.n holds torch.int64"),
    "passing": (Call(lambda self, x: x + self.n), "tensor sides.passing.n, which the state dict"),
    "normed": (
        parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
        r"aten.conv2d.default \(its weight is computed from sides.normed.parametrizations.weight."
        r"original1, sides.normed.parametrizations.weight.original0 by aten._weight_norm.default: "
        "make it a plain parameter",
    ),
    "masked": (
        prune.l1_unstructured(nn.Linear(3, 3), "weight", 0.5),
        "its weight is computed from sides.masked.weight_mask, sides.masked.weight_orig by "
        "aten.mul.Tensor: .* by finalising the pruning or removing the parametrisation",
    ),
}


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """What the one message for all of them says, by module."""
    REFUSED["integers"][0].register_buffer("n", torch.arange(3))  # type: ignore[union-attr]
    REFUSED["passing"][0].register_buffer("n", torch.ones(3), persistent=False)  # type: ignore[union-attr]
    model = Many(**{name: side for name, (side, _) in REFUSED.items()})
    message = refusal(model, 4, 3, 3)
    assert message.startswith("Many cannot run in the runtime, which has no operation for: aten.")
    assert "docs/format-2.md" in message
    text = message.partition("operation for: ")[2].partition(". Write these")[0]
    entries: dict[str, str] = {}
    for entry in text.split("; "):
        what, _, places = entry.rpartition(" in ")
        for place in places.split(", "):
            entries[place] = f"{entries.get(place, '')}; {what}"
    return entries


@pytest.mark.parametrize("name", REFUSED)
def test_all_that_is_refused_is_named_with_its_reason_and_place(
    listed: dict[str, str], name: str
) -> None:
    assert re.search(REFUSED[name][1], listed[f"sides.{name}"])


def test_one_operator_in_several_places_is_listed_once() -> None:
    model = nn.Sequential(nn.GroupNorm(1, 4), nn.ReLU(), nn.GroupNorm(1, 4), nn.GLU(1))
    assert "for: aten.group_norm.default in 0, 2; aten.glu.default in 3. " in refusal(model, 4)
    twice = Call(lambda _, x: F.glu(F.glu(x)))
    assert "for: aten.glu.default in the model itself. " in refusal(twice, 4)


def fixed(_: Any, x: Tensor) -> Tensor:
    return x.view(2, -1)


def branch_on_values(_: Any, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def branch_on_size(_: Any, x: Tensor) -> Tensor:
    return x if len(x) < 9 else -x


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Linear(5, 4), "Linear cannot be traced by torch.export: .* reduction dim"),
        (nn.LazyLinear(4), "LazyLinear cannot be traced .* uninitialized parameter"),
        (nn.Linear(4, 4, device="meta"), "Linear cannot be traced .* meta tensor"),
        (Call(fixed), "it works for some sizes of the batch only: .* x.size"),
        (Call(branch_on_size), "it works for some sizes of the batch only: "),
        (Call(branch_on_values), "cannot be traced .* data-dependent .* must not branch on values"),
        (Call(lambda _, x: (x, None)), "Call returns None: return tensors only"),
        (Call(lambda self, x: self.w, w=weights(4)), "or something that its input does not change"),
        (Call(lambda _, x: ()), "returns nothing"),
        (
            nn.BatchNorm1d(4, momentum=None).double(),
            "running_mean holds torch.float64, and the runtime computes in float32",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else getattr(value, "_get_name", str)(),
)
def test_models_that_cannot_be_traced_or_held(
    model: nn.Module, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert re.search(reason, refusal(model, 4))
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_buffer_that_forward_writes_is_named() -> None:
    model = Call(lambda self, x: x * self.count.add_(1))
    model.register_buffer("count", torch.zeros(()))
    assert "Call writes to count in evaluation mode" in refusal(model, 4)
    assert model.count == 0


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ([[1.0, 2.0]], "not a batch"),
        ((), "not a batch"),
        (torch.tensor(1.0), "not a batch"),
        (torch.zeros(0, 4), "not a batch"),
        (torch.zeros(2, 0), "no empty axis"),
        (torch.zeros(2, 4, dtype=torch.int64), "holds torch.int64, .* float32"),
        (torch.zeros(2, 4, dtype=torch.float16), "holds torch.float16, .* model.float()"),
        ((torch.zeros(2, 4), torch.zeros(3, 4)), "have 2, 3 samples"),
    ],
)
def test_examples_that_are_no_batch(example: Any, reason: str) -> None:
    with pytest.raises(RegrowError, match=reason):
        capture(nn.Linear(4, 4), example)


def test_without_the_runtime_the_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "regrow_runtime", None)
    monkeypatch.setitem(sys.modules, "regrow_runtime.graph", None)
    with pytest.raises(RegrowError, match=r'pip install "regrow\[runtime\]".* C\+\+17 compiler'):
        capture(nn.Linear(4, 4), torch.zeros(1, 4))
