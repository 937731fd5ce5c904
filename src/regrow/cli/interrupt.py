"""Ctrl-C that no destructor swallows."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupt:
    """While entered, SIGINT raises KeyboardInterrupt as ever, and `check` raises it again.

    Python drops an exception that is raised in a destructor or in a callback of the garbage
    collector, and an interrupt that arrives just then is lost: the first collection of a process
    with all of PyTorch's modules takes long enough for that. A run of hours calls `check` after
    every epoch. Where SIGINT is ignored (a background job of a script), it stays so.
    """

    def __init__(self) -> None:
        self._pressed = False

    def __enter__(self) -> Interrupt:
        self._before = signal.getsignal(signal.SIGINT)
        # Only the main thread may set handlers, and an embedding program's own is left alone.
        usual = self._before is signal.default_int_handler
        self._ours = usual and threading.current_thread() is threading.main_thread()
        if self._ours:
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._before)

    def check(self, *_: object) -> None:
        """Raise KeyboardInterrupt if one was sent, whatever became of it.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        if self._pressed:
            raise KeyboardInterrupt

    def _press(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        signal.default_int_handler(number, frame)
