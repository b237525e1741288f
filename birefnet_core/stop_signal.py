"""Graceful stop on SIGINT, SIGTERM and SIGHUP."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """Within this, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, or are only noted once ``graceful`` is set.

    After the first, signals do what they did before. Ignored ones stay ignored, as in jobs of ``nohup``. In other
    threads than the main one signals cannot be handled; nothing changes then.

    Args:
        graceful: Whether the program looks at ``number`` by itself and ends where it can.
        notice: What the first signal writes to standard error then.

    Attributes:
        number: Of the signal; None if there was none.
    """

    # Windows lacks the last, which the end of a terminal or of a connection sends.
    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

    def __init__(self, *, graceful: bool = False, notice: str = "") -> None:
        self.graceful, self.notice = graceful, notice
        self.number: int | None = None
        self._former: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether there was a signal."""
        return self.number is not None

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._former[number] = signal.signal(number, self._handle_signal)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()
        if not self.graceful:
            raise KeyboardInterrupt
        if self.notice and sys.__stderr__ is not None:  # else its number may be another file's
            with contextlib.suppress(OSError):
                os.write(2, f"{self.notice}\n".encode())

    def _restore(self) -> None:
        while self._former:
            signal.signal(*self._former.popitem())
