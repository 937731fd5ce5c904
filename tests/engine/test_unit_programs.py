"""Programs that cut channels: masks that train as the smaller network would, and channels back."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regrow
from regrow import Program, Pruning, recipes
from regrow.core.errors import RegrowError
from regrow.engine.unit_plan import UnitPlan
from regrow.model.walk import named_tensors
from regrow.parts.units.taylor import UnitTaylor

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(9))


class Residual(nn.Module):
    """A stream that two branches write into, and a branch of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.Conv2d(8, 12, 3, padding=1)
        self.inner = nn.BatchNorm2d(12)
        self.down = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.down(self.inner(self.up(x)).relu())
        return self.head(x.relu().mean((2, 3)))


def net(seed: int = 0) -> Residual:
    torch.manual_seed(seed)
    return Residual()


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def data(count: int = 4, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(16, 3, 8, 8, generator=source), torch.randint(4, (16,), generator=source))
        for _ in range(count)
    ]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def start(model: nn.Module, optimizer: torch.optim.Optimizer, program: Program) -> Pruning:
    return regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=data(), example=X)


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    model.train()
    for batch in data(seed=seed):
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()


def macs_left(pruning: Pruning) -> float:
    assert pruning.groups is not None
    return pruning.groups.macs(pruning.units) / pruning.groups.macs()


@pytest.mark.parametrize("make", [sgd, lambda m: torch.optim.AdamW(m.parameters(), lr=0.01)])
def test_training_with_masks_is_training_the_smaller_network(make: Any) -> None:
    model = net()
    optimizer = make(model)
    pruning = start(model, optimizer, recipes.one_shot(0.5, 3, pattern="unit"))
    before = pruning.units
    shrunk = regrow.shrink(model, X, before, groups=pruning.groups)
    small = shrunk.model
    other = make(small)
    for number in range(3):
        epoch(model, optimizer, number)
        epoch(small, other, number)
        pruning.epoch_end()
    pruning.finalize()
    for name, tensor in named_tensors(model).items():
        expected = named_tensors(small)[name]
        torch.testing.assert_close(shrunk.index_map(name, tensor), expected, rtol=1e-3, atol=1e-4)
    again = regrow.shrink(model, X, pruning.masks)
    torch.testing.assert_close(again.model.eval()(X), small.eval()(X), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(again.model(X), model.eval()(X))
    assert sum(p.numel() for p in small.parameters()) == pruning.groups.parameters(before)


@pytest.mark.parametrize("of", ["macs", "parameters", "units"])
@pytest.mark.parametrize("scope", ["global", "local", "isomorphic"])
def test_a_ramp_meets_every_target_and_brings_nothing_back(of: str, scope: str) -> None:
    model = net()
    optimizer = sgd(model)
    pattern = {"name": "unit", "of": of, "scope": scope}
    program = recipes.iterative(0.7, 6, 3, pattern=pattern, criterion="taylor")
    pruning = start(model, optimizer, program)
    seen = []
    for number in range(6):
        seen.append(pruning.units)
        epoch(model, optimizer, number)
        pruning.epoch_end()
    pruning.finalize()
    targets = program.stages[0].plan.schedule.sparsities
    reached = [event["reached"] for event in pruning.events]
    assert len(reached) == len(targets)
    for sparsity, found, event in zip(targets, reached, pruning.events, strict=True):
        assert event["of"] == of
        assert sparsity - 1e-9 <= found <= sparsity + 0.1  # a unit of this small network
    for earlier, later in itertools.pairwise(seen):
        assert all(bool((earlier[name] | ~later[name]).all()) for name in earlier)


def test_channels_return_with_the_weights_and_statistics_of_the_dense_network() -> None:
    model = net()
    with torch.no_grad():
        for norm in (model.norm, model.inner):
            norm.running_mean.uniform_(1, 2)
    dense = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
    optimizer = sgd(model)
    pruning = start(model, optimizer, recipes.bidirectional_units(0.3, 0.7, (2, 1)))
    down = pruning.units
    assert macs_left(pruning) <= 0.3 + 1e-9
    for number in range(2):
        epoch(model, optimizer, number)
        trained = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
        pruning.epoch_end()
    up = pruning.units
    assert pruning.groups is not None
    assert 0.5 < macs_left(pruning) <= 0.7 + 1e-9
    assert all(bool((up[name] | ~down[name]).all()) for name in up)
    assert sum(int((up[name] & ~down[name]).sum()) for name in up) > 0
    live = named_tensors(model)
    floats = {name: t for name, t in live.items() if t.is_floating_point()}
    first, second = (pruning.groups.masks(units, floats) for units in (down, up))
    for name, tensor in floats.items():
        back, stayed = second[name] & ~first[name], first[name]
        assert torch.equal(tensor[back], dense[name][back])
        assert torch.equal(tensor[stayed], trained[name][stayed])
    state = optimizer.state
    for name, weight in model.named_parameters():
        assert not state[weight]["momentum_buffer"][~first[name]].any(), name


def test_those_return_that_were_worth_most_in_the_dense_network() -> None:
    model = net()
    groups = regrow.groups(model, X)
    first = regrow.choose(model, groups, 0.7, of="macs")
    wanted = regrow.choose(
        model,
        groups,
        0.3,
        of="macs",
        criterion=UnitTaylor(summed=True),
        alive=first,
        loss_fn=loss_fn,
        data=data(),
    )
    optimizer = sgd(model)
    pruning = start(model, optimizer, recipes.bidirectional_units(0.3, 0.7, (2, 1)))
    assert all(torch.equal(pruning.units[name], first[name]) for name in first)
    for number in range(2):
        epoch(model, optimizer, number)
        pruning.epoch_end()
    assert all(torch.equal(pruning.units[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("stop", range(4))
def test_resumed_is_the_same_to_the_bit(stop: int) -> None:
    def course(stop: int | None) -> tuple[nn.Module, Pruning]:
        model = net()
        optimizer = sgd(model)
        program = recipes.bidirectional_units(0.3, 0.7, (2, 2), criterion="taylor")
        pruning = start(model, optimizer, program)
        for number in range(4):
            if number == stop:
                buffer = io.BytesIO()
                torch.save(
                    [model.state_dict(), optimizer.state_dict(), pruning.state_dict()], buffer
                )
                buffer.seek(0)
                states = torch.load(buffer, weights_only=True)
                model = net(seed=1)
                optimizer = sgd(model)
                model.load_state_dict(states[0])
                optimizer.load_state_dict(states[1])
                pruning = regrow.attach(
                    model, optimizer, program,
                    loss_fn=loss_fn, data=data(), example=X, resume=states[2],
                )  # fmt: skip
            epoch(model, optimizer, number)
            pruning.epoch_end()
        pruning.finalize()
        return model, pruning

    (whole, one), (parts, two) = course(None), course(stop)
    assert one.events == two.events
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True)
    )


def test_an_average_of_the_weights_and_a_network_cut_before() -> None:
    model = net()
    program = recipes.one_shot(0.5, 1, pattern="unit")
    pruning = start(model, sgd(model), program)
    copy = net(seed=1)
    pruning.project(copy)
    assert torch.equal(copy.norm.weight == 0, ~pruning.units["stem"])
    masks = dict(pruning.masks)
    pruning.detach()
    deeper = recipes.one_shot(0.7, 1, pattern="unit")
    second = regrow.attach(model, sgd(model), deeper, masks=masks, example=X)
    assert all(bool((pruning.units[n] | ~mask).all()) for n, mask in second.units.items())
    assert macs_left(second) <= 0.3 + 1e-9


def test_include_and_exclude() -> None:
    for options in ({"include": ("up",)}, {"exclude": ("stem", "down")}):
        model = net()
        cut = recipes.one_shot(0.4, 1, pattern="unit", **options)  # type: ignore[arg-type]
        pruning = start(model, sgd(model), cut)
        assert list(pruning.units) == ["up"]
        assert bool(model.stem.weight.flatten(1).any(1).all())
        pruning.detach()


@pytest.mark.parametrize(
    "program",
    [
        recipes.one_shot(0.5, 1, pattern="unit", criterion="bn_scale", floor=2, exclude=("a",)),
        recipes.gradual(0.5, 8, pattern={"name": "unit", "of": "units", "round_to": 4}),
        recipes.hybrid(0.5, 8, first=0.3, pattern="unit"),
        recipes.bidirectional_units(regrow="random"),
    ],
)
def test_written_and_read(program: Program) -> None:
    again = Program.from_json(program.to_json())
    assert again == program
    assert again.to_json() == program.to_json()
    assert again.structured


def test_what_is_refused() -> None:
    model = net()
    unit = recipes.one_shot(0.5, 1, pattern="unit")
    with pytest.raises(RegrowError, match="pass example="):
        regrow.attach(model, sgd(model), unit)
    with pytest.raises(RegrowError, match="pass example="):
        regrow.prepare(model, unit)
    with pytest.raises(RegrowError, match=r"0\.99 of the macs cannot be reached"):
        regrow.prepare(model, recipes.one_shot(0.99, 1, pattern="unit", floor=4), example=X)
    with pytest.raises(RegrowError, match="unknown layer 'stm'"):
        regrow.prepare(model, recipes.one_shot(0.5, 1, pattern="unit", exclude="stm"), example=X)
    with pytest.raises(RegrowError, match="unknown group 'stm'"):
        regrow.prepare(model, recipes.one_shot(0.5, 1, pattern="unit", include="stm"), example=X)
    with pytest.raises(RegrowError, match="no units to cut"):
        regrow.prepare(nn.Linear(4, 2), unit, example=torch.ones(1, 4))
    with pytest.raises(RegrowError, match="'bidirectional_units'"):
        recipes.bidirectional(0.5, 8, pattern="unit")
    with pytest.raises(RegrowError, match="criterion of units 'lamp'"):
        recipes.one_shot(0.5, 1, pattern="unit", criterion="lamp")
    with pytest.raises(RegrowError, match="'scope': 'local'"):
        recipes.one_shot(0.5, 1, pattern="unit", allocation="erk")
    with pytest.raises(RegrowError, match="its pattern is 'unit'"):
        recipes.bidirectional_units(0.5, pattern="element")
    with pytest.raises(RegrowError, match=r"overshoot=0\.4 must be above"):
        recipes.bidirectional_units(0.5, 0.4)
    with pytest.raises(RegrowError, match=r"regrow\.choose and regrow\.shrink"):
        regrow.prune(model, 0.5, pattern="unit")
    with pytest.raises(RegrowError, match="of recipes with pattern='unit'"):
        regrow.attach(model, sgd(model), recipes.one_shot(0.5, 1)).units  # noqa: B018
    with pytest.raises(RegrowError, match="floor=0"):
        UnitPlan(unit.stages[0].plan.schedule, floor=0)
