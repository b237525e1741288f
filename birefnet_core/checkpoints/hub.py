"""The Hugging Face Hub, through its client: what the client's cache holds, and verified downloads.

huggingface_hub reads HF_ENDPOINT, HF_HUB_CACHE, HF_HOME and HF_HUB_OFFLINE when it is imported (at the latest at the
first use of these functions), and HF_TOKEN at every request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from json import JSONDecodeError
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import CheckpointError
from .catalogue import GENERIC_FILE, PICKLED, SAFETENSORS, WEIGHT_SUFFIXES, suggest
from .hub_errors import explained, message

Progress = Callable[[int, int], object]

_STAGING_PREFIX = ".download-"
_STAGING_LIFETIME = 3600  # seconds without a write; a live download gives up on a silent server after 10
_FILE_NAME = re.compile(r"[^/\\.][^/\\]*")  # what the client makes of a commit and of an ETag
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
    """The paths that look like weights, without hidden files and paths that lead out of their folder."""
    paths = [PurePosixPath(name) for name in names if name.lower().endswith(WEIGHT_SUFFIXES)]
    return sorted(str(path) for path in paths if not path.name.startswith(".") and ".." not in path.parts)


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
    by_ending = ([p for p in weights if p.lower().endswith(e)] for e in (SAFETENSORS, PICKLED[:2], PICKLED[2:]))
    found = next(filter(None, by_ending), [])
    return found[0] if len(found) == 1 else None


def find_in_cache(wanted: HubFile) -> tuple[Path, str] | None:
    """The file in the client's cache and its commit, or None. Never uses the network."""
    if not (wanted.cache / f"models--{wanted.repo.replace('/', '--')}").is_dir():
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
    with explained(wanted.fields):
        wanted, remote = _locate(wanted)
    reporter = _Reporter(progress, remote.size or 0)
    try:
        with explained(wanted.fields):
            _check_space(wanted, remote)
            reporter.report(0)
            path, commit = (_into_folder if wanted.folder else _into_cache)(wanted, remote, reporter)
            reporter.report(path.stat().st_size)
    except CheckpointError:
        if reporter.error is not None:
            raise reporter.error from None  # the caller's own exception, not a failure of the download
        raise
    return path, commit


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
            f"Download the file you want from {wanted.fields['page']}/tree/main and give its path."
        )
    wanted = dataclasses.replace(wanted, file=name)
    return wanted, _ask(wanted)


def _ask(wanted: HubFile) -> _RemoteFile:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision)
    found = get_hf_file_metadata(url, token=wanted.token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    commit, etag = found.commit_hash or "", found.etag or ""
    if not (_FILE_NAME.fullmatch(commit) and _FILE_NAME.fullmatch(etag)):
        details = f"no commit or no ETag for {wanted.file}: {commit!r}, {etag!r}"
        raise CheckpointError(message("no hub", wanted.fields, details))
    return _RemoteFile(commit, etag, found.size)


def _check_space(wanted: HubFile, remote: _RemoteFile) -> None:
    target = (wanted.folder or wanted.cache).absolute()
    disk = shutil.disk_usage(next(path for path in (target, *target.parents) if path.exists()))
    if disk.total > 0 and disk.free < (remote.size or 0):  # some network drives give 0 for all
        sizes = f": {(remote.size or 0) / 1e6:.0f} MB needed, {disk.free / 1e6:.0f} MB free"
        raise CheckpointError(message("no space", wanted.fields, sizes))


def _into_cache(wanted: HubFile, remote: _RemoteFile, reporter: _Reporter) -> tuple[Path, str]:
    # By branch name and not by commit, so that the cache knows what the branch stands for when offline.
    path = _fetch(wanted, reporter, revision=wanted.revision, cache_dir=wanted.cache)
    commit = _commit(path, wanted.file)
    if commit != remote.commit:  # the branch moved between the two requests
        remote = _ask(dataclasses.replace(wanted, revision=commit))
    _verify(path, wanted, remote)
    return path, commit


def _into_folder(wanted: HubFile, remote: _RemoteFile, reporter: _Reporter) -> tuple[Path, str]:
    """Downloads beside the final place, so that nothing but a verified file has the final name."""
    folder = Path(wanted.folder or "")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{_STAGING_PREFIX}*"):  # left by processes that were killed
        times = [path.lstat().st_mtime for path in (old, *old.rglob("*")) if os.path.lexists(path)]
        if times and time.time() - max(times) > _STAGING_LIFETIME:
            shutil.rmtree(old, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=_STAGING_PREFIX, dir=folder, ignore_cleanup_errors=True) as staging:
            path = _fetch(wanted, reporter, revision=remote.commit, cache_dir=wanted.cache, local_dir=staging)
            _verify(path, wanted, remote)
            final = folder / path.name
            os.replace(path, final)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # refuses unless empty, that is unless the download failed
    return final, remote.commit


def _fetch(wanted: HubFile, reporter: _Reporter, **where: Any) -> Path:
    from huggingface_hub import hf_hub_download

    if reporter.callback and "tqdm_class" in inspect.signature(hf_hub_download).parameters:  # since 1.0
        where["tqdm_class"] = reporter.bar_class()
    path = hf_hub_download(wanted.repo, wanted.file, token=wanted.token, **where)
    if reporter.error is not None:  # and the client did not end
        raise reporter.error
    return Path(path)


def _verify(path: Path, wanted: HubFile, remote: _RemoteFile) -> None:
    """Compares the file with the SHA-256 the Hub announced, and deletes it where they differ.

    Only large files have one; the client compares the size of every file.
    """
    if not _SHA256.fullmatch(remote.etag):
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != remote.etag:
        while path.is_symlink():  # in the cache a link to a blob, which may itself be a link
            target = path.parent / os.readlink(path)
            path.unlink()
            path = target
        path.unlink()
        found = f"SHA-256 {digest.hexdigest()} instead of {remote.etag}"
        raise CheckpointError(message("corrupt", wanted.fields, found))


def _commit(path: Path, file: str) -> str:
    """The commit of a path in the cache, .../snapshots/<commit>/<file>."""
    return path.parents[file.count("/")].name


class _RemoteFile(NamedTuple):
    """What the Hub says of a file. ``etag`` is the SHA-256 of a large file, a git hash of a small one."""

    commit: str
    etag: str
    size: int | None


class _Reporter:
    """Passes byte counts on to a callback, and keeps what that raises: the client may swallow or replace it."""

    def __init__(self, callback: Progress | None, total: int) -> None:
        self.callback = callback
        self.total = total
        self.done = -1
        self.error: BaseException | None = None

    def report(self, done: int) -> None:
        if self.callback is None or done <= self.done:  # a client that starts over counts anew
            return
        self.done = done
        try:
            self.callback(done, max(done, self.total))
        except BaseException as error:
            self.error = error
            raise

    def bar_class(self) -> type:
        """The client's progress bar, which also reports."""
        from huggingface_hub.utils import tqdm

        report = self.report

        class Bar(tqdm):
            def update(self, n: float | None = 1) -> Any:
                shown = super().update(n)
                if self.disable:  # then it does not count
                    self.n += n or 0
                report(int(self.n))
                return shown

        return Bar
