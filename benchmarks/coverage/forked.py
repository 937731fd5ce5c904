"""Processes of their own that need not import the libraries anew.

Importing them takes longer than most cases. Needs a system with fork; the
parent must not have computed anything.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

WAIT = 0.1  # seconds between looks at a process


def forked(
    main: Callable[[list[str]], None], arguments: list[str], log: Path, seconds: float | None = None
) -> int | None:
    """Runs a main function; gives its exit status, or None if it was ended after the time.

    What it prints goes to the log. With a limit of time, processes that it starts end with it.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _child(main, arguments, log, alone=seconds is not None)
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(WAIT)


def _child(
    main: Callable[[list[str]], None], arguments: list[str], log: Path, *, alone: bool
) -> None:
    status = 1
    try:
        if alone:
            os.setpgid(0, 0)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        main(arguments)
        status = 0
    except BaseException:  # a child must not return into its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
