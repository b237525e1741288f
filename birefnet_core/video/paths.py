"""Where outputs go: clashes are found before any work begins, and nothing half-written gets a final name."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import BiRefNetError, ConfigError, VideoError
from ..files import atomic_folder, atomic_path, is_finished, possible, stream_conflict
from .containers import Source
from .image_files import find_sequence
from .options import Output
from .pyav import reason

_FRAME = re.compile(r"frame_\d{6,}\.(png|exr)")  # as ``ImageWriter`` names them
_OF_FILE_MANAGERS = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


def check_paths(source: Source, outputs: Sequence[Output], overwrite: bool) -> None:
    """Checks that no output replaces an input, another output, or without ``overwrite`` anything at all.

    Args:
        source: The clip.
        outputs: What is to be written.
        overwrite: Whether outputs that are there may be replaced.

    Raises:
        VideoError: A source of another type, or of a name that no file can have.
        ConfigError: Nothing to write, such a clash, or such a name.
    """
    if not outputs:
        raise ConfigError("there is nothing to write: name at least one output.")
    if not isinstance(source, (str, Path, io.BytesIO)):
        raise VideoError(f"the source is {type(source).__name__}, expected a path or io.BytesIO.")
    inputs: list[Path] = []
    if not isinstance(source, io.BytesIO):
        _check_name(source, VideoError)
        inputs += source_files(Path(source))
    for output in outputs:
        _check_name(output.path, ConfigError)
        if isinstance(output.background, Path):
            _check_name(output.background, ConfigError)
            inputs += source_files(output.background)
    folders = folders_of(inputs)
    taken: list[Path] = []
    for output in outputs:
        path, place = output.path, Path(os.path.realpath(output.path))
        if any(place == other or place in other.parents or other in place.parents for other in taken):
            raise ConfigError(f"{path}: is named twice as an output, or in another; give each a name of its own.")
        taken.append(place)
        if any(_same(path, read) for read in (*inputs, *(folders if output.is_folder else ()))):
            raise ConfigError(f"{path}: is an input, perhaps through a link, and would be replaced; give another path.")
        try:
            _check_place(output, overwrite)
        except ConfigError:
            raise
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be written ({reason(error)}).") from error


def _check_name(path: str | Path, kind: type[BiRefNetError]) -> None:
    """Raises an error of a kind for a name that no file can have."""
    try:
        possible(path)
    except OSError as error:
        raise kind(f"{path}: {reason(error)}. Give another name.") from error


def is_written(output: Output) -> bool:
    """Whether an output is there, complete: no empty file, no folder without frames."""
    if output.is_folder:
        with contextlib.suppress(OSError):
            return any(_FRAME.fullmatch(name) for name in os.listdir(output.path))
        return False
    return is_finished(output.path)


def _check_place(output: Output, overwrite: bool) -> None:
    """Checks what is at an output's path: a folder is replaced as a whole, and so must hold frames alone."""
    path = output.path
    if not os.path.exists(path):
        with contextlib.suppress(FileNotFoundError):  # any other error is of a name that no file can have
            os.lstat(path)
            if not overwrite and not output.is_folder:  # a folder is written to where a link leads
                raise ConfigError(f"{path}: is already there, as a link that leads nowhere; give another path.")
        return
    if os.path.isdir(path) != output.is_folder:
        expected = "a file, expected the name of a folder" if output.is_folder else "a folder, expected that of a file"
        raise ConfigError(f"{path}: is {expected}.")
    if (conflict := stream_conflict(path)) is not None:
        raise ConfigError(f"{conflict}.")
    found = os.scandir(path) if output.is_folder else ()
    held = [entry for entry in found if entry.name.lower() not in _OF_FILE_MANAGERS]
    if other := next((entry.name for entry in held if entry.is_dir() or not _FRAME.fullmatch(entry.name)), None):
        raise ConfigError(f"{path}: holds {other}, which would be lost; give an empty or a new folder.")
    if not overwrite and (held or not output.is_folder):
        raise ConfigError(f"{path}: is already there; give another path, or allow to overwrite it.")
    if output.is_folder and (os.path.ismount(path) or os.path.samefile(path, ".")):
        raise ConfigError(f"{path}: is a disk or the working folder, and cannot be replaced; name a folder in it.")


@contextlib.contextmanager
def temporary_path(output: Output, overwrite: bool) -> Iterator[str | Path]:
    """A file or folder beside the output's path, which gets that name when the block succeeds.

    Args:
        output: What is written.
        overwrite: As for ``check_paths``, for what has appeared since.

    Raises:
        VideoError: The folder cannot be written to, or without ``overwrite`` there is something by now.
        ConfigError: By now there is something else than frames in a folder of frames.
    """
    try:
        output.path.parent.mkdir(parents=True, exist_ok=True)
        if output.is_folder:
            with atomic_folder(output.path, replace=overwrite, unimportant=_OF_FILE_MANAGERS) as folder:
                yield folder
                if overwrite:
                    _check_place(output, overwrite)  # once more: other files may have come into it
        else:
            with atomic_path(output.path, replace=overwrite) as part:
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


def folders_of(files: Iterable[Path]) -> set[Path]:
    """The folders that files lie in, and those of all that links lead through: each would be lost with its folder."""
    folders = set()
    for file in files:
        for _ in range(40):  # as many links as systems follow
            folders.add(Path(os.path.realpath(file.parent)))
            try:
                file = file.parent / os.readlink(file)
            except (OSError, ValueError):  # no link
                break
    return folders


def _same(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)
