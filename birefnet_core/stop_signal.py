"""Graceful stop on SIGINT, SIGTERM and SIGHUP."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_HANGUP = getattr(signal, "SIGHUP", None)  # of a terminal or connection that closes; Windows lacks it


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end a command as Ctrl+C does: what was begun is removed."""


def interrupt_of(number: int | None) -> type[KeyboardInterrupt]:
    """The exception that a signal is raised as."""
    return KeyboardInterrupt if number == signal.SIGINT else Terminated


_SECONDS_TO_RETURN = 0.05  # in which what the interrupt was lost in ends
STOPPED = 130  # exit code of a training that was stopped, whichever signal did it


def interrupt_code(interrupt: type[BaseException]) -> int:
    """The exit code after an interrupt, as shells have it: 128 and the number of SIGINT or SIGTERM."""
    return 143 if issubclass(interrupt, Terminated) else 130


@contextlib.contextmanager
def lost_interrupts_return() -> Iterator[None]:
    """Within this, an interrupt that was raised where Python can but ignore it is raised again, a moment later.

    So it is in ``__del__`` and in the callbacks of weak references, of which importing torch calls thousands.
    """
    former, ended = sys.unraisablehook, threading.Event()

    def return_interrupt(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            former(lost)
            return
        number = signal.SIGTERM if issubclass(lost.exc_type, Terminated) else signal.SIGINT

        def send() -> None:  # from a thread, as here it would be lost, too; of threading's own locks one may be held
            time.sleep(_SECONDS_TO_RETURN)
            if ended.is_set():
                return
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, number)  # wakes it from waiting
            else:
                _thread.interrupt_main(number)

        _thread.start_new_thread(send, ())

    sys.unraisablehook = return_interrupt
    try:
        yield
    finally:
        ended.set()
        sys.unraisablehook = former


class StopSignal:
    """Within this, SIGINT raises KeyboardInterrupt, and SIGTERM and SIGHUP ``Terminated``.

    Once ``graceful`` is set, they are only noted. After the first, signals do what they did before, apart from SIGHUP:
    a terminal that closes sends several. Ignored ones stay ignored, as in jobs of ``nohup``. In other threads than the
    main one signals cannot be handled; nothing changes then.

    Args:
        graceful: Whether the program looks at ``number`` by itself and ends where it can.
        notice: What the first signal writes to standard error then.

    Attributes:
        number: Of the signal; None if there was none.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP else ()))

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
        first, self.number = not self.requested, number
        self._restore(keep=_HANGUP)
        if first and not self.graceful:
            raise interrupt_of(number)
        if first and self.notice and sys.__stderr__ is not None:  # else its number may be another file's
            with contextlib.suppress(OSError):
                os.write(2, f"{self.notice}\n".encode())

    def _restore(self, keep: int | None = None) -> None:
        for number in [number for number in self._former if number != keep]:
            signal.signal(number, self._former.pop(number))
