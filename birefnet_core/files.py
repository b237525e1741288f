"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[str]:
    """A temporary file beside ``path``, renamed to it when the block succeeds and deleted when it raises."""
    part = str(path.with_name(f".{path.name}.{secrets.token_hex(4)}.part"))
    # Not tempfile.mkstemp: its files are readable by their owner alone, and os.umask, which says what ordinary files
    # are like, can only be read by changing it for all threads. os.open applies it.
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """``atomic_path`` for a folder: what was at ``path`` before is replaced when the block succeeds."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    old = part.with_suffix(".old")
    try:
        yield part
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, old)
        os.rename(part, path)
    except BaseException:
        if old.exists():
            os.rename(old, path)
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
