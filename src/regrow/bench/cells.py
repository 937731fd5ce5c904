"""What one arm of one seed is, and by which key its result is found again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from regrow.bench.arm import cycles_of
from regrow.bench.state import identity
from regrow.bench.tasks import Task, Training, dense_training
from regrow.core.errors import RegrowError, unknown
from regrow.engine.program import Program

# Counted up when the same facts come to mean another result: old results are not found any more.
_IDENTITY = 1
# Cycles and peak of a cell say all that these do.
_RESOLVED = ("dense_epochs", "fine_tune_epochs", "lr", "fine_tune_lr")


@dataclass(frozen=True)
class Cell:
    """One arm of one seed: all that its result depends on.

    Attributes:
        task: of which the name counts.
        model: one of the task's networks.
        seed: of initial weights, data order and augmentation.
        training: how it is trained; `threads=0` means one thread here, on any machine.
        program: what prunes the dense network of this training and seed or, if that is how it
            starts, the initial weights; None trains densely.
        cycles: epochs of each learning-rate cycle. By default the training's dense epochs, or
            the lengths of the program's stages.
        lr: the peak of each cycle; by default the training's, for fine-tuning what starts dense.
        tag: names a hook of the store; for a pruned cell only.
        name: what people call it; no part of what it is.
    """

    task: Task
    model: str
    seed: int
    training: Training
    program: Program | None = None
    cycles: tuple[int, ...] = ()
    lr: float | None = None
    tag: str = ""
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.model not in self.task.models:
            raise unknown(f"model of task {self.task.name!r}:", self.model, self.task.models)
        usual: tuple[int, ...]
        usual, lr = (self.training.dense_epochs,), self.training.lr
        if self.program is not None:
            usual = cycles_of(self.program)
            lr = self.training.lr if self.from_scratch else self.training.fine_tune_lr
        cycles = tuple(self.cycles) or usual
        if min(cycles) < 1:
            raise RegrowError(f"cell {self.label!r}: a cycle lasts at least 1 epoch; got {cycles}.")
        if self.program is not None and self.program.epochs not in (None, sum(cycles)):
            raise RegrowError(
                f"cell {self.label!r}: the program lasts {self.program.epochs} epochs, the cycles "
                f"{cycles} last {sum(cycles)}; make the two agree."
            )
        if self.program is None and self.tag:
            raise RegrowError(
                f"cell {self.label!r} is dense and has the tag {self.tag!r}; a hook is called with "
                "the handle of a program, so leave the tag out or give a program."
            )
        object.__setattr__(self, "cycles", cycles)
        object.__setattr__(self, "lr", float(lr if self.lr is None else self.lr))

    @property
    def label(self) -> str:
        """Its name, or else what it is in short."""
        return self.name or f"{self.model}, seed {self.seed}, {self.tag or 'untagged'}"

    @property
    def epochs(self) -> int:
        """The most epochs that it lasts."""
        return sum(self.cycles)

    @property
    def from_scratch(self) -> bool:
        """Whether it is trained from the task's initial weights, not from a dense network's."""
        return self.program is None or self.program.start == "initial"

    def dense(self) -> Cell:
        """The dense cell that a pruned one starts from; itself if it is trained from scratch."""
        if self.from_scratch:
            return self
        training = dense_training(self.training)
        name = f"dense {self.model}, seed {self.seed}"
        return Cell(self.task, self.model, self.seed, training, name=name)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All that the result depends on, and nothing else, as plain data."""
        pruned = self.program is not None
        training = self.training if pruned else dense_training(self.training)
        plain = {k: v for k, v in asdict(training).items() if k not in _RESOLVED}
        return {
            "task": self.task.name,
            "model": self.model,
            "seed": self.seed,
            "training": {**plain, "threads": training.threads or 1},
            "program": self.program and _spelled(self.program),
            "cycles": list(self.cycles),
            "lr": self.lr,
            "tag": self.tag,
            "dense": None if self.from_scratch else self.dense().key,
        }

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits that tell it from every other cell."""
        return identity(_IDENTITY, self.facts).hex()[:16]


def _spelled(program: Program) -> dict[str, Any]:
    """A program as facts tell it: in the spelling that keys of older cells were made from."""
    told: dict[str, Any] = json.loads(program.to_json())
    for stage in told["stages"]:
        if stage["plan"]["pattern"]["name"] != "unit":
            stage["plan"]["selector"] = {"name": "top_k"}  # when there was a choice of it
    return told
