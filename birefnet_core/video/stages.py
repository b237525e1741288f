"""The stages that run in threads of their own: decoding, and encoding of each output."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..errors import BiRefNetError, VideoError
from .channel import Channel, Closed
from .clip import Frame
from .pyav import FAILURES, reason
from .report import VideoReport
from .samples import to_array
from .writers import Writer

QUEUE_BYTES = 2**26  # of frames that wait between two stages
MOST_WAITING = 8
# What systems say where no more can be written.
FULL = {getattr(errno, name, errno.ENOSPC) for name in ("ENOSPC", "EFBIG", "EDQUOT")}


def queue_size(frame_bytes: int) -> int:
    """Frames that may wait between two stages."""
    return max(2, min(MOST_WAITING, QUEUE_BYTES // max(frame_bytes, 1)))


class _Worker(threading.Thread):
    """A thread whose end can be waited for again after a signal has interrupted the waiting.

    ``Thread.join`` of Python before 3.13 cannot: once interrupted, it takes a thread that runs for one that has ended.
    """

    def __init__(self, target: Callable[[], None], name: str) -> None:
        super().__init__(name=f"birefnet {name}", daemon=True)
        self._work, self._ended = target, threading.Event()
        self.start()

    def run(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Waits for the end."""
        self._ended.wait()


class Decoding:
    """Decodes ahead in a thread.

    Args:
        frames: A clip.
        size: Frames that may wait.
        report: Gets the time.
    """

    def __init__(self, frames: Iterable[Frame], size: int, report: VideoReport, name: str = "decode") -> None:
        self._frames, self._report, self._name = frames, report, name
        self._channel = Channel[Frame](size)
        self._thread = _Worker(self._run, name)

    def read(self, poll: Callable[[], None] = lambda: None) -> Iterator[Frame]:
        """The frames; an error in decoding is raised after those that came before it."""
        return self._channel.read(poll)

    def close(self) -> None:
        """Ends the thread."""
        self._channel.close()
        self._thread.wait()

    def _run(self) -> None:
        frames = iter(self._frames)
        try:
            while True:
                with self._report.stage(self._name):
                    frame = next(frames, None)
                if frame is None:
                    break
                self._channel.put(frame)
        except Closed:
            return
        except BaseException as error:  # whatever it is, the reader must not wait for ever
            self._channel.end(error)
        else:
            self._channel.end()


class Encoding:
    """Encodes one output in a thread.

    Args:
        writer: Where to.
        size: Frames that may wait.
        report: Gets the time.
        path: Of the output, for messages.
    """

    class _Item(NamedTuple):
        pixels: Tensor
        pts: int
        duration: int

    def __init__(self, writer: Writer, size: int, report: VideoReport, path: Path) -> None:
        self._writer, self._report, self._path, self._name = writer, report, path, f"encode {path.name}"
        self._channel = Channel[Encoding._Item](size)
        self._error: BaseException | None = None
        self._thread = _Worker(self._run, self._name)

    def put(self, pixels: Tensor, pts: int, duration: int, poll: Callable[[], None]) -> None:
        """Hands over a frame H, W, C; raises what went wrong with those before."""
        try:
            self._channel.put(self._Item(pixels, pts, duration), poll)
        except Closed:
            self._raise()

    def finish(self) -> None:
        """Waits until everything is written."""
        self._channel.end()
        self._thread.wait()
        self._raise()

    def close(self) -> None:
        """Ends the thread, finished or not."""
        self._channel.close()
        self._thread.wait()
        self._writer.close()

    def _run(self) -> None:
        try:
            for pixels, pts, duration in self._channel.read():
                with self._report.stage(self._name):
                    self._writer.write(to_array(pixels), pts, duration)
            if not self._channel.closed:
                with self._report.stage(self._name):
                    self._writer.finish()
        except BaseException as error:  # raised again by ``put`` or ``finish``
            self._error = error
            self._channel.close()

    def _raise(self) -> None:
        if isinstance(self._error, FAILURES) and not isinstance(self._error, BiRefNetError):
            full = getattr(self._error, "errno", None) in FULL
            advice = "Make room on the disk, or give another." if full else "The clip may be damaged."
            raise VideoError(
                f"{self._path}: not written ({reason(self._error)}); nothing is left of it. {advice}"
            ) from self._error
        if self._error is not None:
            raise self._error
