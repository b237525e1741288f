"""Standard output and error: streams that may be closed, unable to show a character, or read by another program."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, TextIO

from ..checkpoints.hub_client import hub_client
from ..stop_signal import StopSignal, interrupt_of, lost_interrupts_return
from ..text import clock_time, printable

_SECONDS_BETWEEN_LINES = 10.0  # between lines of progress, where output is not a terminal


class OutputLostError(Exception):
    """Standard output cannot be written, as on a full disk."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written ({error.strerror}).")


class Formatter(logging.Formatter):
    """Messages whose names of files and tensors cannot move the cursor or change colours."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


def prepare_streams() -> None:
    """Lets both streams write escapes for characters that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def say(text: str, *, error: bool = False) -> None:
    """Prints a line or several; does nothing where nobody reads them any more.

    Raises:
        OutputLostError: They cannot be written to standard output.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except OSError as lost:
        _discard(stream)
        if not error and not isinstance(lost, BrokenPipeError):
            raise OutputLostError(lost) from lost


def flush_streams() -> None:
    """Writes what is buffered, so that Python need not try at its end, where an error would become a traceback.

    Raises:
        OutputLostError: Standard output cannot be written.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is None or stream.closed:
            continue
        try:
            stream.flush()
        except OSError as lost:
            _discard(stream)
            if stream is sys.stdout and not isinstance(lost, BrokenPipeError):
                raise OutputLostError(lost) from lost


def reader_has_gone() -> bool:
    """Whether the program that read standard output has ended, as ``head`` does after some lines."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        return True
    return False


@contextlib.contextmanager
def signals_interrupt() -> Iterator[Callable[[], None]]:
    """Within this, SIGINT raises KeyboardInterrupt, and SIGTERM and SIGHUP ``Terminated``, unless they are handled or
    ignored already.

    Yields:
        Raises the interrupt again, where code that was called has kept it to itself, as torch does while it imports
        NumPy.
    """
    raised: list[type[KeyboardInterrupt]] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        raised.append(interrupt_of(number))
        raise raised[-1]

    def check() -> None:
        if raised:
            raise raised[0]

    former: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in StopSignal.SIGNALS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                former[number] = signal.signal(number, interrupt)
    try:
        with lost_interrupts_return():
            yield check
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class Progress:
    """A bar on a terminal, and elsewhere a line at the start and every ten seconds; a context manager.

    Args:
        total: Steps in all; may be set later.
        unit: What a step is, in the singular.
        label: What is done.
        quiet: Shows nothing.
    """

    def __init__(self, total: int | None = None, *, unit: str, label: str = "", quiet: bool = False) -> None:
        self.total, self.unit, self.label, self.done = total, unit, printable(label), 0
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        if terminal and not quiet:
            self._bar = hub_client("utils.tqdm").tqdm(total=total, unit=unit, desc=self.label or None)
        self._lines = not quiet and not terminal and total != 1
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int, total: int | None = None) -> None:
        """Shows that so many steps are done."""
        self.total = total or self.total
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.update(done - self.done)
        self.done = done
        now = time.monotonic()
        if self._lines and (done in (1, self.total) or now - self._said >= _SECONDS_BETWEEN_LINES):
            self._said = now
            say(self._line(now - self._began), error=True)

    def step(self) -> None:
        """Shows that one more step is done."""
        self.show(self.done + 1)

    def _line(self, seconds: float) -> str:
        label = f"{self.label}: " if self.label else ""
        total = self.total or self.done
        text = f"{label}{self.done} of {total} {self.unit}{'' if total == 1 else 's'}, {clock_time(seconds)}"
        left = seconds / self.done * (total - self.done)
        return f"{text}, about {clock_time(left)} left" if left else text


def _discard(stream: TextIO) -> None:
    """Discards buffered output."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
