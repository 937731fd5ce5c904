"""What a run directory holds: made, filled at the end, and cleared."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from regrow.bench.config import RunConfig
from regrow.core.errors import RegrowError
from regrow.core.files import require_space, write_atomic
from regrow.engine.best_units import measure_of
from regrow.engine.groups import Groups
from regrow.engine.shrink import shrink
from regrow.export.packed import save
from regrow.export.shrunk import EDITS, TENSORS, save_shrunk
from regrow.model.inspection import Inspection, inspect
from regrow.model.inventory import DENOMINATOR
from regrow.parts.patterns.unit import BUDGETS

SCHEMA = 1
SHRUNK = "shrunk"
"""The folder of a run's smaller network, where units were cut."""

# The recipe last: a directory is known as a run as long as anything of it is left.
FILES = (
    "record.json",
    "history.json",
    "model.safetensors",
    "model.regrow",
    "deploy.regrow",
    f"{SHRUNK}/{EDITS}",
    f"{SHRUNK}/{TENSORS}",
    "report.html",
    "recipe.toml",
)
"""What a run writes beside its `state/`."""

_STATE = ("*.progress", "*.done", "*.regrow", ".*.tmp")


@contextlib.contextmanager
def open_directory(out: Path, config: RunConfig, needed: int, *, fresh: bool) -> Iterator[None]:
    """Make a run directory, or take one up again, and keep other processes off it meanwhile.

    Args:
        out: the directory.
        config: written to `recipe.toml` unless the file is there.
        needed: bytes that the run will write.
        fresh: first remove a run that is there.

    Raises:
        RegrowError: the directory cannot be made, holds something else, is another process's at
            the moment, or its disk is full.
    """
    with contextlib.ExitStack() as held:
        try:
            if fresh:
                check_run(out)
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(_claimed(out))
            if fresh:
                clear(out)
            require_space(out, needed)
            if not (out / "recipe.toml").exists():
                config.write(out / "recipe.toml")
            (out / "state").mkdir(exist_ok=True)
            for folder in (out, out / "state"):
                for leftover in folder.glob(".*.tmp"):  # of a process killed while it wrote
                    leftover.unlink(missing_ok=True)
        except OSError as error:
            raise RegrowError(
                f"{out} cannot be made ready for a run: {error.strerror} ({error.filename}); "
                "choose another --out."
            ) from error
        yield


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """A lock on the directory itself, which leaves no file and ends with the process."""
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RegrowError(
                f"another process works at {out}; wait for it, or choose another --out."
            ) from None
        except OSError:
            pass  # A file system that locks no directories, as some over networks.
        yield
    finally:
        os.close(descriptor)


def check_run(out: Path) -> None:
    """Refuse a path at which there is something else than a run or an empty directory.

    Raises:
        RegrowError: the path is no directory, or holds something but no run.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise RegrowError(f"{out} is a file; choose another --out.")
    others = [path for path in out.iterdir() if not path.match(".*.tmp")]
    if others and not (out / "recipe.toml").exists():
        raise RegrowError(f"{out} is not empty and holds no run; choose another --out.")


def clear(out: Path) -> None:
    """Remove the files that a run writes, and nothing else.

    Raises:
        RegrowError: see `check_run`.
    """
    check_run(out)
    state = out / "state"
    for pattern in _STATE:
        for path in state.glob(pattern):
            path.unlink()
    if state.is_dir() and not any(state.iterdir()):
        state.rmdir()
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or with files of somebody else's
        (out / SHRUNK).rmdir()


def deliver(
    out: Path,
    finished: Mapping[str, dict[str, Any]],
    main: str,
    make_model: Callable[[], nn.Module],
    example: Tensor,
    about: Mapping[str, Any],
    groups: Groups | None = None,
    scratch: Collection[str] = ("dense",),
) -> dict[str, Any]:
    """Write each arm's packed file, the main arm's weights, history.json and record.json.

    Where units were cut, the main arm's smaller network too.

    Args:
        out: the run directory.
        finished: arms by name, as `run` trained them, "dense" among them.
        main: the arm of the recipe.
        make_model: builds the network.
        example: one input.
        about: the record's fields beside the arms.
        groups: of which units were cut; None where weights were, one by one.
        scratch: the arms that were trained from initial weights.

    Returns:
        the record.
    """
    before = finished["dense"]["result"]
    arms = {}
    for name, arm in finished.items():
        model = make_model()
        model.load_state_dict(arm["state"])
        path = out / ("model.regrow" if name == main else f"state/{name}.regrow")
        size = save(model, path, masks=arm["keep"], example=example, metadata={"arm": name})
        if name == main:
            counts = inspect(model, masks=arm["keep"], example=example)
            _write_weights(out / "model.safetensors", model, counts)
            _verify(path, out / "model.safetensors")
        started = None if name in scratch else before
        arms[name] = _arm(arm["result"], started, size, model, dense=name == "dense")
        if groups is not None and arm["keep"] is not None:
            keep = groups.units(arm["keep"])
            arms[name]["shrunk"] = _sizes(groups, keep, arm["events"][-1]["of"])
            if name == main:
                save_shrunk(shrink(model.eval(), example, keep, groups=groups), out / SHRUNK)
    record = {"schema": SCHEMA, **about, "arms": arms}
    courses = {
        n: {"epochs": arm["history"], "events": arm["events"]} for n, arm in finished.items()
    }
    _write_json(out / "history.json", {"schema": SCHEMA, "arms": courses})
    # The record last: where it is, the run is finished.
    write_record(out, record)
    return record


def write_record(out: Path, record: dict[str, Any]) -> None:
    """Write record.json, in place of one that is there."""
    _write_json(out / "record.json", record)


def _arm(
    result: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    size: int,
    model: nn.Module,
    *,
    dense: bool,
) -> dict[str, Any]:
    spent = {}
    for unit in ("epochs", "steps"):
        own = "dense" if dense else "sparse" if before is None else "fine_tune"
        phases = {} if before is None else {"dense": before[unit]}
        phases |= {own: result[unit]}
        spent[unit] = {**phases, "total": sum(phases.values())}
    return {
        **{key: result[key] for key in ("recipe", "seed", "sparsity")},
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


def _sizes(groups: Groups, keep: Mapping[str, Tensor], of: str) -> dict[str, Any]:
    sizes: dict[str, Any] = {"of": of}
    for name in BUDGETS:
        measure = measure_of(groups, name)
        sizes |= {name: int(measure(keep)), f"{name}_dense": int(measure({}))}
    return sizes


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


def _write_json(path: Path, data: dict[str, Any]) -> None:
    write_atomic(path, (json.dumps(data, indent=1) + "\n").encode())
