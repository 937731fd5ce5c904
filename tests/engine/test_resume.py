"""Stopping anywhere and going on: the same bits as a run that was never stopped."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from engine_small import assert_projected, batches, loss_fn, network, same
from torch import Tensor, nn

import regrow
from regrow import Program, Pruning, recipes
from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Stage
from regrow.parts.schedule.cubic import Cubic

PER_EPOCH = 3
DATA = batches(PER_EPOCH, seed=3)
SIGNALS = (0.5, 0.7, 0.6, 0.65, 0.4, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5)


def cubic_then_regrow() -> Program:
    """Bidirectional, with the cut as a ramp over iterations that ends in the middle of an epoch."""
    ramp = Cubic(0.9, Step.iterations(5), Step.iterations(1), Step.iterations(2))
    regrowth = recipes.bidirectional_paper(0.7, 0.9, (2, 2), regrow="gradient").stages[1]
    return Program((Stage(Plan(ramp), Step.iterations(7)), regrowth), seed=4)


CASES: dict[str, tuple[Callable[[], Program], int]] = {
    "bidirectional": (
        lambda: recipes.bidirectional_paper(0.7, 0.9, (3, 2), cuts=2, value="init"),
        5,
    ),
    "rounds": (lambda: recipes.bidirectional_paper(0.7, 0.9, (2, 2), rounds=2, regrow="random"), 4),
    "iterations": (cubic_then_regrow, 5),
    "reference": (
        lambda: recipes.bidirectional_paper(
            0.7, 0.9, (1, 1), reference=0.5, regrow="reference", value="reference"
        ),
        3,
    ),
    "woodfisher": (lambda: recipes.woodfisher(0.8, 5, every=2, gradients=2, chunk=16), 5),
    "patience": (lambda: recipes.iterative(0.9, 12, 2, patience=2), 9),
    "granet": (lambda: recipes.granet_st(0.8, 5, every="2it", ramp="6it", end="13it"), 5),
    "codeq": (lambda: recipes.codeq(4, bits=5, learn_bits=True, decay=3.0, bits_decay=1.0), 4),
    "set": (lambda: recipes.sparse_evolution(0.8, 4), 4),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
}


@dataclass
class Run:
    """A training run that can be put into bytes after any optimiser step or epoch."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    pruning: Pruning
    epoch: int = 0
    batch: int = 0

    @classmethod
    def start(cls, program: Program, kind: str, saved: dict[str, Any] | None = None) -> Run:
        model = network(0 if saved is None else 99)  # other weights, to be loaded over
        optimizer = OPTIMIZERS[kind](model.parameters())
        if saved is not None:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
        pruning = regrow.attach(
            model,
            optimizer,
            program,
            loss_fn=loss_fn,
            data=DATA,
            resume=saved and saved["pruning"],
        )
        run = cls(model, optimizer, pruning)
        if saved is not None:
            run.epoch, run.batch = saved["epoch"], saved["batch"]
        return run

    def advance(self) -> None:
        """One batch, and the end of the epoch after the last."""
        if self.batch == PER_EPOCH:
            self.pruning.epoch_end(val_accuracy=SIGNALS[self.epoch])
            self.epoch, self.batch = self.epoch + 1, 0
            return
        loss_fn(self.model, DATA[self.batch]).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.batch += 1

    def file(self) -> bytes:
        """What a user would save."""
        file = io.BytesIO()
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "pruning": self.pruning.state_dict(),
                "epoch": self.epoch,
                "batch": self.batch,
            },
            file,
        )
        return file.getvalue()

    def saved(self) -> dict[str, Any]:
        return read(self.file())


def read(file: bytes) -> dict[str, Any]:
    """Read without unpickling code; anew each time, for optimisers load tensors by reference."""
    return dict(torch.load(io.BytesIO(file), weights_only=True))


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("case", CASES)
def test_resumed_anywhere_is_the_same_run(case: str, kind: str) -> None:
    build, epochs = CASES[case]
    moments = epochs * (PER_EPOCH + 1)  # one after every step and one after every epoch
    whole = Run.start(build(), kind)
    files = [whole.file()]
    for _ in range(moments):
        whole.advance()
        files.append(whole.file())
    whole.pruning.finalize()
    final = whole.saved()
    assert len(whole.pruning.events) > 1
    # After every step and every epoch. Going on to the next checkpoint is enough, since that one
    # is compared and resumed from in turn.
    for position, file in enumerate(files):
        resumed = Run.start(build(), kind, read(file))
        assert same(resumed.saved(), read(file))
        if position < moments:
            resumed.advance()
            assert same(resumed.saved(), read(files[position + 1]))
    for position in torch.randint(moments, (3,), generator=torch.Generator().manual_seed(5)):
        resumed = Run.start(build(), kind, read(files[int(position)]))
        for _ in range(moments - int(position)):
            resumed.advance()
        resumed.pruning.finalize()
        assert same(resumed.saved(), final)
        assert resumed.pruning.events == whole.pruning.events
        assert_projected(resumed.model, whole.pruning.masks)


def saved_run(steps: int = 5) -> tuple[Program, dict[str, Any]]:
    program = CASES["bidirectional"][0]()
    run = Run.start(program, "sgd")
    for _ in range(steps):
        run.advance()
    return program, run.saved()


def test_another_program_is_refused() -> None:
    _, saved = saved_run()
    other = recipes.bidirectional_paper(0.7, 0.9, (3, 2), cuts=2, value="init", seed=1)
    with pytest.raises(regrow.RegrowError, match="written by another program"):
        Run.start(other, "sgd", saved)


def attach_to(model: nn.Module, program: Program, pruning: dict[str, Any]) -> Pruning:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=DATA, resume=pruning)


def test_another_model_is_refused_by_name() -> None:
    program, saved = saved_run()
    model = network()
    more = nn.Sequential(*model, nn.Linear(3, 3))
    with pytest.raises(regrow.RegrowError, match=r"only the model has weight '7\.weight'"):
        attach_to(more, program, saved["pruning"])
    with pytest.raises(regrow.RegrowError, match=r"only the checkpoint has weight '6\.weight'"):
        attach_to(model[:6], program, saved["pruning"])
    wide = network()
    wide[6] = nn.Linear(8, 5)
    with pytest.raises(regrow.RegrowError, match=r"6\.weight of shape \(5, 8\) needs 5 bytes"):
        attach_to(wide, program, saved["pruning"])


def test_remembered_networks_of_another_model_are_refused_by_name() -> None:
    program = CASES["reference"][0]()
    run = Run.start(program, "sgd")
    for _ in range(PER_EPOCH + 1):
        run.advance()
    saved = run.saved()
    reference: dict[str, Tensor] = saved["pruning"]["progress"]["states"]["reference"]
    reference["6.bias"] = torch.zeros(4)
    with pytest.raises(regrow.RegrowError, match=r"checkpoint's reference.*6\.bias has shape"):
        Run.start(program, "sgd", saved)
    del reference["6.bias"]
    with pytest.raises(regrow.RegrowError, match=r"only the model has '6\.bias'"):
        Run.start(program, "sgd", saved)


def test_altered_masks_and_unknown_formats_are_refused() -> None:
    program, saved = saved_run()
    state = saved["pruning"]
    masks: dict[str, Tensor] = state["progress"]["masks"]
    masks["4.weight"][3] ^= 1
    with pytest.raises(regrow.RegrowError, match="altered"):
        Run.start(program, "sgd", saved)
    masks["4.weight"][3] ^= 1
    Run.start(program, "sgd", saved)
    state["format"] = 1
    with pytest.raises(regrow.RegrowError, match="has format 1, this regrow reads 5"):
        Run.start(program, "sgd", saved)


def test_the_model_must_be_loaded_first() -> None:
    program, saved = saved_run()
    with pytest.raises(regrow.RegrowError, match=r"0\.weight has values where.*load the model's"):
        attach_to(network(), program, saved["pruning"])


def test_a_checkpoint_does_not_change_as_training_goes_on() -> None:
    run = Run.start(CASES["patience"][0](), "sgd")
    for _ in range(5):
        run.advance()
    state = run.pruning.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    for _ in range(12):
        run.advance()
    file.seek(0)
    assert same(torch.load(file, weights_only=True), state)
