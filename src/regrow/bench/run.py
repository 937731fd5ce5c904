"""A run: dense training, the recipe and its controls, then everything that is delivered."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from regrow.bench.arms import CONTROLS
from regrow.bench.config import RunConfig
from regrow.bench.data import Splits
from regrow.bench.environment import environment, native_bf16
from regrow.bench.tasks import Task, Training
from regrow.bench.trainer import Job, Notify, Trainer, read_state
from regrow.core.errors import RegrowError
from regrow.core.files import require_space, write_atomic
from regrow.core.rng import generator, seed_of
from regrow.engine.plan import Program
from regrow.engine.prepare import prepare
from regrow.export.packed import save
from regrow.model.inspection import Inspection, inspect
from regrow.model.inventory import DENOMINATOR

SCHEMA = 1


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
        notify: told of arms and epochs.

    Returns:
        the record, as in `record.json`.

    Raises:
        RegrowError: before any training, when data, program or disk are not fit for it.
    """
    program = config.program()
    training = config.settings()
    splits = task.splits(data_dir)

    def make_model() -> nn.Module:
        torch.manual_seed(seed_of(config.seed, "weights"))
        return task.models[config.model](generator(config.seed, "weights"))

    model = make_model()
    example = splits.train.images[:1]
    prepare(model, program, example=example)
    controls = {name: CONTROLS[name] for name in config.controls}
    for make in controls.values():
        length = program.epochs or training.fine_tune_epochs
        prepare(model, make.make(config.parameters, program.sparsity, length, config.seed))
    out.mkdir(parents=True, exist_ok=True)
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    # A checkpoint holds weights, momentum, the dense network and the best one; each arm's result
    # and the delivered files are one network each.
    require_space(out, weights * (2 * 5 + 3 + len(controls)))
    (out / "state").mkdir(exist_ok=True)
    config.write(out / "recipe.toml")

    if training.threads:
        torch.set_num_threads(training.threads)
    fabric = _fabric(device, devices, training)
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
    arms = _Arms(out, trainer, make_model, splits)
    dense = arms.finish(
        Job("dense", None, None, (training.dense_epochs,), training.lr),
        {"recipe": "dense", "seed": config.seed},
    )
    cycles = _cycles(program, training)
    lr = training.fine_tune_lr
    main = arms.finish(
        Job(config.recipe, dense["state"], program, cycles, lr),
        {"recipe": config.recipe, "seed": config.seed},
    )
    spent = main["result"]["epochs"]
    if spent != sum(cycles):
        cycles = (spent,)  # Patience decided; controls get the same number of epochs.
    finished = {"dense": dense, config.recipe: main}
    for name, row in controls.items():
        control = row.make(config.parameters, program.sparsity, spent, config.seed)
        finished[name] = arms.finish(
            Job(name, dense["state"], control, cycles, lr), {"recipe": name, "seed": config.seed}
        )
    precision = "bf16" if fabric_precision(training) == "bf16-mixed" else "fp32"
    record = {
        "schema": SCHEMA,
        "task": task.name,
        "model": config.model,
        "recipe": config.recipe,
        "seed": config.seed,
        "command": command,
        "environment": environment(fabric.device.type, precision),
        "arms": _deliver(out, finished, config.recipe, make_model, example),
    }
    if fabric.is_global_zero:
        _write_json(out / "record.json", record)
        _write_json(out / "history.json", _history(finished))
        for leftover in (out / "state").glob("*.progress"):
            leftover.unlink()
    return record


class _Arms:
    """Trains each arm once and keeps its result; the test set is opened here and nowhere else."""

    def __init__(
        self, out: Path, trainer: Trainer, make_model: Callable[[], nn.Module], splits: Splits
    ) -> None:
        self._out, self._trainer = out, trainer
        self._make_model, self._splits = make_model, splits

    def finish(self, job: Job, about: dict[str, Any]) -> dict[str, Any]:
        """The arm's result: state, keep masks, and plain figures."""
        done = self._out / "state" / f"{job.arm}.done"
        if done.exists():
            return read_state(done)
        progress = self._out / "state" / f"{job.arm}.progress"
        trained = self._trainer.run(job, progress)
        model = self._make_model()
        model.load_state_dict(trained.state)
        counts = inspect(model, masks=trained.keep)
        finished = {
            "state": trained.state,
            "keep": trained.keep,
            "history": trained.history,
            "events": trained.events,
            "result": {
                **about,
                "sparsity": counts.sparsity,
                "kept": counts.kept,
                "total": counts.total,
                "validation_accuracy": trained.validation_accuracy,
                "test_accuracy": self._test(model),
                "epochs": trained.epochs,
                "steps": trained.steps,
                "seconds": trained.seconds,
            },
        }
        buffer = io.BytesIO()
        torch.save(finished, buffer)
        if self._trainer._fabric.is_global_zero:
            write_atomic(done, buffer.getvalue())
            progress.unlink(missing_ok=True)
        self._trainer._fabric.barrier()
        return finished

    def _test(self, model: nn.Module) -> float:
        """The one look at the test set that an arm gets, after its last decision."""
        model = model.to(self._trainer._fabric.device)
        return self._trainer.accuracy(model, self._splits.test)


def _fabric(device: str, devices: int, training: Training) -> Fabric:
    fabric = Fabric(accelerator=device, devices=devices, precision=fabric_precision(training))
    fabric.launch()
    return fabric


def fabric_precision(training: Training) -> Any:
    """Fabric's name of the precision; "auto" asks the hardware."""
    wanted = training.precision
    if wanted == "auto":
        wanted = "bf16" if torch.cuda.is_available() or native_bf16() else "fp32"
    return "bf16-mixed" if wanted == "bf16" else "32-true"


def _cycles(program: Program, training: Training) -> tuple[int, ...]:
    """Epochs of each learning-rate cycle: one per stage, the same for every arm."""
    if program.epochs is None:
        return (training.fine_tune_epochs,)
    return tuple(stage.length.value for stage in program.stages if stage.length)


def _deliver(
    out: Path,
    finished: dict[str, dict[str, Any]],
    main: str,
    make_model: Callable[[], nn.Module],
    example: Tensor,
) -> dict[str, Any]:
    """Write each arm's packed file and the main arm's weights; the arms of the record."""
    before = finished["dense"]["result"]
    arms = {}
    for name, arm in finished.items():
        model = make_model()
        model.load_state_dict(arm["state"])
        counts = inspect(model, masks=arm["keep"], example=example)
        path = out / ("model.regrow" if name == main else f"state/{name}.regrow")
        size = save(model, path, masks=arm["keep"], example=example, metadata={"arm": name})
        if name == main:
            _write_weights(out / "model.safetensors", model, counts)
            _verify(path, out / "model.safetensors")
        arms[name] = _arm(arm["result"], before, size, model, dense=name == "dense")
    return arms


def _arm(
    result: dict[str, Any], before: dict[str, Any], size: int, model: nn.Module, *, dense: bool
) -> dict[str, Any]:
    spent = {}
    for unit in ("epochs", "steps"):
        phases = (
            {"dense": before[unit]}
            if dense
            else {
                "dense": before[unit],
                "fine_tune": result[unit],
            }
        )
        spent[unit] = {**phases, "total": sum(phases.values())}
    order = ("recipe", "seed", "sparsity")
    return {
        **{key: result[key] for key in order},
        "density_denominator": DENOMINATOR,
        "kept": result["kept"],
        "total": result["total"],
        "test_accuracy": result["test_accuracy"],
        "validation_accuracy": result["validation_accuracy"],
        **spent,
        "seconds": result["seconds"],
        "file_bytes": size,
        "dense_bytes": len(save_tensors(_contiguous(model))),
    }


def _write_weights(path: Path, model: nn.Module, counts: Inspection) -> None:
    note = {"regrow": json.dumps(counts.to_dict())}
    write_atomic(path, save_tensors(_contiguous(model), metadata=note))


def _contiguous(model: nn.Module) -> dict[str, Tensor]:
    # Copies: the format refuses names that share memory.
    return {name: t.detach().clone().contiguous() for name, t in model.state_dict().items()}


def _verify(packed: Path, weights: Path) -> None:
    """Read the packed file in a fresh process and compare with the plain weights to the bit.

    Raises:
        RegrowError: they differ.
    """
    command = [sys.executable, "-m", "regrow.export.verify", str(packed), str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RegrowError(f"{packed} does not give the weights back: {done.stderr.strip()[-500:]}.")


def _history(finished: dict[str, dict[str, Any]]) -> dict[str, Any]:
    arms = {n: {"epochs": arm["history"], "events": arm["events"]} for n, arm in finished.items()}
    return {"schema": SCHEMA, "arms": arms}


def _write_json(path: Path, data: dict[str, Any]) -> None:
    write_atomic(path, (json.dumps(data, indent=1) + "\n").encode())


def clear(out: Path) -> None:
    """Remove a run directory that regrow wrote.

    Raises:
        RegrowError: the directory holds no run, so it is not ours to remove.
    """
    if out.exists() and any(out.iterdir()) and not (out / "recipe.toml").exists():
        raise RegrowError(f"{out} is not empty and holds no run; choose another --out.")
    shutil.rmtree(out, ignore_errors=True)
