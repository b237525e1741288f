"""The Hugging Face Hub: what of it lies on this disk, and one verified download.

The environment (HF_ENDPOINT, HF_HUB_OFFLINE, HF_HUB_CACHE, HF_HOME) is read when a function is called, so that what a
program sets before it loads a model counts; huggingface_hub itself reads it once, when it is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import CheckpointError
from .catalogue import GENERIC_FILE, WEIGHT_SUFFIXES
from .hub_errors import HubRequest, explained, no_space, truncated

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], object]

_STAGING_PREFIX = ".download-"
_STAGING_LIFETIME = 3600  # seconds without a write; a live download gives up on a silent server after 10
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUE = ("1", "ON", "YES", "TRUE")  # what huggingface_hub takes for true


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """What the Hub says of a file. ``etag`` is the SHA-256 of a large file, a git hash of a small one."""

    file: str
    commit: str
    etag: str
    size: int | None


def hub_endpoint() -> str:
    """The address of the Hub, without a slash at its end."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_cache(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the Hub's cache: the argument, or what the environment says, or the client's default."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return _expanded(os.environ[name])
    if os.environ.get("HF_HOME"):
        return _expanded(os.environ["HF_HOME"]) / "hub"
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def offline_switch() -> str | None:
    """The environment variable that forbids the network, as ``NAME=value``, or None."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        value = os.environ.get(name)
        if value:
            return f"{name}={value}" if value.upper() in _TRUE else None
    return None


def pick_weights(names: Iterable[str], preferred: str | None = None) -> str | None:
    """The one weight file among paths that is meant, or None where there is none or no telling.

    In this order: ``preferred`` (else a file of that name in another folder), ``model.safetensors``, the only
    .safetensors file, the only .pth or .pt file.
    """
    weights = weight_files(names)
    if preferred in weights:
        return preferred
    for name in (preferred, GENERIC_FILE):
        same = [path for path in weights if name and PurePosixPath(path).name == PurePosixPath(name).name]
        if name in same or len(same) == 1:
            return name if name in same else same[0]
    safe = [path for path in weights if path.lower().endswith(".safetensors")]
    candidates = safe or weights
    return candidates[0] if len(candidates) == 1 else None


def weight_files(names: Iterable[str]) -> list[str]:
    """The paths that look like weights; hidden files are left out."""
    return sorted(n for n in names if n.lower().endswith(WEIGHT_SUFFIXES) and not PurePosixPath(n).name.startswith("."))


def cached_weights(cache: Path, repo: str, revision: str | None, preferred: str | None) -> tuple[Path, str] | None:
    """The weights of a repository in the Hub's cache and their commit, or None. Never asks the network."""
    folder = _repo_folder(cache, repo)
    commit = revision or "main"
    if not _COMMIT.fullmatch(commit):
        try:
            commit = (folder / "refs" / commit).read_text(encoding="utf-8").strip()
        except OSError:
            return None
    snapshot = folder / "snapshots" / commit
    present = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    name = pick_weights(present, preferred)
    return (snapshot / name, commit) if name else None


def download(request: HubRequest, *, cache: Path, folder: Path | None, progress: Progress | None) -> tuple[Path, str]:
    """Fetches the weights of a repository, checks them and gives their path and commit.

    Args:
        request: What to fetch.
        cache: The Hub's cache, where the file goes without ``folder``.
        folder: Where the file goes instead, under its own name.
        progress: Called with the bytes there are and the bytes there will be. What it raises ends the download.

    Raises:
        CheckpointError: The file cannot be had, stored or trusted. Nothing is left of it then.
    """
    relay = _Relay(progress)
    try:
        with explained(request):
            remote = locate(request)
        request = dataclasses.replace(request, file=remote.file)
        with explained(request):
            _check_space(request, remote)
            logger.info("Downloading %s from %s to %s", request, request.endpoint, request.target)
            relay.start(remote.size)
            if folder is None:
                path, remote = _into_cache(request, remote, cache, relay)
            else:
                path = _into_folder(request, remote, folder, cache, relay)
    except CheckpointError:
        if relay.error is not None:
            raise relay.error from None  # the caller's own exception, not a failure of the download
        raise
    relay.finish(path)
    return path, remote.commit


def locate(request: HubRequest) -> RemoteFile:
    """Asks the Hub for the file, and where the repository has no such file, for the one that is meant.

    The first question is asked once, without the client's retries: no network means an error within seconds.
    """
    from huggingface_hub import HfApi, get_hf_file_metadata
    from huggingface_hub.utils import EntryNotFoundError

    if "retry_on_errors" not in inspect.signature(get_hf_file_metadata).parameters:
        _knock(request)
    with contextlib.suppress(EntryNotFoundError):
        return _ask(request)
    api = HfApi(endpoint=request.endpoint, token=request.token)
    names = api.list_repo_files(request.repo, revision=request.revision)
    name = pick_weights(names, request.file)
    if name is None:
        weights = weight_files(names)
        found = f"several weight files ({', '.join(weights)})" if weights else f"no weights among {len(names)} files"
        raise CheckpointError(
            f"{request.repo} holds {found}; expected {request.file} or exactly one of {', '.join(WEIGHT_SUFFIXES)}. "
            f"Download the file you want from {request.page}/tree/main and give its path."
        )
    return _ask(dataclasses.replace(request, file=name))


def _knock(request: HubRequest) -> None:
    """Raises at once where nobody answers; some clients before 2.0 would insist for half a minute."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session

    headers = build_hf_headers(token=request.token)
    get_session().head(_url(request), headers=headers, timeout=constants.HF_HUB_ETAG_TIMEOUT)


def _url(request: HubRequest) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(request.repo, request.file, revision=request.revision, endpoint=request.endpoint)


def _ask(request: HubRequest) -> RemoteFile:
    from huggingface_hub import constants, get_hf_file_metadata

    metadata = get_hf_file_metadata(_url(request), token=request.token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if metadata.commit_hash is None or metadata.etag is None:
        raise CheckpointError(
            f"{request.endpoint} answered, but not as a Hugging Face Hub does (no commit or no ETag for {request}). "
            f"Check HF_ENDPOINT and whether a proxy or a log-in page answers in the Hub's place."
        )
    return RemoteFile(file=request.file, commit=metadata.commit_hash, etag=metadata.etag, size=metadata.size)


def _into_cache(request: HubRequest, remote: RemoteFile, cache: Path, relay: _Relay) -> tuple[Path, RemoteFile]:
    blobs = _repo_folder(cache, request.repo) / "blobs"
    others = set(blobs.glob("*.incomplete"))
    try:
        # By branch name and not by commit, so that the cache knows what the branch stands for when offline.
        path = _fetch(request, relay, revision=request.revision, cache_dir=cache)
    except BaseException:
        _drop_incomplete(cache, request.repo, remote.etag, set(blobs.glob(f"{remote.etag}*.incomplete")) - others)
        raise
    commit = path.relative_to(_repo_folder(cache, request.repo) / "snapshots").parts[0]
    if commit != remote.commit:  # the branch moved between the two requests
        remote = _ask(dataclasses.replace(request, revision=commit))
    _verify(path, request, remote)
    return path, remote


def _into_folder(request: HubRequest, remote: RemoteFile, folder: Path, cache: Path, relay: _Relay) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    _drop_stale(folder)
    staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=folder))
    try:
        path = _fetch(request, relay, revision=remote.commit, cache_dir=cache, local_dir=staging)
        _verify(path, request, remote)
        final = folder / PurePosixPath(request.file).name
        os.replace(path, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.rmdir()  # refuses unless empty, that is unless the download failed
    return final


def _fetch(request: HubRequest, relay: _Relay, **where: Any) -> Path:
    from huggingface_hub import hf_hub_download

    if relay.progress is not None and "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        where["tqdm_class"] = relay.bar_class()
    path = hf_hub_download(request.repo, request.file, endpoint=request.endpoint, token=request.token, **where)
    return Path(path)


def _verify(path: Path, request: HubRequest, remote: RemoteFile) -> None:
    """Compares the file with what the Hub announced, and deletes it where they differ."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        _delete(path)
        raise CheckpointError(truncated(request, f"{size} bytes instead of {remote.size}"))
    if not _SHA256.fullmatch(remote.etag):
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != remote.etag:
        _delete(path)
        raise CheckpointError(truncated(request, f"SHA-256 {digest.hexdigest()} instead of {remote.etag}"))


def _delete(path: Path) -> None:
    # In the Hub's cache a file is a link to a blob, which may itself be a link.
    while path.is_symlink():
        target = path.parent / os.readlink(path)
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


def _drop_incomplete(cache: Path, repo: str, etag: str, ours: set[Path]) -> None:
    """Deletes what a failed download left in the cache, unless another process is at it right now."""
    if not ours:
        return
    from filelock import FileLock, Timeout

    lock = cache / ".locks" / _repo_folder(cache, repo).name / f"{etag}.lock"
    with contextlib.suppress(Timeout, OSError), FileLock(lock, timeout=0):
        for path in ours:
            path.unlink(missing_ok=True)


def _drop_stale(folder: Path) -> None:
    """Deletes what downloads that were killed left behind."""
    for staging in folder.glob(f"{_STAGING_PREFIX}*"):
        times = [path.lstat().st_mtime for path in (staging, *staging.rglob("*")) if os.path.lexists(path)]
        if times and time.time() - max(times) > _STAGING_LIFETIME:
            shutil.rmtree(staging, ignore_errors=True)


def _check_space(request: HubRequest, remote: RemoteFile) -> None:
    if remote.size is None:
        return
    place = next(path for path in (request.target, *request.target.absolute().parents) if path.exists())
    usage = shutil.disk_usage(place)
    if usage.total > 0 and usage.free < remote.size:  # some network drives know nothing of their size
        raise CheckpointError(no_space(request, remote.size, usage.free))


def _repo_folder(cache: Path, repo: str) -> Path:
    return cache / f"models--{repo.replace('/', '--')}"


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(path)))


class _Relay:
    """Passes byte counts from the client's progress bars on to the caller's callback.

    Client versions that take no ``tqdm_class`` report the beginning and the end only.
    """

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.error: BaseException | None = None
        self.total = 0
        self.done = -1

    def start(self, total: int | None) -> None:
        self.total = total or 0
        self.report(0)

    def finish(self, path: Path) -> None:
        self.total = path.stat().st_size
        self.report(self.total)

    def report(self, done: int) -> None:
        """Counts go up only: a client that starts over, or draws two bars, is not the caller's concern.

        An exception of the callback is raised again at every call, should the client have swallowed it.
        """
        if self.error is not None:
            raise self.error
        if self.progress is None:
            return
        done = min(done, self.total) if self.total else done
        if done <= self.done:
            return
        self.done = done
        try:
            self.progress(done, max(done, self.total))
        except BaseException as error:
            self.error = error
            raise

    def bar_class(self) -> type:
        from huggingface_hub.utils import tqdm

        relay = self

        class Bar(tqdm):
            """The client's own bar, which also tells the relay. It counts itself: bars nobody sees do not."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self.bytes = int(kwargs.get("initial") or 0)
                super().__init__(*args, **kwargs)

            def update(self, n: float | None = 1) -> Any:
                shown = super().update(n)
                self.bytes += int(n or 0)
                relay.report(self.bytes)
                return shown

        return Bar
