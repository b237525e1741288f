"""Graceful stop on SIGTERM and SIGINT."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """Within this, SIGTERM and SIGINT raise KeyboardInterrupt, or set ``requested`` once ``graceful`` is set.

    A second signal ends the process. In other threads than the main one signals cannot be handled; nothing changes
    then.

    Attributes:
        graceful: Whether the program checks ``requested`` by itself.
        requested: Whether there was a signal.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.graceful = self.requested = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle_signal) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        if not self.graceful:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        while self._former:
            signal.signal(*self._former.popitem())
