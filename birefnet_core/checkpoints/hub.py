"""The Hugging Face Hub, through its client: what the client's cache holds, and verified downloads.

huggingface_hub reads HF_ENDPOINT, HF_HUB_CACHE, HF_HOME and HF_HUB_OFFLINE when it is imported (at the latest at the
first use of these functions), and HF_TOKEN at every request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from json import JSONDecodeError
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import CheckpointError
from ..files import atomic_path
from .catalogue import GENERIC_FILE, PICKLED, SAFETENSORS, SHARD, WEIGHT_SUFFIXES, suggest
from .hub_errors import explained, message

Progress = Callable[[int, int], object]

_PATIENCE = 60  # seconds without a new byte after which a download ends; the client alone may retry without end
_MOST_BYTES = 4 * 2**30  # of a file whose size the Hub does not tell
_ABANDONED = 3600  # seconds without a write after which an incomplete file of the client belongs to nobody
_FILE_NAME = re.compile(r"\w[\w.+=-]{0,200}")  # of a commit or an ETag: names of files are made of both
_ENDINGS = (SAFETENSORS, PICKLED[:2], PICKLED[2:])  # of weight files, those that are taken first
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubFile:
    """A weight file of the Hub, and where it is or will be on this disk.

    Attributes:
        repo: ``owner/name``.
        file: Path in the repository; where it has no such file, its only weight file is meant.
        revision: Branch, tag or commit; None for the default branch.
        mirror: A repository with the same weights that needs no account, or None.
        token: Access token, or None for the client's own (HF_TOKEN or a login).
        cache_dir: The client's cache; None for the environment's.
        folder: Where a download goes instead, under the file's own name.
    """

    repo: str
    file: str = GENERIC_FILE
    revision: str | None = None
    mirror: str | None = None
    token: str | None = None
    cache_dir: Path | None = None
    folder: Path | None = None

    @property
    def cache(self) -> Path:
        """The client's cache."""
        from huggingface_hub import constants

        return self.cache_dir or Path(constants.HF_HUB_CACHE)

    @property
    def by_hand(self) -> str:
        """How to fetch it without this package."""
        from huggingface_hub import constants

        address = f"{constants.ENDPOINT.rstrip('/')}/{self.repo}/resolve/{self.revision or 'main'}/{self.file}"
        place = f"save it as {self.folder / PurePosixPath(self.file).name}" if self.folder else "give its path"
        return f"fetch {address} elsewhere and {place}"

    @property
    def storage(self) -> Path:
        """The repository's folder in the client's cache: blobs, snapshots, refs."""
        return self.cache / f"models--{self.repo.replace('/', '--')}"

    @property
    def fields(self) -> dict[str, str]:
        """What messages say of it, see ``hub_errors``."""
        from huggingface_hub import constants

        endpoint, near = constants.ENDPOINT.rstrip("/"), suggest(self.repo)
        return {
            "request": f"{self.file} of {self.repo}" + (f" at revision {self.revision!r}" if self.revision else ""),
            "repo": self.repo,
            "file": self.file,
            "revision": self.revision or "main",
            "endpoint": endpoint,
            "page": f"{endpoint}/{self.repo}",
            "target": str(self.folder or self.cache),
            "mirror": f" Or use {self.mirror!r}, a copy that needs no account." if self.mirror else "",
            "by_hand": self.by_hand,
            "near": f" Near it in the catalogue: {', '.join(near)}." if near else "",
        }


def weight_files(names: Iterable[str]) -> list[str]:
    """The paths that look like weights, without hidden files and names that lead out of their folder or a line."""
    paths = [PurePosixPath(name) for name in names if name.lower().endswith(WEIGHT_SUFFIXES) and name.isprintable()]
    inside = [p for p in paths if not (p.is_absolute() or ".." in p.parts or "\\" in str(p))]
    return sorted(str(path) for path in inside if not path.name.startswith("."))


def pick_weights(names: Iterable[str], preferred: str = GENERIC_FILE) -> str | None:
    """The one weight file among paths that is meant, or None where there is none or several could be.

    In this order: ``preferred``, or the only file of that name in another folder; ``model.safetensors``, likewise; the
    only safetensors file; the only .pth or .pt file; the only file of another ending.
    """
    weights = weight_files(names)
    for name in (preferred, GENERIC_FILE):
        same = [path for path in weights if PurePosixPath(path).name == PurePosixPath(name).name]
        if name in same or len(same) == 1:
            return name if name in same else same[0]
    by_ending = ([p for p in weights if p.lower().endswith(e)] for e in _ENDINGS)
    found = next(filter(None, by_ending), [])
    return found[0] if len(found) == 1 else None


def first_shard(names: Iterable[str]) -> str | None:
    """The first shard of the only checkpoint among names, or None where there are other weights beside it."""
    by_ending = ([n for n in sorted(names) if n.lower().endswith(e)] for e in _ENDINGS)
    found = [SHARD.fullmatch(name) for name in next(filter(None, by_ending), [])]
    checkpoints = {(shard[1], shard[3]) if shard else None for shard in found}
    return found[0][0] if len(checkpoints) == 1 and found[0] else None


def find_in_cache(wanted: HubFile) -> tuple[Path, str] | None:
    """The file in the client's cache and its commit, or None. Never uses the network."""
    if not os.path.isdir(wanted.storage):
        return None  # without importing the client's HTTP library, as ComfyUI's start lists what is on this disk
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    where: dict[str, Any] = {"revision": wanted.revision, "cache_dir": wanted.cache}
    try:
        path = try_to_load_from_cache(wanted.repo, wanted.file, **where)
        if isinstance(path, str):
            return Path(path), _commit(Path(path), wanted.file)
        snapshot = Path(snapshot_download(wanted.repo, local_files_only=True, **where))
    except (OSError, ValueError):  # not there, no repository id, or a damaged cache
        return None
    if snapshot.parent.name != "snapshots":  # a damaged reference that leads elsewhere
        return None
    name = pick_weights((p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()), wanted.file)
    return (snapshot / name, snapshot.name) if name else None


def download(wanted: HubFile, progress: Progress | None = None) -> tuple[Path, str]:
    """Fetches a weight file, verifies it, and gives its path and commit.

    Args:
        wanted: What to fetch, and where to.
        progress: Called with the bytes there are and the bytes there will be. What it raises ends the download.

    Raises:
        CheckpointError: The file cannot be had, stored or trusted. Nothing is left of it then.
    """
    try:
        with explained(wanted.fields):
            wanted, remote = _locate(wanted)
            _check_space(wanted, remote)
            return (_into_folder if wanted.folder else _into_cache)(wanted, remote, progress), remote.commit
    except _CallbackError as error:
        raise error.args[0] from None


def _locate(wanted: HubFile) -> tuple[HubFile, _RemoteFile]:
    """Asks for the file, and where the repository has no such file, for the one that is meant."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import EntryNotFoundError

    with contextlib.suppress(EntryNotFoundError):
        return wanted, _ask(wanted)
    try:
        names = HfApi(token=wanted.token).list_repo_files(wanted.repo, revision=wanted.revision)
    except (JSONDecodeError, AttributeError, KeyError, TypeError) as error:  # the client takes any answer for a list
        raise CheckpointError(message("no hub", wanted.fields, f"{type(error).__name__}: {error}")) from error
    name = pick_weights(names, wanted.file)
    if name is None:
        weights = weight_files(names)
        found = f"several weight files ({', '.join(weights)})" if weights else f"no weights among {len(names)} files"
        raise CheckpointError(
            f"{wanted.repo} holds {found}; expected {wanted.file} or exactly one of {', '.join(WEIGHT_SUFFIXES)}. "
            f"Download the file you want, or all shards of one checkpoint into one folder, from "
            f"{wanted.fields['page']}/tree/main and give its path."
        )
    wanted = dataclasses.replace(wanted, file=name)
    return wanted, _ask(wanted)


def _ask(wanted: HubFile) -> _RemoteFile:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision)
    found = get_hf_file_metadata(url, token=wanted.token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    commit, etag = found.commit_hash or "", found.etag or ""
    if not (_FILE_NAME.fullmatch(commit) and _FILE_NAME.fullmatch(etag)):
        details = f"no commit or no ETag for {wanted.file}: {commit[:80]!r}, {etag[:80]!r}"
        raise CheckpointError(message("no hub", wanted.fields, details))
    if found.size is None and not _SHA256.fullmatch(etag.lower()):  # half a file would look like the whole
        raise CheckpointError(message("no hub", wanted.fields, f"neither size nor SHA-256 of {wanted.file}"))
    return _RemoteFile(commit, etag.lower() if _SHA256.fullmatch(etag.lower()) else etag, found.size)


def _check_space(wanted: HubFile, remote: _RemoteFile) -> None:
    target = (wanted.folder or wanted.cache).absolute()
    disk = shutil.disk_usage(next(path for path in (target, *target.parents) if path.exists()))
    if disk.total > 0 and disk.free < (remote.size or 0):  # some network drives give 0 for all
        sizes = f": {(remote.size or 0) / 1e6:.0f} MB needed, {disk.free / 1e6:.0f} MB free"
        raise CheckpointError(message("no space", wanted.fields, sizes))


def _fetch(wanted: HubFile, remote: _RemoteFile, part: str, progress: Progress | None) -> None:
    """Downloads to a file and verifies it. The client resumes a download that breaks off.

    Not ``hf_hub_download``: it makes paths from what the server sends at a further request, and gives up on no server
    that begins anew for ever.
    """
    from huggingface_hub import file_download, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(wanted.repo, wanted.file, revision=remote.commit)
    headers, name = build_hf_headers(token=wanted.token), PurePosixPath(wanted.file).name
    with _Download(wanted, remote, part, progress) as file:
        file.report(0)
        file_download.http_get(url, file, headers=headers, expected_size=remote.size, displayed_filename=name)
    done = os.path.getsize(part)  # some clients open the file anew
    if remote.size not in (None, done):
        raise CheckpointError(message("corrupt", wanted.fields, f"{done} bytes instead of {remote.size}"))
    digest = _sha256(Path(part)) if _SHA256.fullmatch(remote.etag) else remote.etag
    if digest != remote.etag:
        raise CheckpointError(message("corrupt", wanted.fields, f"SHA-256 {digest} instead of {remote.etag}"))
    file.report(done)


class _Download(io.BufferedWriter):
    """The file a download is written to: reports what arrives, and ends what does not.

    Args:
        wanted: The file, for messages.
        remote: What the Hub says of it.
        path: Where to write.
        progress: See ``download``; what it raises passes through the client.
    """

    def __init__(self, wanted: HubFile, remote: _RemoteFile, path: str, progress: Progress | None) -> None:
        super().__init__(io.FileIO(path, "w"))
        self._wanted, self._progress, self._size = wanted, progress, remote.size
        self._most, self._last = -1, time.monotonic()

    def write(self, data: Any) -> int:
        written = super().write(data)
        done = self.tell()
        if done > (self._size or _MOST_BYTES):
            raise CheckpointError(message("corrupt", self._wanted.fields, f"{done} bytes and more of {self._size}"))
        if done <= self._most and time.monotonic() - self._last > _PATIENCE:
            silence = TimeoutError(f"it began anew and sent nothing new for {_PATIENCE} seconds")
            raise CheckpointError(message("unreachable", self._wanted.fields, silence))
        self.report(done)
        return written

    def report(self, done: int) -> None:
        """Reports bytes that have not been reported: a client that starts over writes them anew."""
        if done > self._most:
            self._most, self._last = done, time.monotonic()
            if self._progress:
                try:
                    self._progress(done, max(done, self._size or 0))
                except Exception as error:
                    raise _CallbackError(error) from error


class _CallbackError(BaseException):
    """Carries the caller's own exception past those who take it for one of the network."""


def _into_folder(wanted: HubFile, remote: _RemoteFile, progress: Progress | None) -> Path:
    folder = Path(wanted.folder or "")
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder, ".download-*")  # of version 0.1
    target = folder / PurePosixPath(wanted.file).name
    try:
        with atomic_path(target) as part:
            _fetch(wanted, remote, part, progress)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # refuses unless empty, that is unless the download failed
    return target


def _into_cache(wanted: HubFile, remote: _RemoteFile, progress: Progress | None) -> Path:
    """Downloads a blob and links it under its name and revision, as the client does; what is damaged is replaced."""
    blobs, snapshots, refs = (wanted.storage / name for name in ("blobs", "snapshots", "refs"))
    path, blob = snapshots / remote.commit / wanted.file, blobs / remote.etag
    ref = refs / (wanted.revision or "main") if wanted.revision != remote.commit else None
    for place in filter(None, (blobs, path.parent, ref and ref.parent)):
        for parent in (snapshots, refs, place):
            if os.path.lexists(parent) and not parent.is_dir():
                parent.unlink()
        place.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(blobs, f"{blob.name}*.incomplete")
    if not _is_whole(blob, remote):
        with atomic_path(blob) as part:
            _fetch(wanted, remote, part, progress)
    link = path.with_name(f".{secrets.token_hex(8)}.link")
    try:
        os.symlink(os.path.relpath(blob, path.parent), link)
        os.replace(link, path)
    except OSError:  # no links on this system
        link.unlink(missing_ok=True)
        os.replace(blob, path)
    if ref:
        if ref.is_dir():
            shutil.rmtree(ref)
        with atomic_path(ref) as part:
            Path(part).write_text(remote.commit, encoding="ascii")
    return path


def _is_whole(blob: Path, remote: _RemoteFile) -> bool:
    """Whether the cache holds a blob; one that is damaged is deleted."""
    hashed = _SHA256.fullmatch(remote.etag)
    if blob.is_file() and blob.stat().st_size == remote.size and not (hashed and _sha256(blob) != remote.etag):
        return True
    if os.path.lexists(blob):
        blob.unlink()
    return False


def remove_if_damaged(path: Path) -> bool:
    """Deletes a file of the client's cache that differs from its SHA-256, which its blob is called by.

    Returns:
        Whether it was deleted.
    """
    blob = path.resolve()
    if not _SHA256.fullmatch(blob.name) or not blob.is_file() or _sha256(blob) == blob.name:
        return False
    path.unlink()
    blob.unlink(missing_ok=True)
    return True


def _remove_leftovers(folder: Path, pattern: str) -> None:
    """Deletes what killed downloads left; one that is running writes all the time."""
    for old in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - max(path.lstat().st_mtime for path in (old, *old.rglob("*"))) > _ABANDONED:
                shutil.rmtree(old) if old.is_dir() else old.unlink()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _commit(path: Path, file: str) -> str:
    """The commit of a path in the cache, .../snapshots/<commit>/<file>."""
    return path.parents[file.count("/")].name


class _RemoteFile(NamedTuple):
    """What the Hub says of a file. ``etag`` is the SHA-256 of a large file, a git hash of a small one."""

    commit: str
    etag: str
    size: int | None
