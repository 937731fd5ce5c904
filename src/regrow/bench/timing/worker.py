"""One engine in a process of its own: JSON lines in, JSON lines out, until the input ends.

The first line is a job; then come requests:

    {"do": "prepare", "batch": 16, "inputs": FILE, "outputs": FILE}     arrays as .npz
    {"do": "burst", "calls": 8}                                         seconds of each call
    {"do": "profile", "batch": 16}                                      times of each layer

Every answer has "peak_mb" or, if something failed, "error".
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from regrow.bench.timing.engines import ENGINES, Job, Run

_MIB = 2**20


def main() -> None:
    """Serve the process's own standard input; libraries that print do it on the error output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests, one line each, until there are no more, or one has failed."""
    handle: Callable[[Mapping[str, Any]], dict[str, Any]] = _start
    before = peak_bytes()
    for line in requests:
        try:
            request = json.loads(line)
            if handle is _start:
                pin(request["threads"])
                handle, answer = _start(request)
            else:
                answer = handle(request)
            answer["peak_mb"] = (peak_bytes() - before) / _MIB
        except Exception as error:  # of any engine; the caller tells which
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if "error" in answer:
            return


def _start(job: Mapping[str, Any]) -> Any:
    loaded = ENGINES[job["engine"]].load(Job(**job))
    run: Run | None = None
    inputs: list[Any] = []

    def handle(request: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal run, inputs
        if request["do"] == "prepare":
            run = None  # The engine may hold one batch size's memory at a time.
            run = loaded.prepare(request["batch"])
            with np.load(request["inputs"]) as given:
                inputs = [given[f"arr_{index}"] for index in range(len(given.files))]
            np.savez(request["outputs"], *run(inputs))
            return {}
        if request["do"] == "burst":
            assert run is not None
            return {"seconds": burst(run, inputs, request["calls"])}
        assert loaded.profile is not None
        return {"layers": loaded.profile(request["batch"])}

    return handle, {"isa": loaded.isa}


def burst(run: Run, inputs: list[Any], calls: int) -> list[float]:
    """Seconds of each of so many calls in a row.

    Of several, one more comes first and does not count: the engine before may have left its
    threads spinning and the caches full of other things.
    """
    if calls > 1:
        run(inputs)
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        run(inputs)
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_bytes() -> int:
    """The largest resident memory of this process so far.

    Linux's getrusage counts what the parent had when it started this one; /proc does not.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def pin(threads: int) -> None:
    """Keep this process on as many processors as it has threads, on separate cores if it can."""
    if not hasattr(os, "sched_setaffinity"):
        return
    chosen = sorted(os.sched_getaffinity(0), key=lambda number: (_sibling(number), number))
    os.sched_setaffinity(0, chosen[:threads])


def _sibling(number: int) -> int:
    """0 for the first processor of a core, 1 for its second, as far as the system tells."""
    path = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
    try:
        listed = path.read_text().strip()
    except OSError:
        return 0
    siblings: list[int] = []
    for part in listed.split(","):
        first, _, last = part.partition("-")
        siblings += range(int(first), int(last or first) + 1)
    return siblings.index(number) if number in siblings else 0


if __name__ == "__main__":
    main()
