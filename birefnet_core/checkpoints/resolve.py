"""From what users name to a file on this disk: a path, a catalogue name, or a Hub repository."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import CheckpointError, ConfigError
from ..files import path_of
from ..text import enumerate_names
from .catalogue import (
    DEMO,
    GENERIC_FILE,
    REPO_ID,
    WEIGHT_SUFFIXES,
    CatalogueEntry,
    find_entry,
    find_published,
    list_checkpoints,
    suggest,
)
from .hub import HubFile, Progress, download, find_in_cache
from .hub_client import hub_client
from .weight_names import first_shard, pick_weights, weight_files

_PATH = re.compile(rf"[./~]|[A-Za-z]:[\\/]|.*\\|[^/]*/[^/]*/|.*({'|'.join(WEIGHT_SUFFIXES)}|\.onnx)$", re.IGNORECASE)
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./+#-]{0,200}")  # names of files are made of it
_DISTRIBUTED = (
    " These are files of torch.distributed.checkpoint: make one of them by "
    "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.pth`."
)
_LONGEST = 4096  # characters; no system has longer paths
_MANY = 8  # names a message lists

PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolved:
    """A checkpoint found.

    Attributes:
        path: The weight file.
        entry: What the catalogue knows of it, or None.
        repo: Hub repository it came from, or None for a file of the user's.
        revision: Commit of that repository, or None where it is not known.
    """

    path: Path
    entry: CatalogueEntry | None
    repo: str | None = None
    revision: str | None = None


class _Published(NamedTuple):
    """A published checkpoint: any of ``repos`` may be in the cache, the first is downloaded from.

    ``by_name`` where it was given by its catalogue name.
    """

    entry: CatalogueEntry | None
    repos: tuple[str, ...]
    revision: str | None = None
    by_name: bool = False

    @property
    def file(self) -> str:
        return self.entry.file if self.entry else GENERIC_FILE

    @property
    def label(self) -> str:
        """What its file or folder is called in a folder of models."""
        name = self.entry.name if self.entry else self.repos[0].replace("/", "--")
        return name + "@" + re.sub(r"[/\\]", "--", self.revision) if self.revision else name


def resolve(
    source: PathLike,
    *,
    folders: PathLike | Iterable[PathLike] = (),
    cache_dir: PathLike | None = None,
    download_dir: PathLike | None = None,
    token: str | None = None,
    local_only: bool = False,
    progress: Progress | None = None,
) -> Resolved:
    """Finds the weight file that ``source`` names, and downloads it only where this disk does not have it.

    Args:
        source: An existing file; a folder with one weight file; a catalogue name; or a Hub repository
            ``owner/name``. Names and repositories may be followed by ``@revision`` (branch, tag or commit).
            A catalogue name is never a path: write ``./BiRefNet`` for a folder of that name.
        folders: One or several, where names are looked for before the Hub's cache: as ``<name>.safetensors``,
            ``<name>.pth`` or ``<name>/model.safetensors``. Relative paths are looked for there, too.
        cache_dir: The Hub's cache; None for HF_HUB_CACHE, HF_HOME or the default.
        download_dir: Downloads go to ``download_dir/<name>/<file>`` instead of the Hub's cache.
        token: Access token; None for HF_TOKEN or the login of the Hub's client.
        local_only: Never use the network, as HF_HUB_OFFLINE=1 does.
        progress: Called while downloading with the bytes there are and the bytes there will be.

    Raises:
        CheckpointError: Nothing found, too much found, or a download that failed; the message says what to do.
        ConfigError: Folders that are no paths.
    """
    text = _text(source)
    wanted = _published(text) if isinstance(source, str) else None
    download_dir = None if download_dir is None else _expand(path_of(download_dir, "download_dir"))
    cache_dir = None if cache_dir is None else path_of(cache_dir, "cache_dir")
    places = list(dict.fromkeys([*_paths_of(folders), *([download_dir] if download_dir else [])]))
    if wanted is None or not wanted.by_name:
        path = _existing(text, places if wanted is None else (), required=wanted is None or wanted.entry is None)
        if path is not None:
            return Resolved(path=path, entry=find_entry(path))
    if wanted is None:
        raise CheckpointError(_unknown(text, is_path=not isinstance(source, str)))
    if wanted.entry and not wanted.entry.loadable:
        raise CheckpointError(
            f"{wanted.entry.name} holds weights of an older network (March 2024, without the coarsest patch "
            f"injection), which cannot be loaded. {wanted.entry.description}"
        )
    found = _on_disk(wanted, places, cache_dir)
    if found is not None:
        return found
    folder = download_dir / wanted.label if download_dir else None
    file = dataclasses.replace(_hub_file(wanted, wanted.repos[0], cache_dir), token=token, folder=folder)
    if local_only or hub_client("constants").HF_HUB_OFFLINE:
        switch = "local_only=True" if local_only else "HF_HUB_OFFLINE=1"
        raise CheckpointError(
            f"{wanted.entry.name if wanted.entry else file.repo} is not on this disk, and {switch} forbids the network."
            f" Use {DEMO!r}, which comes with this package; or {file.fields['by_hand']}; or download once without "
            f"{switch.partition('=')[0]}. Looked "
            f"in {', '.join(map(str, (*places, file.cache)))}."
        )
    path, commit = download(file, progress)
    return Resolved(path=path, entry=wanted.entry, repo=file.repo, revision=commit)


def present_locally(
    entry: CatalogueEntry, folders: PathLike | Iterable[PathLike] = (), cache_dir: PathLike | None = None
) -> Path | None:
    """The file of a catalogue entry on this disk, or None. Never uses the network, never raises for odd folders.

    Args:
        entry: A row of the catalogue.
        folders: Folders of models, see ``resolve``.
        cache_dir: The Hub's cache; None for HF_HUB_CACHE, HF_HOME or the default.
    """
    try:
        found = _on_disk(_Published(entry, entry.repos), _paths_of(folders), cache_dir)
    except CheckpointError:  # several files in its folder, or an installation that is not whole
        return None
    return found.path if found else None


def _paths_of(folders: PathLike | Iterable[PathLike]) -> list[Path]:
    """Folders of models; a single one may be given by itself: as an iterable a text would be its characters."""
    several: object = [folders] if isinstance(folders, str | os.PathLike) else folders
    if not isinstance(several, Iterable):
        raise ConfigError(f"folders is a {type(several).__name__}, expected paths of folders.")
    return [_expand(path_of(folder, "a folder of models")) for folder in several]


def _text(source: PathLike) -> str:
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise CheckpointError(f"source={source!r} is a {type(source).__name__}. {_expected()}")
    text = text.strip()
    if not text or "\0" in text or len(text) > _LONGEST:
        raise CheckpointError(f"source={source!r} names nothing. {_expected()}")
    return text


def _expand(path: PathLike) -> Path:
    return Path(os.path.expanduser(path))  # Path.expanduser raises where there is no such user


def _published(text: str) -> _Published | None:
    """Reads a catalogue name or repository id, with its revision. None for anything else."""
    name, at, revision = text.partition("@")
    entry = find_published(name)
    if entry is None and (not REPO_ID.fullmatch(name) or _PATH.match(name)):
        return None
    if at and not revision:
        raise CheckpointError(f"source={text!r} ends in '@'; expected a branch, tag or commit after it, or no '@'.")
    if at and not _REVISION.fullmatch(revision):
        raise CheckpointError(f"source={text!r}: {revision!r} is no branch, tag or commit. Check the spelling.")
    repos = entry.repos if entry else (name,)
    named = entry is not None and "/" not in name  # not a repository
    if not named:
        repos = tuple(repo for repo in repos if repo.casefold() == name.casefold()) or repos  # else a former one
    if revision:
        repos = repos[:1]  # commits of a mirror are its own
    return _Published(entry, repos, revision or None, by_name=named and not text.lower().endswith(WEIGHT_SUFFIXES))


def _existing(text: str, folders: Sequence[Path], *, required: bool) -> Path | None:
    """The file, or the weights in the folder, that ``text`` is the path of.

    Args:
        text: A path.
        folders: Where a relative path may lie, too.
        required: Whether a folder without weights is an error.
    """
    given = _expand(text)
    inside = () if given.is_absolute() or ".." in given.parts else folders
    for path in (given, *(folder / given for folder in inside)):
        if os.path.isfile(path):
            return path
        if os.path.isdir(path):
            found = _weights_in(path)
            if found is not None:
                return found
            if required:
                names = sorted(child.name for child in _children(path))
                held = enumerate_names(names, _MANY) or "nothing"
                advice = _DISTRIBUTED if any(name.endswith(".distcp") for name in names) else ""
                raise CheckpointError(
                    f"The folder {path.absolute()} holds no weights. Found: {held}. "
                    f"Expected {GENERIC_FILE}, or exactly one of {', '.join(WEIGHT_SUFFIXES)}.{advice}"
                )
    return None


def _weights_in(folder: Path, preferred: str = GENERIC_FILE) -> Path | None:
    """The weight file right in a folder, or None.

    Raises:
        CheckpointError: Several, and no telling which is meant.
    """
    names = _file_names(folder)
    several = weight_files(names)
    name = pick_weights(names, preferred) or first_shard(several)
    if name is None and several:
        raise CheckpointError(
            f"The folder {folder.absolute()} holds several weight files: {', '.join(several)}. "
            f"Give the path of one of them."
        )
    return folder / name if name else None


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        message = f"The folder {folder.absolute()} cannot be read ({error}). Check its permissions."
        raise CheckpointError(message) from error


def _file_names(folder: Path) -> list[str]:
    """Not by ``Path.is_file``, which raises for links to where this user, or nobody now, can look."""
    return [child.name for child in _children(folder) if os.path.isfile(child)]


def _on_disk(wanted: _Published, folders: Sequence[Path], cache_dir: PathLike | None) -> Resolved | None:
    """The file of a published checkpoint in this package, in folders of models, or in the Hub's cache."""
    if wanted.entry and wanted.entry.bundled:
        return _bundled(wanted.entry, wanted.entry.bundled, wanted.revision)
    for folder in folders:
        path = _in_folder(wanted, folder)
        if path is not None:
            return Resolved(path=path, entry=wanted.entry, revision=wanted.revision)
    for repo in wanted.repos:
        cached = find_in_cache(_hub_file(wanted, repo, cache_dir))
        if cached is not None:
            return Resolved(path=cached[0], entry=wanted.entry, repo=repo, revision=cached[1])
    return None


def _bundled(entry: CatalogueEntry, path: Path, revision: str | None) -> Resolved:
    """The file of an entry that comes with this package."""
    if revision:
        raise CheckpointError(f"{entry.name} comes with this package and has no revisions; found @{revision}.")
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: this installation is not whole. Install the pack again.")
    return Resolved(path=path, entry=entry)


def _in_folder(wanted: _Published, folder: Path) -> Path | None:
    """The checkpoint in a folder of models, as a file or in a folder of its own, names compared without case."""
    if not os.path.isdir(folder):
        return None
    children = {child.name.casefold(): child for child in _children(folder)}
    entry = wanted.entry if not wanted.revision else None
    distinctive = entry.distinctive_file if entry else None
    for name in (*(f"{wanted.label}{suffix}" for suffix in WEIGHT_SUFFIXES), distinctive):
        path = children.get(name.casefold()) if name else None
        if path is not None and os.path.isfile(path):
            return path
    others = [path for path in children.values() if path.suffix.lower() in WEIGHT_SUFFIXES and os.path.isfile(path)]
    for suffix in WEIGHT_SUFFIXES if entry else ():
        for path in others:
            if path.suffix.lower() == suffix and find_entry(path) is entry:
                return path
    for name in (wanted.label, *(f"models--{repo.replace('/', '--')}" for repo in (entry.repos if entry else ()))):
        own = children.get(name.casefold())
        if own is not None and os.path.isdir(own) and (path := _in_own_folder(wanted, own)):
            return path
    return None


def _in_own_folder(wanted: _Published, folder: Path) -> Path | None:
    """The weights in a folder called as the checkpoint: not those of another checkpoint, which other packs keep there.

    Raises:
        CheckpointError: Several, and no telling which is meant.
    """
    preferred = PurePosixPath(wanted.file).name
    known = {name: find_entry(folder / name) for name in weight_files(_file_names(folder))}
    if not wanted.entry or preferred in known or not any(known.values()):
        return _weights_in(folder, preferred)
    names = [name for name, entry in known.items() if entry is wanted.entry]
    names = names or [name for name, entry in known.items() if entry is None]
    name = pick_weights(names, preferred)
    return folder / name if name else _weights_in(folder, preferred) if names else None


def _hub_file(wanted: _Published, repo: str, cache_dir: PathLike | None) -> HubFile:
    mirrors = [mirror for mirror in (wanted.entry.mirrors if wanted.entry else ()) if mirror != repo]
    cache = _expand(cache_dir) if cache_dir is not None else None
    mirror = mirrors[0] if mirrors else None
    return HubFile(repo=repo, file=wanted.file, revision=wanted.revision, mirror=mirror, cache_dir=cache)


def _unknown(text: str, *, is_path: bool) -> str:
    stem = Path(text).stem if Path(text).suffix.lower() in WEIGHT_SUFFIXES else text
    close = suggest(stem.partition("@")[0])
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    if re.match(r"\w+://", text):
        return f"{text!r} is an address.{hint} {_expected()}"
    if is_path or _PATH.match(text):
        return f"There is no file or folder {_expand(text).absolute()}.{hint} {_expected()}"
    return f"{text!r} is neither an existing file or folder nor a known checkpoint.{hint} {_expected()}"


def _expected() -> str:
    names = ", ".join(entry.name for entry in list_checkpoints()[:_MANY])
    return f"Expected the path of a weight file or its folder, a repository 'owner/name', or a name such as {names}."
