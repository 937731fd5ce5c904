"""Each operator's rule: how many units it leaves, why it binds, and that cuts compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from coupling_ops import SHAPES, Around
from coupling_table import TABLE
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import regrow
from regrow.core.errors import RegrowError
from regrow.model.coupling.rules import RULES


def example(kind: str, seed: int) -> Tensor:
    return torch.randn(SHAPES[kind], generator=torch.Generator().manual_seed(seed))


def around(name: str) -> Around:
    torch.manual_seed(3)
    return Around(TABLE[name]).eval()


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(x)
    return out


@pytest.mark.parametrize("name", TABLE)
def test_an_operator(name: str) -> None:
    op, model = TABLE[name], around(name)
    groups = regrow.groups(model, example(op.kind, 0))
    found = {group.name: len(group) for group in groups}
    reasons = {bound.layer: bound.reason for bound in groups.bound}
    if isinstance(op.expected, str):
        assert not found
        assert op.expected in reasons["a"]
        return
    assert found == {"a": op.expected}
    if not name.endswith("fft"):
        assert not groups.coupling.unknown
    for seed in range(3):
        numbers = torch.Generator().manual_seed(seed)
        stays = torch.rand(op.expected, generator=numbers) < 0.6
        stays[seed % op.expected] = True
        keep = {"a": stays}
        small = regrow.shrink(model, example(op.kind, 0), keep, groups=groups).model
        expected = regrow.masked(model, keep, groups=groups)
        for more in range(1, 6):
            x = example(op.kind, more)
            a, b = outputs(small, x), outputs(expected, x)
            assert a.shape == b.shape
            assert float((a - b).abs().max()) <= 1e-5 * float(b.abs().max()) + 1e-7


class Names(TorchDispatchMode):
    """Which operations run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.add(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


# Names that PyTorch takes apart before they are seen, or that other devices and versions have.
ELSEWHERE = frozenset(
    f"aten.{name}"
    for names in (
        "_batch_norm_impl_index _batch_norm_no_update _batch_norm_with_update batch_norm",
        "_native_batch_norm_legit_functional cudnn_batch_norm miopen_batch_norm group_norm",
        "layer_norm rms_norm _fused_rms_norm _convolution convolution_overrideable",
        "mkldnn_convolution linear matmul prelu relu6 selu softmax log_softmax log_sigmoid",
        "scaled_dot_product_attention _scaled_dot_product_attention_math",
        "_scaled_dot_product_attention_math_for_mps _scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention",
        "_scaled_dot_product_fused_attention_overrideable _native_multi_head_attention",
        "_transformer_encoder_layer_fwd _fused_dropout feature_dropout _weight_norm norm",
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d",
        "avg_pool1d max_pool1d max_pool1d_with_indices max_pool2d max_pool3d pad narrow",
        "chunk unsafe_chunk concat contiguous expand_as flatten unflatten reshape swapaxes",
        "_reshape_copy type_as view_as take_along_dim argsort detach_ flip_ scalar_tensor",
        "native_channel_shuffle _conj _neg_view resolve_conj resolve_neg unfold_backward",
        "bernoulli_",
    )
    for name in names.split()
)


def test_every_rule_is_tried() -> None:
    seen = Names()
    for name, op in TABLE.items():
        with torch.no_grad(), seen:
            around(name)(example(op.kind, 0))
    assert RULES.keys() - seen.found <= ELSEWHERE


class Own(nn.Module):
    """A layer of eight features, a function and a layer that reads what it gives."""

    def __init__(self, own: Callable[[Any, Tensor], Any], **more: Any) -> None:
        super().__init__()
        self.a, self.z, self.own = nn.Linear(6, 8), nn.Linear(8, 2), own
        for name, part in more.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.own(self, x)


def vectors(seed: int = 0) -> Tensor:
    return example("vectors", seed)


def bound(groups: Any) -> dict[str, str]:
    return {each.layer: each.reason for each in groups.bound}


@pytest.mark.parametrize("layer", [nn.LSTM(6, 8), nn.GRU(6, 8), nn.RNN(6, 8), nn.LSTMCell(6, 8)])
def test_recurrent_layers_are_refused_by_name(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(layer))
    with pytest.raises(RegrowError, match=rf"1\.0 is a recurrent layer \({type(layer).__name__}\)"):
        regrow.groups(model, vectors())


@pytest.mark.parametrize(
    "own",
    [
        lambda s, x: s.z(s.a(x)) if s.a(x).sum() > 0 else -s.z(s.a(x)),
        lambda s, x: s.z(s.a(x)) * float(x.mean()),
        lambda s, x: s.z(s.a(x)) if (s.a(x) > 0).any() else x,
        lambda s, x: s.z(s.a(x)) if torch.equal(s.a(x), s.a(x) * 2) else s.z(s.a(x) * 3),
        lambda s, x: s.z(s.a(x)) * x.mean().item(),
    ],
    ids=["sum", "float", "any", "equal", "item"],
)
def test_branches_on_values_are_refused_with_their_line(own: Any) -> None:
    model = Own(own).eval()
    where = r"branches on a value computed from its input \(test_coupling_rules\.py:\d+: lambda s"
    with pytest.raises(RegrowError, match=where):
        regrow.groups(model, vectors())


def test_branches_on_sizes_parameters_and_token_numbers_are_not() -> None:
    def own(s: Any, x: Tensor) -> Tensor:
        y = s.a(x) if len(x) > 1 and float(s.scale) > 0 else x
        return s.z(y[: int(torch.tensor([3, 2]).max())])

    model = Own(own, scale=nn.Parameter(torch.tensor(2.0))).eval()
    assert [len(group) for group in regrow.groups(model, vectors())] == [8]


@pytest.mark.parametrize(
    "bad", [torch.randn(4, 5), (torch.randn(4, 6), 3), {"y": torch.randn(4, 6)}, None, "x"]
)
def test_an_example_that_does_not_fit(bad: Any) -> None:
    with pytest.raises(RegrowError, match=r"Own fails on the example: .*; give the example as"):
        regrow.groups(Own(lambda s, x: s.z(s.a(x))), bad)


def test_an_operation_of_a_library_without_a_rule() -> None:
    library = torch.library.Library("regrow_tests", "FRAGMENT")
    library.define("mixed(Tensor x) -> Tensor")
    library.impl("mixed", lambda x: x + x.mean(1, keepdim=True), "CompositeExplicitAutograd")
    model = nn.Sequential(
        nn.Linear(6, 6),
        nn.ReLU(),
        Own(lambda s, x: s.z(torch.ops.regrow_tests.mixed(s.a(x)))),
    ).eval()
    groups = regrow.groups(model, vectors())
    assert {g.name: len(g) for g in groups} == {"0": 6}
    assert groups.coupling.unknown == {"regrow_tests.mixed": ("2",)}
    assert bound(groups)["2.a"] == "no rule for regrow_tests.mixed in 2"


def test_sizes_of_attributes_follow() -> None:
    def own(s: Any, x: Tensor) -> Tensor:
        y = s.a(x).view(len(x), s.num_heads, s.size).transpose(0, 1)
        return s.z(y.transpose(0, 1).reshape(len(x), s.num_heads * s.size))

    model = Own(own, num_heads=4, size=2).eval()
    groups = regrow.groups(model, vectors())
    assert {g.name: len(g) for g in groups} == {"a": 4}
    keep = {"a": torch.tensor([True, False, False, True])}
    small = regrow.shrink(model, vectors(), keep, groups=groups).model
    assert (small.num_heads, small.size, small.a.out_features) == (2, 2, 4)
    assert model.num_heads == 4


def test_attributes_that_equal_a_size_by_chance_stay() -> None:
    def own(s: Any, x: Tensor) -> Tensor:
        return s.z(s.a(x).view(len(x), s.num_heads, -1).flatten(1))

    model = Own(own, num_heads=4, seed=8, warmup=4).eval()
    small = regrow.shrink(model, vectors(), {"a": torch.tensor([True, False, True, True])}).model
    assert (small.num_heads, small.seed, small.warmup) == (3, 8, 4)


def test_layers_that_are_excluded_keep_their_outputs() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Linear(5, 2)).eval()
    groups = regrow.groups(model, vectors(), exclude=["0"])
    assert {g.name: len(g) for g in groups} == {"2": 5}
    assert bound(groups)["0"] == "excluded"
    with pytest.raises(RegrowError, match="unknown layer"):
        regrow.groups(model, vectors(), exclude=["nosuch*"])


def test_an_excluded_transposed_convolution_keeps_its_outputs() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 6, 2, bias=False), nn.Conv2d(6, 2, 1)
    ).eval()
    groups = regrow.groups(model, example("images", 0), exclude=["1"])
    assert {g.name: len(g) for g in groups} == {"0": 8}


def test_an_excluded_embedding_keeps_its_features() -> None:
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 5), nn.Linear(5, 2)).eval()
    groups = regrow.groups(model, torch.arange(4), exclude=["0"])
    assert {g.name: len(g) for g in groups} == {"1": 5}


def test_an_excluded_block_keeps_the_outputs_of_its_layers() -> None:
    block = nn.Sequential(nn.Linear(8, 7), nn.Linear(7, 5))
    model = nn.Sequential(nn.Linear(6, 8), block, nn.Linear(5, 2)).eval()
    groups = regrow.groups(model, vectors(), exclude=["1"])
    assert {g.name: len(g) for g in groups} == {"0": 8}


def test_a_network_without_parameters_has_no_groups() -> None:
    assert len(regrow.groups(nn.Sequential(nn.ReLU(), nn.Flatten()), vectors())) == 0


def test_parameters_that_are_not_used_are_bound_and_named() -> None:
    groups = regrow.groups(Own(lambda s, x: s.z(s.a(x)), other=nn.Linear(6, 5)).eval(), vectors())
    assert groups.coupling.unseen == ("other.bias", "other.weight")
    assert bound(groups)["other"] == "not used for the example"
    assert {g.name: len(g) for g in groups} == {"a": 8}


def test_a_network_is_given_back_as_it_was() -> None:
    """With buffers that its forward method writes, modes, hooks and random numbers."""

    def own(s: Any, x: Tensor) -> Tensor:
        s.calls += 1
        y = s.a(x)
        s.average = 0.9 * s.average + 0.1 * y.mean(0)
        return s.z(torch.relu(y) + s.average + torch.dropout(y, 0.5, True))

    model = Own(own, calls=torch.zeros(()), average=torch.zeros(8), norm=nn.BatchNorm1d(8))
    model.z.eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    groups = regrow.groups(model, vectors())
    regrow.shrink(model, vectors(), {}, groups=groups)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not model._forward_hooks


def test_the_table_in_words() -> None:
    text = str(
        regrow.groups(
            Own(lambda s, x: s.z(s.a(x)).fill_(0) + torch.fft.fft(s.a(x)).abs().sum()), vectors()
        )
    )
    assert "no rule for aten._fft_r2c" in text
    assert "operations without a rule bind what they touch: aten._fft_r2c in the network" in text
