"""Which files a command may write: never one it reads, never one twice, and only where something can be written."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from ..errors import ConfigError
from ..files import file_identity, is_stream, possible, stream_conflict
from ..text import printable


class Resolver:
    """Paths without links and ``..``; what concerns a folder is found once."""

    def __init__(self) -> None:
        self._folders: dict[str, tuple[str, bool]] = {}  # as given -> resolved, and whether it is there

    def __call__(self, path: Path) -> tuple[str, str]:
        """Folder and name."""
        given, name = os.path.split(path)
        if given not in self._folders:
            try:
                resolved = os.path.normcase(os.path.realpath(given))
            except (OSError, ValueError):
                resolved = os.path.abspath(given)
            self._folders[given] = resolved, os.path.isdir(given or ".")
        folder, there = self._folders[given]
        if there and os.path.islink(path):
            folder, name = os.path.split(os.path.realpath(path))
            folder = os.path.normcase(folder)
        return folder, os.path.normcase(name)


class Inputs:
    """The files a command reads, known by what they are on disk: links, hard links and other spellings included."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self.resolve = Resolver()
        self._identities: set[tuple[int, int]] = set()
        self._paths: set[tuple[str, str]] = set()
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        """Adds a file."""
        self._paths.add(self.resolve(path))
        if (identity := file_identity(path)) is not None:
            self._identities.add(identity)

    def __contains__(self, path: Path) -> bool:
        return file_identity(path) in self._identities or self.resolve(path) in self._paths


def model_files(model: str | None) -> list[Path]:
    """The files of a model that is given as a file or folder; none for a name."""
    if model is None or not os.path.exists(model := os.path.expanduser(model)):  # as loading it does
        return []
    with contextlib.suppress(OSError):
        return list(Path(model).iterdir()) if os.path.isdir(model) else [Path(model)]
    return []


class Outputs:
    """The files a command is going to write, each for one purpose."""

    def __init__(self) -> None:
        self._resolve = Resolver()
        self._purposes: dict[str, dict[tuple[str, str], str]] = {}  # folded path -> folder and name -> purpose
        self._folders: dict[str, str] = {}  # folded folders that files will be in -> the purpose of one of these
        self._known: set[str] = set()  # folders of which all parents are in ``_folders``
        self._folds_names: dict[Path, bool] = {}

    def purpose_of(self, path: Path) -> str | None:
        """What a file of this name, or that this file would need as a folder, is already written for, if anything."""
        folder, name = place = self._resolve(path)
        folded = _folded(os.path.join(folder, name))
        for taken, purpose in self._purposes.get(folded, {}).items():
            if taken == place or self._folds(path.parent):
                return purpose
        if folder not in self._known:
            for parent in (folder, *map(str, Path(folder).parents)):
                if purposes := self._purposes.get(_folded(parent)):
                    return next(iter(purposes.values()))
        return self._folders.get(folded)

    def add(self, path: Path, purpose: str) -> None:
        """Keeps a file's purpose."""
        folder, name = place = self._resolve(path)
        self._purposes.setdefault(_folded(os.path.join(folder, name)), {})[place] = purpose
        if folder not in self._known:
            self._known.add(folder)
            for parent in (folder, *map(str, Path(folder).parents)):
                self._folders.setdefault(_folded(parent), purpose)

    def _folds(self, folder: Path) -> bool:
        """Whether names that differ in case or in the form of their accents are one file on a folder's disk."""
        folder = _existing(folder)
        if folder not in self._folds_names:
            self._folds_names[folder] = _folds_names(folder)
        return self._folds_names[folder]


def named_path(text: str) -> Path:
    """A path on the command line: none that is empty, as of an unset variable, and would stand for the working folder.

    Raises:
        argparse.ArgumentTypeError: It is.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name is empty: give that of a file or folder")
    return Path(text)


def exists(path: Path) -> bool:
    """Whether there is a file, folder or link of this name. No errors for names that cannot be."""
    return os.path.lexists(path)


def means_folder(name: str) -> bool:
    """Whether a name ends as those of folders alone do, which a Path forgets: ``x.png/`` is a folder."""
    return name.endswith(("/", os.sep)) or os.path.basename(name) in (".", "..")


def prepare_folder(folder: Path, wanted_for: str) -> None:
    """Creates a folder of results before the work that fills it.

    Args:
        folder: The folder.
        wanted_for: The flag that names it, for messages.

    Raises:
        ConfigError: It cannot be created or written to.
    """
    name = printable(folder)
    at = _existing(folder)
    if not at.is_dir():
        raise ConfigError(f"{printable(at)} is a file; {wanted_for} needs a folder. Give another name.")
    try:
        possible(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{name}: the folder for {wanted_for} cannot be created ({error.strerror}).") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{name}: the folder for {wanted_for} cannot be written to. Give another one.")


def refuse_input(path: Path, flag: str, inputs: Inputs) -> None:
    """Refuses a file of results that would replace one that is read.

    Args:
        path: The file.
        flag: The flag that names it or its folder, for messages.
        inputs: What is read.

    Raises:
        ConfigError: It would.
    """
    if path in inputs:
        raise ConfigError(f"{flag} {printable(path)}: would replace a file that is read. Give another name.")


def prepare_file(path: Path, flag: str, inputs: Inputs, outputs: Outputs, *, streams: bool = True) -> None:
    """Makes sure that a file of results can be written, before the work whose results it holds.

    Args:
        path: The file; one that is there is going to be replaced.
        flag: The flag that names it, for messages.
        inputs: Files that must not be replaced.
        outputs: The other files of results; this one is added.
        streams: Whether it may be a pipe or a device, which is written through; else a new file takes its place.

    Raises:
        ConfigError: It cannot be written, is an input, or another result's file.
    """
    if str(path) == "-":
        raise ConfigError(f"{flag} -: is no name of a file. Give one, or /dev/stdout for standard output.")
    if os.path.isdir(path):
        raise ConfigError(f"{flag} {printable(path)}: is a folder, expected the name of a file.")
    refuse_input(path, flag, inputs)
    other = outputs.purpose_of(path)
    if other is not None:
        raise ConfigError(f"{flag} {printable(path)}: {other} writes the same file. Give another name.")
    outputs.add(path, flag)
    if not streams and (conflict := stream_conflict(path)) is not None:
        raise ConfigError(f"{flag} {printable(conflict)}.")
    if is_stream(path):
        return
    prepare_folder(path.parent, flag)
    try:
        os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{flag} {printable(path)}: cannot be written ({error.strerror}).") from error
    if not os.access(path, os.W_OK):
        raise ConfigError(f"{flag} {printable(path)}: is write-protected. Give another name.")


def _folded(path: str) -> str:
    """Equal for all names that some file system treats as the same."""
    return unicodedata.normalize("NFC", path).casefold()


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path


def _folds_names(folder: Path) -> bool:
    """Whether a folder's disk takes different names for one, by trying; True where that cannot be found out."""
    probe = folder / f".birefnet-\u00e9{secrets.token_hex(8)}.part"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except (OSError, ValueError):
        return True
    try:
        others = probe.name.upper(), unicodedata.normalize("NFD", probe.name)
        return any(os.path.exists(probe.with_name(name)) for name in others)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)
