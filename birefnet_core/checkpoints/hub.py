"""The Hugging Face Hub, through its client: what the client's cache holds, and verified downloads.

huggingface_hub reads HF_ENDPOINT, HF_HUB_CACHE, HF_HOME and HF_HUB_OFFLINE when it is imported (at the latest at the
first use of these functions), and HF_TOKEN at every request.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import hashlib
import io
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from itertools import islice
from json import JSONDecodeError
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import CheckpointError
from ..files import atomic_path, free_space, possible
from .catalogue import GENERIC_FILE, WEIGHT_SUFFIXES, suggest
from .hub_client import hub_client
from .hub_errors import explained, failure
from .weight_names import pick_weights, weight_files

Progress = Callable[[int, int], object]

_STALL_TIMEOUT = 60  # seconds without a new byte after which a download ends; the client alone may retry without end
_SILENCE = 600  # seconds between two chunks of 10 MB; the client waits as long as a server's Retry-After says
_MOST_BYTES = 4 * 2**30  # of a file whose size the Hub does not tell
_MOST_FILES = 50_000  # of a repository; a server may send one page after another without end
_ABANDONED = 3600  # seconds without a write after which an incomplete file belongs to no running process
_FILE_NAME = re.compile(r"\w[\w.+=-]{0,200}", re.ASCII)  # of a commit or an ETag: names of files are made of both
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
        return self.cache_dir or Path(hub_client("constants").HF_HUB_CACHE)

    @property
    def storage(self) -> Path:
        """The repository's folder in the client's cache: blobs, snapshots, refs."""
        return self.cache / f"models--{self.repo.replace('/', '--')}"

    @property
    def fields(self) -> dict[str, str]:
        """What messages say of it, see ``hub_errors``. "by_hand" is how to fetch it without this package."""
        near, revision = suggest(self.repo), self.revision or "main"
        endpoint = hub_client("constants").ENDPOINT.rstrip("/")
        place = f"save it as {self.folder / PurePosixPath(self.file).name}" if self.folder else "give its path"
        return {
            "request": f"{self.file} of {self.repo}" + (f" at revision {self.revision!r}" if self.revision else ""),
            "repo": self.repo,
            "file": self.file,
            "revision": revision,
            "endpoint": endpoint,
            "page": f"{endpoint}/{self.repo}",
            "target": str(self.folder or self.cache),
            "mirror": f" Or use {self.mirror!r}, a copy that needs no account." if self.mirror else "",
            "by_hand": f"fetch {endpoint}/{self.repo}/resolve/{revision}/{self.file} elsewhere and {place}",
            "near": f" Near it in the catalogue: {', '.join(near)}." if near else "",
        }


class _RemoteFile(NamedTuple):
    """What the Hub says of a file. ``etag`` is the SHA-256 of a large file, a git hash of a small one."""

    commit: str
    etag: str
    size: int | None


def find_in_cache(wanted: HubFile) -> tuple[Path, str] | None:
    """The file in the client's cache and its commit, or None. Never uses the network."""
    if not os.path.isdir(wanted.storage):
        return None  # without importing the client's HTTP library, as ComfyUI's start lists what is on this disk
    hub_client("utils.tqdm")
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    where: dict[str, Any] = {"revision": wanted.revision, "cache_dir": wanted.cache}
    try:
        path = try_to_load_from_cache(wanted.repo, wanted.file, **where)
        if isinstance(path, str):
            return Path(path), Path(path).parents[wanted.file.count("/")].name  # snapshots/<commit>/<file>
        snapshot = Path(snapshot_download(wanted.repo, local_files_only=True, **where))
        names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if os.path.isfile(path)]
    except (OSError, ValueError):  # not there, no repository id, or a damaged cache
        return None
    if snapshot.parent.name != "snapshots":  # a damaged reference that leads elsewhere
        return None
    name = pick_weights(names, wanted.file)
    return (snapshot / name, snapshot.name) if name else None


def download(wanted: HubFile, progress: Progress | None = None) -> tuple[Path, str]:
    """Fetches a weight file, verifies it, and gives its path and commit.

    Args:
        wanted: What to fetch, and where to.
        progress: Called with the bytes there are and the bytes there will be. What it raises ends the download.

    Raises:
        CheckpointError: The file cannot be fetched, stored or verified. Nothing is left of it then.
    """
    hub_client("utils.tqdm")
    try:
        with explained(wanted.fields):
            possible(wanted.folder or wanted.cache)
            wanted, remote = _locate(wanted)
            _check_space(wanted, remote)
            return (_into_folder if wanted.folder else _into_cache)(wanted, remote, progress), remote.commit
    except _CallbackError as error:
        raise error.args[0] from None


def _locate(wanted: HubFile) -> tuple[HubFile, _RemoteFile]:
    """Finds the file, or where the repository has no such file, its only weight file."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import EntryNotFoundError

    with contextlib.suppress(EntryNotFoundError):
        return wanted, _ask(wanted)
    try:
        listed = HfApi(token=wanted.token).list_repo_tree(wanted.repo, revision=wanted.revision, recursive=True)
        files = (entry.path for entry in islice(listed, _MOST_FILES) if isinstance(entry, RepoFile))
        names = [name for name in files if isinstance(name, str)]
    # The client parses any response as a list.
    except (JSONDecodeError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise failure("no hub", wanted.fields, f"{type(error).__name__}: {error}") from error
    name = pick_weights(names, wanted.file)
    if name is None:
        weights = weight_files(names)
        found = f"several weight files ({', '.join(weights)})" if weights else f"no weights among {len(names)} files"
        raise failure(
            "no file", wanted.fields, f"{found}; expected {wanted.file} or one of {' '.join(WEIGHT_SUFFIXES)}"
        )
    wanted = dataclasses.replace(wanted, file=name)
    return wanted, _ask(wanted)


def _ask(wanted: HubFile) -> _RemoteFile:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision)
    found = get_hf_file_metadata(url, token=wanted.token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    commit, etag = found.commit_hash or "", found.etag or ""
    if _SHA256.fullmatch(etag.lower()):
        etag = etag.lower()
    elif found.size is None:  # half a file would look like the whole
        raise failure("no hub", wanted.fields, f"neither size nor SHA-256 of {wanted.file}")
    if not (_FILE_NAME.fullmatch(commit) and _FILE_NAME.fullmatch(etag)):
        raise failure("no hub", wanted.fields, f"commit {commit[:80]!r} and ETag {etag[:80]!r} of {wanted.file}")
    return _RemoteFile(commit, etag, found.size)


def _check_space(wanted: HubFile, remote: _RemoteFile) -> None:
    free, size = free_space(wanted.folder or wanted.cache), remote.size or 0
    if free is not None and free < size:
        sizes = f": {size / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free"
        raise failure("no space", wanted.fields, sizes)


def _into_folder(wanted: HubFile, remote: _RemoteFile, progress: Progress | None) -> Path:
    target = Path(wanted.folder or "") / PurePosixPath(wanted.file).name
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target.parent, ".download-*")  # of version 0.1
    try:
        _fetch(wanted, remote, target, progress)
    finally:
        with contextlib.suppress(OSError):
            target.parent.rmdir()  # refuses unless empty, that is unless the download failed
    return target


def _into_cache(wanted: HubFile, remote: _RemoteFile, progress: Progress | None) -> Path:
    """Downloads a blob and links it under its name and revision, as the client does; what is damaged is replaced.

    Not by ``hf_hub_download``: it makes paths from what the server sends at a further request, and gives up on no
    server that begins anew for ever.
    """
    blob, path = wanted.storage / "blobs" / remote.etag, wanted.storage / "snapshots" / remote.commit / wanted.file
    ref = wanted.storage / "refs" / (wanted.revision or "main")
    for folder in (blob.parent, wanted.storage / "snapshots", path.parent, wanted.storage / "refs", ref.parent):
        if os.path.lexists(folder) and not folder.is_dir():
            folder.unlink()
        folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(blob.parent, f"{blob.name}*.incomplete")
    if not _is_whole(blob, remote):
        blob.unlink(missing_ok=True)
        _fetch(wanted, remote, blob, progress)
    link = path.with_name(f".{secrets.token_hex(8)}.link")
    try:
        os.symlink(os.path.relpath(blob, path.parent), link)
        os.replace(link, path)
    except OSError:  # no links on this system
        link.unlink(missing_ok=True)
        try:
            os.replace(blob, path)
        except OSError:  # another process has moved it there, and may have opened it
            if not _is_whole(path, remote):
                raise
    if wanted.revision != remote.commit:
        if ref.is_dir():
            shutil.rmtree(ref)
        with atomic_path(ref) as part:
            Path(part).write_text(remote.commit, encoding="ascii")
    return path


def _is_whole(path: Path, remote: _RemoteFile) -> bool:
    """Whether a file is the remote one; False also where another process moves it away meanwhile."""
    try:
        return path.is_file() and path.stat().st_size == remote.size and _digest(path, remote.etag) == remote.etag
    except FileNotFoundError:
        return False


def _fetch(wanted: HubFile, remote: _RemoteFile, target: Path, progress: Progress | None) -> None:
    """Downloads and verifies a file, or leaves what another process has put there meanwhile."""
    try:
        _fetch_new(wanted, remote, target, progress)
    except PermissionError:  # Windows replaces no file that is open
        if not _is_whole(target, remote):
            raise


def _fetch_new(wanted: HubFile, remote: _RemoteFile, target: Path, progress: Progress | None) -> None:
    """Downloads and verifies a file. The client resumes a download that breaks off."""
    from huggingface_hub import file_download, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(wanted.repo, wanted.file, revision=remote.commit)
    headers = build_hf_headers(token=wanted.token)
    with atomic_path(target) as part:
        with _Download(wanted, remote, part, progress) as file:
            file.report(0)
            file.receive(
                partial(
                    file_download.http_get,
                    url,
                    file,
                    headers=headers,
                    expected_size=remote.size,
                    displayed_filename=target.name,
                )
            )
        done = os.path.getsize(part)  # some clients open the file anew
        if remote.size not in (None, done):
            raise failure("corrupt", wanted.fields, f"{done} bytes instead of {remote.size}")
        digest = _digest(Path(part), remote.etag)
        if digest != remote.etag:
            raise failure("corrupt", wanted.fields, f"SHA-256 {digest} instead of {remote.etag}")
        file.report(done)


class _Download(io.BufferedWriter):
    """The file a download is written to: reports what arrives, and ends what does not."""

    def __init__(self, wanted: HubFile, remote: _RemoteFile, path: str, progress: Progress | None) -> None:
        super().__init__(io.FileIO(path, "w"))
        self._wanted, self._progress, self._size = wanted, progress, remote.size
        self._most, self._last = -1, time.monotonic()

    def receive(self, get: Callable[[], None]) -> None:
        """Runs what writes into this file, and leaves it when nothing has been written for too long."""
        outcome: Future[None] = Future()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                outcome.set_result(context.run(get))
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        while not wait([outcome], timeout=1).done:
            if time.monotonic() - self._last > _SILENCE:
                silence = TimeoutError(f"nothing, or next to nothing, came for {_SILENCE} seconds")
                raise failure("unreachable", self._wanted.fields, silence)
        outcome.result()

    def write(self, data: Any) -> int:
        written, done = super().write(data), self.tell()
        if done > (self._size or _MOST_BYTES):
            raise failure("corrupt", self._wanted.fields, f"{done} bytes and more of {self._size}")
        if done <= self._most and time.monotonic() - self._last > _STALL_TIMEOUT:
            silence = TimeoutError(f"it began anew and sent nothing new for {_STALL_TIMEOUT} seconds")
            raise failure("unreachable", self._wanted.fields, silence)
        self.report(done)
        return written

    def report(self, done: int) -> None:
        """Reports bytes that have not been reported: a client that starts over writes them anew."""
        if done > self._most:
            self._most, self._last = done, time.monotonic()
            try:
                if self._progress:
                    self._progress(done, max(done, self._size or 0))
            except Exception as error:
                raise _CallbackError(error) from error


class _CallbackError(BaseException):
    """Carries the caller's own exception past those who take it for one of the network."""


def remove_if_damaged(path: Path, repo: str, token: str | None = None) -> bool:
    """Deletes a file of the client's cache that differs from its SHA-256, which its blob is called by.

    Where the system has no links, the file itself has the blob's place, and the Hub is asked for its SHA-256.

    Args:
        path: As ``find_in_cache`` gives it; a file elsewhere is left alone.
        repo: Its repository.
        token: See ``HubFile``.

    Returns:
        Whether it was deleted; False also where that cannot be found out now.
    """
    blob = path.resolve()
    snapshot = next((folder for folder in path.parents if folder.parent.name == "snapshots"), None)
    try:
        if snapshot is None or not blob.is_file():
            return False
        if _SHA256.fullmatch(blob.name):
            whole = _digest(blob, blob.name) == blob.name
        else:
            file = path.relative_to(snapshot).as_posix()
            wanted = HubFile(repo=repo, file=file, revision=snapshot.name, token=token)
            with explained(wanted.fields):
                whole = _is_whole(blob, _ask(wanted))
        if whole:
            return False
        path.unlink()
        blob.unlink(missing_ok=True)
    except (OSError, CheckpointError):  # a cache that only others may change; a Hub that is out of reach
        return False
    return True


def _digest(path: Path, etag: str) -> str:
    """The file's SHA-256 where ``etag`` is one; ``etag`` itself where it is a git hash, as of small files."""
    if not _SHA256.fullmatch(etag):
        return etag
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _remove_leftovers(folder: Path, pattern: str) -> None:
    """Deletes what killed downloads left; one that is running writes all the time."""
    for old in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - max(path.lstat().st_mtime for path in (old, *old.rglob("*"))) > _ABANDONED:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
