"""The network of a run as it is deployed: its file, and its speed beside dense engines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from regrow.bench.state import StateFile, digest
from regrow.bench.timing.measure import OWN, Settings, Timing, time_network
from regrow.core.errors import RegrowError
from regrow.export.deploy import pack

FILE = "deploy.regrow"
"""The file's name in a run directory."""

_SETTINGS = Settings(batches=(1,), threads=(1,), seconds=0.25)
_FIELDS = (
    *("file", "file_bytes", "dense_fp32_bytes", "times_smaller"),
    *("max_abs_diff", "speed", "reason"),
)


def deployment(
    out: Path,
    model: nn.Module,
    masks: Mapping[str, Tensor] | None,
    samples: Tensor,
    *,
    parameters: int,
    measure: bool,
    notify: Callable[[str], None],
) -> dict[str, Any] | None:
    """Write the deploy file of a run's network and time it, and tell what was found.

    A finished measurement is kept in the run's `state/` for as long as its packed file and its
    deploy file are the same, and is not made again. Whatever goes wrong is the reason that is told:
    the run itself is done.

    Args:
        out: the run directory, with its packed file.
        model: the network, with the weights of that file.
        masks: its keep masks.
        samples: real inputs, on which torch and the runtime are compared.
        parameters: of the network before anything was removed.
        measure: whether to measure where no measurement is kept.
        notify: told what is being done, for people who wait.

    Returns:
        `deploy` of the record (docs/record.md), or None where nothing is kept and nothing shall be
        measured.
    """
    path = out / FILE
    kept = StateFile(out / "state" / "deploy.done", digest((out / "model.regrow").read_bytes()))
    before = _kept(kept, path)
    if before is not None:
        return before
    found: dict[str, Any] = dict.fromkeys(_FIELDS)
    try:
        kept.delete()
        path.unlink(missing_ok=True)  # of other weights
        if not measure:
            return None
        notify("packs the network")
        packing = pack(model, path, samples, masks=masks, zstd=False)
        found |= {
            "file": FILE,
            "file_bytes": packing.bytes,
            "dense_fp32_bytes": 4 * parameters,
            "times_smaller": 4 * parameters / packing.bytes,
            "max_abs_diff": packing.max_abs_diff,
        }
        found["speed"] = speed(time_network(path, _SETTINGS, notify))
        kept.write({"deploy": found, "file": digest(path.read_bytes())})
    except RegrowError as error:
        found["reason"] = _line(error)
    except Exception as error:  # of torch.export, or of an engine
        found["reason"] = f"{type(error).__name__}: {_line(error)}"
    return found


def speed(timing: Timing) -> dict[str, Any]:
    """The runtime beside the fastest dense engine in fp32 and the fastest of those that round.

    Raises:
        RegrowError: of the runtime or of dense engines in fp32 there is no time, or none with right
            outputs.
    """
    rows = sorted(
        (row for row in timing.rows if "error" not in row), key=lambda row: row["median_ms"]
    )
    own = next((row for row in rows if row["engine"] == OWN), None)
    dense = [row for row in rows if row["engine"] != OWN]
    best = next((row for row in dense if row["dtype"] == "fp32"), None)
    rounded = next((row for row in dense if row["dtype"] != "fp32"), None)
    if own is None or best is None:
        reasons = [f"{row['engine']}: {row['error']}" for row in timing.rows if "error" in row]
        reasons += [f"{each['engine']}: {each['reason']}" for each in timing.skipped]
        raise RegrowError(
            f"{'the runtime could not' if own is None else 'no dense engine could'} be timed "
            f"({'; '.join(reasons)})."
        )
    told = ("engine", "dtype", "median_ms", "p10_ms", "p90_ms")
    return {
        "cpu": timing.cpu,
        "isa": timing.isa,
        **{key: own[key] for key in ("threads", "batch", "median_ms")},
        "dense": _beside(own, best),
        "rounded": None if rounded is None else _beside(own, rounded),
        "engines": [{key: row[key] for key in told} for row in rows],
        "versions": timing.versions,
    }


def _beside(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: other[key] for key in ("engine", "dtype", "median_ms")}
    return {**found, "times_faster": other["median_ms"] / own["median_ms"]}


def _kept(file: StateFile, path: Path) -> dict[str, Any] | None:
    """A measurement of these weights whose deploy file is still there."""
    with contextlib.suppress(RegrowError, OSError):  # damaged, or of other weights
        found = file.read()
        if found is not None and found["file"] == digest(path.read_bytes()):
            kept: dict[str, Any] = found["deploy"]
            return kept
    return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
