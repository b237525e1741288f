"""Where outputs go: clashes are found before any work begins, and nothing half-written gets a final name."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ConfigError, VideoError
from ..files import atomic_folder, atomic_path
from .containers import Source
from .image_files import find_sequence
from .options import Output
from .pyav import reason


def check_paths(source: Source, outputs: Sequence[Output], overwrite: bool) -> None:
    """Checks that no output replaces an input, another output, or without ``overwrite`` anything at all.

    Args:
        source: The clip.
        outputs: What is to be written.
        overwrite: Whether outputs that are there may be replaced.

    Raises:
        VideoError: A source of another type.
        ConfigError: Nothing to write, or such a clash.
    """
    if not outputs:
        raise ConfigError("there is nothing to write: name at least one output.")
    if not isinstance(source, (str, Path, io.BytesIO)):
        raise VideoError(f"the source is {type(source).__name__}, expected a path or io.BytesIO.")
    inputs = [] if isinstance(source, io.BytesIO) else source_files(Path(source))
    for output in outputs:
        inputs += source_files(output.background) if isinstance(output.background, Path) else []
    taken: set[str] = set()
    for output in outputs:
        path, key = output.path, os.path.realpath(output.path)
        if key in taken:
            raise ConfigError(f"{path}: is named twice as an output; give each a name of its own.")
        taken.add(key)
        if any(_same(path, file) or (output.is_folder and key == os.path.realpath(file.parent)) for file in inputs):
            raise ConfigError(f"{path}: is an input, perhaps through a link, and would be replaced; give another path.")
        if os.path.isdir(path) and not output.is_folder:
            raise ConfigError(f"{path}: is a folder, expected the name of a file.")
        empty = output.is_folder and os.path.isdir(path) and not any(path.iterdir())
        if os.path.exists(path) and not overwrite and not empty:
            raise ConfigError(f"{path}: is already there; give another path, or allow to overwrite it.")


@contextlib.contextmanager
def temporary_path(output: Output) -> Iterator[str | Path]:
    """A file or folder beside the output's path, which gets that name when the block succeeds.

    Raises:
        VideoError: The folder cannot be written to.
    """
    try:
        output.path.parent.mkdir(parents=True, exist_ok=True)
        make = atomic_folder if output.is_folder else atomic_path
        with make(output.path) as part:
            yield part
    except OSError as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{output.path}: not written ({reason(error)}).") from error


def source_files(path: Path) -> list[Path]:
    """The file of a clip, or those of a sequence."""
    try:
        return find_sequence(path) or [path]
    except VideoError:
        return [path]


def _same(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)
