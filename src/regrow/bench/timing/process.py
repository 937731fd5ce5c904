"""The other end of a worker: a child process that answers, or is told of by name when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any

from regrow.bench.timing.engines import Job

COMMAND = (sys.executable, "-m", "regrow.bench.timing.worker")
_POOLS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")


class WorkerFailed(Exception):
    """An engine that could not do what was asked, with the reason."""


class Worker:
    """A running worker. Leaving the context ends the process, whatever it is doing."""

    def __init__(self, job: Job, command: Sequence[str] = COMMAND, patience: float = 900.0) -> None:
        """
        Args:
            job: the first line that the child reads.
            command: of the child.
            patience: seconds for one answer, after which the child is killed.
        """
        self.job = job
        self._patience = patience
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        pools = {f"{name}_NUM_THREADS": str(job.threads) for name in _POOLS}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **pools},
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the parent, who ends the children.
        )

    def start(self) -> dict[str, Any]:
        """Have the engine load the network.

        Raises:
            WorkerFailed: it cannot.
        """
        return self.ask(**asdict(self.job))

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            WorkerFailed: the engine failed, the process died, or patience ran out.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        alarm = threading.Timer(self._patience, process.kill)
        alarm.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # the pipe of a child that is gone
            line = ""
        finally:
            timely = alarm.is_alive()
            alarm.cancel()
            alarm.join()
        if not line.endswith("\n"):
            raise WorkerFailed(self._death() if timely else f"no answer in {self._patience:g} s")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()  # The worker ends when its requests do.
        try:
            process.wait(0.0 if kind else 5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._errors.close()

    def _death(self) -> str:
        try:
            code = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            return "its process closed its output"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process died ({how})" + (f": {lines[-1].strip()}" if lines else "")
