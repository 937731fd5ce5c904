"""A run: dense training, the recipe and its controls, then everything that is delivered."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regrow.bench.arm import cycles_of, initial, open_fabric, precision, shapes, train_arm
from regrow.bench.arms import CONTROLS, control_parameters
from regrow.bench.config import RunConfig
from regrow.bench.data import Splits
from regrow.bench.deliver import SHRUNK, deliver, open_directory, write_record
from regrow.bench.deployment import deployment
from regrow.bench.environment import environment
from regrow.bench.job import Job
from regrow.bench.preflight import check_task
from regrow.bench.state import StateFile, identity
from regrow.bench.tasks import Task, Training, checked_splits, dense_training
from regrow.bench.trainer import Notify, Trainer
from regrow.core.errors import RegrowError
from regrow.core.table import Row
from regrow.engine.prepare import fit, prepare
from regrow.engine.program import Program
from regrow.export.shrunk import load_shrunk

_COMPARED = 32  # validation samples on which torch and the runtime are compared


def run(
    config: RunConfig,
    task: Task,
    out: Path,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    devices: int = 1,
    command: str = "",
    checkpoint_seconds: float = 20.0,
    fresh: bool = False,
    speed: bool = False,
    notify: Notify = lambda event: None,
) -> dict[str, Any]:
    """Do a run, or the rest of it, in a run directory.

    The directory's `state/` holds a checkpoint of the arm in progress and the result of every
    finished arm; whatever is there is not done again.

    Args:
        config: what to do; written to `recipe.toml`.
        task: the task of the configuration.
        out: the run directory, made if it is not there.
        data_dir: where data sets lie.
        device: "auto", "cpu", "cuda" or "mps".
        devices: ranks.
        command: recorded, so that the run can be repeated.
        checkpoint_seconds: at least so often is progress saved.
        fresh: first remove a run that is there, once nothing speaks against the new one.
        speed: at the end, write the recipe's network as a deploy file and time it beside dense
            engines, which takes some seconds; a measurement that is there is told in any case.
        notify: told of arms and epochs, and of what is being timed.

    Returns:
        the record, as in `record.json`; on all ranks but the first, nothing.

    Raises:
        RegrowError: before any training, when data, program, device or disk are not fit for it,
            another process works at the directory, or a checkpoint is damaged or of another run;
            the loss is not finite.
    """
    program = config.program()
    training = config.settings()
    splits = checked_splits(task, data_dir)
    make_model = initial(task, config.model, config.seed)
    check_task(task, training, splits, make_model)
    model = make_model()
    example = splits.train.images[:1]
    groups = fit(model, program, example, has_reference=False)
    cycles = cycles_of(program)
    fresh_start = program.start == "initial"
    controls = {name: CONTROLS[name] for name in config.controls}
    # Controls begin with the dense network, whose epochs a recipe that starts afresh has itself.
    ahead = training.dense_epochs if fresh_start else 0
    if controls and sum(cycles) <= ahead:
        raise RegrowError(
            f"recipe {config.recipe!r} trains initial weights for {sum(cycles)} epochs, which "
            f"leaves its controls none after training.dense_epochs={ahead}; give it more epochs, "
            "or no controls."
        )
    parameters = control_parameters(config.parameters, program)

    def control_of(row: Row[Program], epochs: int, sparsity: float) -> Program:
        return row.make(config.recipe, parameters, sparsity, epochs - ahead, config.seed)

    for name, row in list(controls.items()):
        likely = 0.5 if program.sparsity is None else program.sparsity
        control = control_of(row, sum(cycles), likely)
        prepare(model, control, example=example)
        if control == program:
            del controls[name]  # It would train the recipe's own program a second time.
    if training.threads:
        torch.set_num_threads(training.threads)
    fabric = open_fabric(device, devices, training)
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    # A checkpoint holds weights, momentum, the dense network and the best one; each arm's result
    # and the delivered files are one network each.
    needed = weights * (2 * 5 + 3 + len(controls))
    with contextlib.ExitStack() as held:
        if fabric.is_global_zero:
            held.enter_context(open_directory(out, config, needed, fresh=fresh))
        fabric.barrier()
        trainer = Trainer(
            fabric,
            task,
            training,
            make_model,
            splits.train,
            splits.validation,
            config.seed,
            notify,
            checkpoint_seconds,
        )
        arms = _Arms(out, trainer, splits, _facts(config, splits, model))
        for name in ("dense", config.recipe, *controls):
            arms.check(name)
        length = training.dense_epochs
        dense = arms.finish(Job("dense", None, None, (length,), length, training.lr))
        start, lr = dense["state"], training.fine_tune_lr
        own = (None, training.lr) if fresh_start else (start, lr)
        main = arms.finish(Job(config.recipe, own[0], program, cycles, sum(cycles), own[1]))
        # Where patience decided, the controls get as many epochs, under the same learning rates;
        # where training decided how sparse the network becomes, they meet that sparsity.
        spent, reached = main["result"]["epochs"], program.sparsity
        reached = main["result"]["sparsity"] if reached is None else reached
        finished = {"dense": dense, config.recipe: main}
        for name, row in controls.items():
            control, length = control_of(row, spent, reached), spent - ahead
            shared = (length,) if fresh_start else cycles
            finished[name] = arms.finish(Job(name, start, control, shared, length, lr))
        if not fabric.is_global_zero:
            return {}
        about = {
            "task": task.name,
            "model": config.model,
            "recipe": config.recipe,
            "seed": config.seed,
            "parameters": config.parameters,
            "training": config.training,
            "command": command,
            "environment": environment(fabric.device.type, precision(training)),
        }
        scratch = {"dense", config.recipe} if fresh_start else {"dense"}
        record = deliver(out, finished, config.recipe, make_model, example, about, groups, scratch)
        count = sum(parameter.numel() for parameter in model.parameters())
        model.load_state_dict(main["state"])
        masks = main["keep"]
        if groups is not None:
            model, masks = load_shrunk(model, out / SHRUNK), None
        found = deployment(
            out,
            model,
            masks,
            splits.validation.images[:_COMPARED],
            parameters=count,
            measure=speed,
            notify=lambda words: notify({"kind": "speed", "arm": config.recipe, "words": words}),
        )
        if found is not None:
            record["deploy"] = found
            write_record(out, record)
        return record


class _Arms:
    """Trains each arm once and keeps its result."""

    def __init__(self, out: Path, trainer: Trainer, splits: Splits, facts: dict[str, Any]) -> None:
        self._state, self._trainer = out / "state", trainer
        self._splits, self._facts = splits, facts

    def _files(self, arm: str) -> tuple[StateFile, StateFile]:
        """The arm's checkpoint and its result."""
        facts = dense_facts(self._facts) if arm == "dense" else self._facts
        mark = identity(facts, arm)
        return StateFile(self._state / f"{arm}.progress", mark), StateFile(
            self._state / f"{arm}.done", mark
        )

    def check(self, arm: str) -> None:
        """Refuse files that are damaged or of another run, before any training.

        Raises:
            RegrowError: see `StateFile.read`.
        """
        for file in self._files(arm):
            file.read()

    def finish(self, job: Job) -> dict[str, Any]:
        """The arm's result: state, keep masks, and plain figures."""
        progress, done = self._files(job.arm)
        before = done.read()
        if before is not None:
            return before
        finished = train_arm(self._trainer, job, progress, self._splits.test)
        about = {"recipe": job.arm, "seed": self._facts["seed"]}
        finished["result"] = {**about, **finished["result"]}
        fabric = self._trainer.fabric
        if fabric.is_global_zero:
            done.write(finished)
            progress.delete()
        fabric.barrier()
        return finished


def _facts(config: RunConfig, splits: Splits, model: nn.Module) -> dict[str, Any]:
    """All that an arm's result depends on; which other arms there are is not among it."""
    facts = asdict(config)
    del facts["controls"]
    return facts | shapes(splits, model)


def dense_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an arm's facts that its dense network depends on: nothing of recipe or pruning."""
    kept = {key: facts[key] for key in ("task", "model", "seed", "data", "network")}
    return {**kept, "training": asdict(dense_training(Training(**facts["training"])))}
