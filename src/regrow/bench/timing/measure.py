"""Who is measured, in which order, and what is made of the times."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regrow.bench.environment import processor
from regrow.bench.timing.engines import ENGINES, Engine, Job
from regrow.bench.timing.onnx_graph import onnx_model
from regrow.bench.timing.process import Worker, WorkerFailed
from regrow.bench.timing.quantised import NotQuantised, quantise
from regrow.bench.timing.rounds import Turn, by_module, compared, interleaved, reference, summary
from regrow.bench.timing.source import Source, read_source
from regrow.core.errors import RegrowError, unknown

OWN = "regrow"


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        batches, threads: every pair is a cell.
        against: engines beside the runtime.
        seconds: of each engine in each cell, about; more where ten calls take longer.
        layers: whether the runtime tells the time of each layer.
        seed: of the random inputs.
    """

    batches: tuple[int, ...] = (1, 16, 64)
    threads: tuple[int, ...] = (1,)
    against: tuple[str, ...] = ("onnxruntime", "openvino", "torch")
    seconds: float = 1.0
    layers: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Timing:
    """What was measured, as plain data.

    Attributes:
        cpu, isa: the processor's name, and the instruction set of the runtime.
        max_abs_diff: the largest difference of a runtime's output from torch's (fp32, the same
            weights and inputs); None if the runtime failed.
        rows: engine, dtype, batch, threads, median_ms, p10_ms, p90_ms, calls, max_abs_diff,
            relative_diff (that over the largest output of torch's), peak_mb (growth of the
            process's peak memory, in MiB, from before the engine was imported and the network
            loaded until then; it holds this and the smaller batches before, and PyTorch's libraries
            in nobody's row, since every worker has them) and, where outputs are wrong, error.
        versions: of every package that was measured.
        load: processes that wanted a processor in the minute before (load average), if known.
        skipped: engine, dtype, threads, batch (each None where it is not about one) and reason.
        layers: threads, batch, module, microseconds of all its steps, gmacs (useful multiply-adds,
            1e9 a second), peak_share (that over the most that the processor reaches in fp32, which
            the runtime measures). The runtime takes 1, 2, 4, 8 or 16 samples at once; others
            are timed as the next of these, and larger batches as 16.
    """

    cpu: str
    isa: str | None
    max_abs_diff: float | None
    rows: list[dict[str, Any]]
    versions: dict[str, str]
    skipped: list[dict[str, Any]]
    load: float | None = None
    layers: list[dict[str, Any]] = field(default_factory=list)


def time_network(
    path: str | os.PathLike[str],
    settings: Settings,
    notify: Callable[[str], None] = lambda words: None,
    open_worker: Callable[[Job], Worker] = Worker,
) -> Timing:
    """Measure a deploy file beside dense engines on the same network.

    Args:
        path: of the file.
        settings: see there.
        notify: told what is being done, for people who wait.
        open_worker: starts the process of a job.

    Raises:
        RegrowError: the settings or the file are of no use; raised before anything is measured.
    """
    check(settings)
    source = read_source(path)
    timing = Timing(processor(), None, None, [], {"torch": torch.__version__}, [], _load())
    with tempfile.TemporaryDirectory(prefix="regrow-time-") as folder:
        bench = _Bench(settings, source, Path(folder), timing, notify)
        jobs = bench.jobs(os.path.abspath(path))
        for threads in settings.threads:
            bench.threads(threads, jobs, open_worker)
    return Timing(
        timing.cpu,
        bench.isa,
        _farthest(timing.rows),
        timing.rows,
        timing.versions,
        timing.skipped,
        timing.load,
        timing.layers,
    )


def check(settings: Settings) -> None:
    """Refuse what cannot be measured.

    Raises:
        RegrowError: an engine that is not known, or numbers out of range.
    """
    for name in settings.against:
        if name not in ENGINES:
            raise unknown("engine", name, ENGINES)
    if not settings.batches or min(settings.batches) < 1:
        raise RegrowError(f"a batch has at least one sample; got {list(settings.batches)}.")
    if not settings.threads or min(settings.threads) < 1:
        raise RegrowError(f"threads are at least 1; got {list(settings.threads)}.")
    here = processors()
    if max(settings.threads) > here:
        raise RegrowError(
            f"this process may use {here} processors; {max(settings.threads)} threads on them "
            f"would wait for each other. Give at most {here}."
        )
    if not 0 < settings.seconds < float("inf"):
        raise RegrowError(f"seconds are more than 0; got {settings.seconds:g}.")


def processors() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


@dataclass
class _Bench:
    settings: Settings
    source: Source
    folder: Path
    timing: Timing
    notify: Callable[[str], None]
    isa: str | None = None

    def jobs(self, packed: str) -> list[tuple[str, str, str, str]]:
        """Engine, dtype, deploy file and ONNX file of all that can run; the rest is skipped."""
        found = []
        for name in dict.fromkeys((OWN, *self.settings.against)):
            engine = ENGINES[name]
            reason = engine.missing()
            if reason is not None:
                self._skip(reason, name)
                continue
            self.timing.versions[engine.package] = engine.version() or "unknown"
            for dtype in engine.dtypes:
                lacking = engine.lacks(dtype)
                if lacking is not None:
                    self._skip(lacking, name, dtype)
                    continue
                try:
                    found.append((name, dtype, packed, self._onnx(engine, dtype)))
                except NotQuantised as failure:
                    self._skip(str(failure), name, dtype)
        return found

    def _onnx(self, engine: Engine, dtype: str) -> str:
        """Path of the ONNX file that an engine starts from, made for the first that asks for it."""
        if not engine.reads_onnx:
            return ""
        if dtype == "int8":
            path = self.folder / ("int8-fused.onnx" if engine.fuses else "int8.onnx")
            if not path.exists():
                self.notify("the network is quantised")
                quantise(self.source, path, engine.fuses, self.settings.seed)
        else:
            path = self.folder / "network.onnx"
            if not path.exists():
                importlib.import_module("onnx").save(onnx_model(self.source), str(path))
        return str(path)

    def threads(
        self,
        threads: int,
        jobs: Iterable[tuple[str, str, str, str]],
        open_worker: Callable[[Job], Worker],
    ) -> None:
        """All cells of a number of threads, in the same processes."""
        with contextlib.ExitStack() as stack:
            workers: list[Worker] = []
            for engine, dtype, packed, onnx in jobs:
                job = Job(engine, dtype, threads, packed, onnx)
                self.notify(f"{_named(job)} loads the network")
                worker = stack.enter_context(open_worker(job))
                with self._watch(job, None):
                    answer = worker.start()
                    workers.append(worker)
                    self.isa = answer["isa"] or self.isa
            for batch in sorted(set(self.settings.batches)):
                workers = self._cell(batch, threads, workers)

    def _cell(self, batch: int, threads: int, workers: Sequence[Worker]) -> list[Worker]:
        """Compare, then time; gives the workers that are still of use."""
        inputs = self.source.inputs(batch, self.settings.seed)
        expected = reference(self.source, inputs)
        files = [self.folder / name for name in ("inputs.npz", "outputs.npz")]
        np.savez(files[0], *inputs)
        rows: dict[Worker, dict[str, Any]] = {}
        for worker in workers:
            job = worker.job
            self.notify(f"{_named(job)}: outputs for a batch of {batch}")
            with self._watch(job, batch):
                worker.ask(do="prepare", batch=batch, inputs=str(files[0]), outputs=str(files[1]))
                with np.load(files[1]) as given:
                    outputs = [given[f"arr_{index}"] for index in range(len(given.files))]
                rows[worker] = {
                    "engine": job.engine,
                    "dtype": job.dtype,
                    "batch": batch,
                    "threads": threads,
                    **compared(outputs, expected, job.dtype),
                }
        self.notify(f"times of a batch of {batch}, {threads} threads")
        peaks: dict[Worker, float] = {}

        def turns(worker: Worker) -> Turn:
            def burst(calls: int) -> list[float]:
                answer = worker.ask(do="burst", calls=calls)
                peaks[worker] = answer["peak_mb"]
                return list(answer["seconds"])

            return burst

        times, failed = interleaved({w: turns(w) for w in rows}, self.settings.seconds)
        for worker, reason in failed.items():
            self._skip(reason, worker.job.engine, worker.job.dtype, threads, batch)
        for worker, seconds in times.items():
            row = {**rows[worker], **summary(seconds), "peak_mb": round(peaks[worker], 1)}
            self.timing.rows.append(row)
        alive = list(times)
        if self.settings.layers:
            self._layers(batch, threads, [w for w in alive if w.job.engine == OWN])
        return alive

    def _layers(self, batch: int, threads: int, workers: Iterable[Worker]) -> None:
        for worker in workers:
            with self._watch(worker.job, batch):
                steps = worker.ask(do="profile", batch=batch)["layers"]
                cell = {"threads": threads, "batch": batch}
                self.timing.layers.extend({**cell, **layer} for layer in by_module(steps))

    @contextlib.contextmanager
    def _watch(self, job: Job, batch: int | None) -> Iterator[None]:
        try:
            yield
        except WorkerFailed as failure:
            self._skip(str(failure), job.engine, job.dtype, job.threads, batch)

    def _skip(
        self,
        reason: str,
        engine: str,
        dtype: str | None = None,
        threads: int | None = None,
        batch: int | None = None,
    ) -> None:
        self.timing.skipped.append(
            {
                "engine": engine,
                "dtype": dtype,
                "threads": threads,
                "batch": batch,
                "reason": reason,
            }
        )


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on this system
        return None


def _farthest(rows: Iterable[dict[str, Any]]) -> float | None:
    known = [row["max_abs_diff"] for row in rows if row["engine"] == OWN]
    return None if None in known else max(known, default=None)


def _named(job: Job) -> str:
    return f"{job.engine} {job.dtype}, {job.threads} threads"
