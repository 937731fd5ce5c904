"""Rewinding: after every cut the network is what it was at the start, but for what is removed."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from engine_small import batches, loss_fn, network

import regrow
from regrow import Program, recipes
from regrow.core.errors import RegrowError
from regrow.engine.plan import Plan
from regrow.engine.regrowth import Regrowth
from regrow.parts.regrowth import RULES
from regrow.parts.schedule.one_shot import OneShot

DATA = batches(3, seed=3)
X = DATA[0][0][:1]


def epoch(model: Any, optimizer: Any) -> None:
    model.train()
    for batch in DATA:
        loss_fn(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("pattern", ["element", "unit"])
@pytest.mark.parametrize("patience", [None, 1])
def test_every_cut_goes_back_to_the_start(pattern: str, patience: int | None) -> None:
    model = network()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    program = recipes.iterative(0.6, 6, 3, rewind=True, pattern=pattern, patience=patience)
    pruning = regrow.attach(model, optimizer, program, example=X)
    cuts = 0
    for number in range(9):
        if pruning.done:
            break
        epoch(model, optimizer)
        before = len(pruning.events)
        pruning.epoch_end(val_accuracy=-float(number))
        if len(pruning.events) == before:
            continue
        cuts += 1
        for name, tensor in model.state_dict().items():
            mask = pruning.masks[name] if name in pruning.masks else torch.ones_like(tensor).bool()
            if pattern == "element" or name in pruning.masks:
                assert torch.equal(tensor, start[name] * mask), name
        assert not any(
            bool(value.any())
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )
    assert cuts == 2 if pattern == "element" else cuts  # one channel may be enough for two targets
    pruning.finalize()


def test_the_second_cut_ranks_what_was_trained_not_what_it_went_back_to() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    program = recipes.iterative(0.6, 4, 2, rewind=True, criterion="magnitude")
    pruning = regrow.attach(model, optimizer, program)
    for _ in range(2):
        epoch(model, optimizer)
        trained = {name: model.state_dict()[name].clone() for name in pruning.masks}
        pruning.epoch_end()
    every = torch.cat([trained[name].abs().flatten() for name in trained])
    kept = torch.cat([pruning.masks[name].flatten() for name in trained])
    assert every[kept].min() >= every[~kept].max()


def test_resumed_it_is_the_same() -> None:
    def course(stop: bool) -> list[torch.Tensor]:
        model = network()
        program = recipes.iterative(0.6, 4, 2, rewind=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        pruning = regrow.attach(model, optimizer, program)
        epoch(model, optimizer)
        pruning.epoch_end()
        if stop:
            buffer = io.BytesIO()
            torch.save([model.state_dict(), optimizer.state_dict(), pruning.state_dict()], buffer)
            buffer.seek(0)
            states = torch.load(buffer, weights_only=True)
            model = network(1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            model.load_state_dict(states[0])
            optimizer.load_state_dict(states[1])
            pruning = regrow.attach(model, optimizer, program, resume=states[2])
        for _ in range(3):
            epoch(model, optimizer)
            pruning.epoch_end()
        pruning.finalize()
        return list(model.state_dict().values())

    assert all(torch.equal(a, b) for a, b in zip(course(False), course(True), strict=True))


def test_written_read_and_refused() -> None:
    for pattern in ("element", "unit"):
        program = recipes.iterative(0.6, 4, 2, rewind=True, pattern=pattern)
        assert Program.from_json(program.to_json()) == program
        plain = recipes.iterative(0.6, 4, 2, pattern=pattern)
        assert "rewind" not in plain.to_json()
        assert Program.from_json(plain.to_json()) == plain
    with pytest.raises(RegrowError, match="leave out rewind"):
        Plan(OneShot(0.5), rewind=True, memory=0.0)
    with pytest.raises(RegrowError, match="leave out rewind"):
        Plan(OneShot(0.5), rewind=True, regrowth=Regrowth(RULES.build("random")))
