"""From what users name to a file on this disk: a path, a catalogue name, or a Hub repository."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import CheckpointError
from .catalogue import GENERIC_FILE, REPO_ID, WEIGHT_SUFFIXES, CatalogueEntry, checkpoints
from .hub import Progress, cached_weights, download, hub_cache, hub_endpoint, offline_switch, pick_weights, weight_files
from .hub_errors import HubRequest
from .lookup import find_entry, find_published, suggest

_PATH_LIKE = re.compile(
    r"[./~]|[A-Za-z]:[\\/]|.*\\|[^/]*/[^/]*/|.*\.(?:safetensors|pth|pt|bin|ckpt|onnx)$",
    re.IGNORECASE,
)
_MANY = 8  # names a message lists before it stops

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A published checkpoint: ``repos`` may all be looked for on this disk, the first is downloaded from."""

    entry: CatalogueEntry | None
    repos: tuple[str, ...]
    revision: str | None

    @property
    def file(self) -> str:
        return (self.entry.file if self.entry else None) or GENERIC_FILE

    @property
    def label(self) -> str:
        """What its file or folder is called in a folder of models."""
        name = self.entry.name if self.entry else self.repos[0].replace("/", "--")
        return f"{name}@{self.revision.replace('/', '--')}" if self.revision else name


def resolve(
    source: PathLike,
    *,
    folders: Iterable[PathLike] = (),
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
        folders: Where names are looked for before the Hub's cache: as ``<name>.safetensors``, ``<name>.pth`` or
            ``<name>/model.safetensors``. Relative paths are looked for there, too.
        cache_dir: The Hub's cache; None for HF_HUB_CACHE, HF_HOME or the default.
        download_dir: Downloads go to ``download_dir/<name>/<file>`` instead of the Hub's cache.
        token: Access token; None for HF_TOKEN or the login of the Hub's client.
        local_only: Never use the network, as HF_HUB_OFFLINE=1 does.
        progress: Called while downloading with the bytes there are and the bytes there will be.

    Raises:
        CheckpointError: Nothing found, too much found, or a download that failed; the message says what to do.
    """
    text = _text(source)
    wanted = _published(text) if isinstance(source, str) else None
    named = [*folders, *([download_dir] if download_dir is not None else [])]
    places = list(dict.fromkeys(Path(folder).expanduser() for folder in named))
    path = _existing(text, places if wanted is None else (), required=wanted is None or wanted.entry is None)
    if path is not None:
        return Resolved(path=path, entry=find_entry(path))
    if wanted is None:
        raise CheckpointError(_unknown(text, is_path=not isinstance(source, str)))
    if wanted.entry is not None and not wanted.entry.loadable:
        raise CheckpointError(
            f"{wanted.entry.name} holds weights of an older network (March 2024, without the coarsest patch injection "
            f"'ipt_blk5'), which cannot be loaded. {wanted.entry.description}"
        )
    cache = hub_cache(cache_dir)
    if not wanted.repos:
        return _bundled(wanted)
    found = _on_disk(wanted, places, cache)
    if found is not None:
        return found
    switch = "local_only=True" if local_only else offline_switch()
    if switch is not None:
        raise CheckpointError(_offline(wanted, places, cache, switch))
    folder = Path(download_dir).expanduser() / wanted.label if download_dir is not None else None
    request = HubRequest(
        repo=wanted.repos[0],
        file=wanted.file,
        revision=wanted.revision,
        endpoint=hub_endpoint(),
        token=token,
        entry=wanted.entry,
        target=folder or cache,
    )
    path, commit = download(request, cache=cache, folder=folder, progress=progress)
    return Resolved(path=path, entry=wanted.entry, repo=request.repo, revision=commit)


def present_locally(
    entry: CatalogueEntry, folders: Iterable[PathLike] = (), cache_dir: PathLike | None = None
) -> Path | None:
    """The file of a catalogue row on this disk, or None. Never uses the network, never raises for odd folders."""
    if entry.bundled is not None:
        return entry.bundled if entry.bundled.is_file() else None
    wanted = _Wanted(entry=entry, repos=entry.repos, revision=None)
    try:
        found = _on_disk(wanted, [Path(folder).expanduser() for folder in folders], hub_cache(cache_dir))
    except CheckpointError:  # several files in the row's folder: none of them is known to be it
        return None
    return found.path if found else None


def _text(source: PathLike) -> str:
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise CheckpointError(f"source={source!r} is a {type(source).__name__}. {_expected()}")
    text = text.strip()
    if not text or "\0" in text:
        raise CheckpointError(f"source={source!r} names nothing. {_expected()}")
    return text


def _published(text: str) -> _Wanted | None:
    """Reads a catalogue name or repository id, with its revision. None for anything else."""
    name, at, revision = text.partition("@")
    entry = find_published(name)
    if entry is None and (not REPO_ID.fullmatch(name) or _PATH_LIKE.match(name)):
        return None
    if at and not revision:
        raise CheckpointError(f"source={text!r} ends in '@'; expected a branch, tag or commit after it, or no '@'.")
    repos: tuple[str, ...]
    if entry is None:
        repos = (name,)
    elif entry.name.casefold() == name.casefold():
        repos = entry.repos
    else:
        repos = tuple(repo for repo in entry.repos if repo.casefold() == name.casefold())
    if revision:
        repos = repos[:1]  # commits of a mirror are its own
    return _Wanted(entry=entry, repos=repos, revision=revision or None)


def _existing(text: str, folders: Sequence[Path], *, required: bool) -> Path | None:
    """The file, or the weights in the folder, that ``text`` is the path of."""
    given = Path(text).expanduser()
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
                held = f"{', '.join(names[:_MANY])}{', ...' if len(names) > _MANY else ''}" if names else "nothing"
                raise CheckpointError(
                    f"The folder {path.absolute()} holds no weights. Found: {held}. "
                    f"Expected {GENERIC_FILE}, or exactly one of {', '.join(WEIGHT_SUFFIXES)}."
                )
    return None


def _weights_in(folder: Path, preferred: str | None = None) -> Path | None:
    """The weight file right in a folder, or None.

    Raises:
        CheckpointError: Several, and no telling which is meant.
    """
    names = [child.name for child in _children(folder) if child.is_file()]
    name = pick_weights(names, preferred)
    if name is not None:
        return folder / name
    several = weight_files(names)
    if several:
        raise CheckpointError(
            f"The folder {folder.absolute()} holds several weight files: {', '.join(several)}. "
            f"Give the path of one of them."
        )
    return None


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        message = f"The folder {folder.absolute()} cannot be read ({error}). Check its permissions."
        raise CheckpointError(message) from error


def _bundled(wanted: _Wanted) -> Resolved:
    """The file of a row that comes with this package."""
    entry = wanted.entry
    assert entry is not None and entry.bundled is not None  # rows without a repository have a file here
    if wanted.revision:
        raise CheckpointError(f"{entry.name} comes with this package and has no revisions; found @{wanted.revision}.")
    if not entry.bundled.is_file():
        raise CheckpointError(f"{entry.bundled} is missing: this installation is not whole. Install the pack again.")
    return Resolved(path=entry.bundled, entry=entry)


def _on_disk(wanted: _Wanted, folders: Sequence[Path], cache: Path) -> Resolved | None:
    for folder in folders:
        path = _in_folder(wanted, folder)
        if path is not None:
            return Resolved(path=path, entry=wanted.entry, revision=wanted.revision)
    preferred = wanted.entry.file if wanted.entry else None
    for repo in wanted.repos:
        cached = cached_weights(cache, repo, wanted.revision, preferred)
        if cached is not None:
            return Resolved(path=cached[0], entry=wanted.entry, repo=repo, revision=cached[1])
    return None


def _in_folder(wanted: _Wanted, folder: Path) -> Path | None:
    """The checkpoint in a folder of models, as a file or in a folder of its own, names compared without case."""
    if not folder.is_dir():
        return None
    children = {child.name.casefold(): child for child in _children(folder)}
    distinctive = wanted.entry.distinctive_file if wanted.entry and not wanted.revision else None
    for name in (*(f"{wanted.label}{suffix}" for suffix in WEIGHT_SUFFIXES), distinctive):
        path = children.get(name.casefold()) if name else None
        if path is not None and path.is_file():
            return path
    own = children.get(wanted.label.casefold())
    if own is None or not own.is_dir():
        return None
    return _weights_in(own, Path(wanted.file).name)


def _offline(wanted: _Wanted, folders: Sequence[Path], cache: Path, switch: str) -> str:
    places = ", ".join(str(folder) for folder in (*folders, cache))
    repo = wanted.repos[0]
    file = wanted.file if wanted.entry else "The weight file"
    return (
        f"{file} of {repo} is not on this disk (looked in {places}), and {switch} forbids the network. "
        f"Download it once without {switch.partition('=')[0]}, or fetch it from {hub_endpoint()}/{repo} elsewhere "
        f"and give its path."
    )


def _unknown(text: str, *, is_path: bool) -> str:
    stem = Path(text).stem if Path(text).suffix.lower() in WEIGHT_SUFFIXES else text
    close = suggest(stem.partition("@")[0])
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    if is_path or _PATH_LIKE.match(text):
        path = Path(text).expanduser().absolute()
        return f"There is no file or folder {path}.{hint} {_expected()}"
    return f"{text!r} is neither an existing file or folder nor a known checkpoint.{hint} {_expected()}"


def _expected() -> str:
    names = ", ".join(entry.name for entry in checkpoints()[:_MANY])
    return f"Expected the path of a weight file or its folder, a repository 'owner/name', or a name such as {names}."
