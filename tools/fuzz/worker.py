"""Runs checks in a process of their own, which may crash, hang or run out of memory."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

SECONDS = 120.0  # that a check may take on a busy machine
_CPU_SECONDS = 40.0  # of its own
# Bytes that a check may add; an image may have 179 megapixels (Pillow's limit) of 4 bytes and 4 floats.
_MEMORY, _MEMORY_OF_IMAGES = 2 * 2**30, 6 * 2**30
_ADDRESSES = 16 * 2**30  # bytes of address space, beyond which nothing is given
_PACK = ("birefnet_core", "tools")


@dataclasses.dataclass(frozen=True)
class Failure:
    """What is wrong.

    Attributes:
        kind: Same for failures of the same cause: the error's class and where it was raised.
        text: The traceback, or a sentence.
    """

    kind: str
    text: str


class Worker:
    """A process that does one check after the other, started anew where one ends it. A context manager."""

    def __init__(self, seconds: float = SECONDS) -> None:
        methods = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
        self._seconds = seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def run(self, check: str, content: bytes, suffix: str) -> str | Failure:
        """Does a check on a file of some bytes.

        Args:
            check: Its name in ``checks.CHECKS``.
            content: The file.
            suffix: Its ending.

        Returns:
            What the check returned, or the failure.
        """
        folder = Path(tempfile.mkdtemp(prefix="birefnet-fuzz-"))
        try:
            path = folder / f"case{suffix}"
            path.write_bytes(content)
            return self._ask(check, str(path))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _ask(self, check: str, path: str) -> str | Failure:
        if self._process is None:
            self._start()
        assert self._connection is not None and self._process is not None
        self._connection.send((check, path))
        if not self._connection.poll(self._seconds):
            self._stop()
            return Failure("no end", f"did not end within {self._seconds:.0f} s")
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._stop()
            return Failure(f"exit {code}", f"the process ended with code {code} (negative: by that signal)")

    def _start(self) -> None:
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)  # type: ignore[attr-defined]
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = self._connection = None


def _serve(connection: Connection) -> None:
    """The process: answers until it is ended."""
    _limit_memory()
    with open(os.devnull, "wb") as nowhere:  # libraries in C print what they find
        os.dup2(nowhere.fileno(), 2)
    warnings.simplefilter("ignore")
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            check, path = connection.recv()
            connection.send(_examine(check, Path(path)))


def _examine(check: str, path: Path) -> str | Failure:
    from . import checks

    memory, began = _Memory(), time.process_time()
    try:
        outcome = checks.run(check, path)
    except BaseException as error:  # whatever it is, it is the finding
        return Failure(_kind(error), traceback.format_exc())
    seconds, added = time.process_time() - began, memory.added()
    if seconds > _CPU_SECONDS:
        return Failure("slow", f"took {seconds:.0f} s of CPU time")
    if added > (_MEMORY_OF_IMAGES if check in ("image", "mask") else _MEMORY):
        return Failure("memory", f"took {added / 2**20:.0f} MiB of memory")
    return outcome


def _kind(error: BaseException) -> str:
    """The class of an error and the innermost function of the pack that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(f.filename).stem}.{f.name}" for f in frames if any(p in Path(f.filename).parts for p in _PACK)]
    text = f" {str(error)[:60]}" if type(error).__name__ == "WrongResultError" else ""
    return f"{type(error).__name__} in {places[-1] if places else 'nothing of the pack'}{text}"


class _Memory:
    """The most memory a process has since a moment; Linux only, elsewhere nothing."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before = self._peak()

    def added(self) -> int:
        return self._peak() - self._before

    @staticmethod
    def _peak() -> int:
        with contextlib.suppress(OSError, StopIteration, ValueError):
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
        return 0


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
