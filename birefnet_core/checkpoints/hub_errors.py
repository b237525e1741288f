"""What went wrong with the Hub, in words a user can act on.

The Hub's client changed its HTTP library twice (requests, httpx, httpx2), and its exceptions with it. They are told
apart here by the client's own classes, by status codes and error numbers, and only then by the library they come from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import CheckpointError
from .catalogue import CatalogueEntry
from .lookup import suggest

_HTTP_LIBRARIES = ("requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2", "ssl", "socket")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubRequest:
    """What is asked of the Hub, and where the answer is to lie.

    Attributes:
        repo: ``owner/name``.
        file: Path of the weights in the repository.
        revision: Branch, tag or commit; None for the default branch.
        endpoint: Address of the Hub, without a slash at its end.
        token: Access token, or None for the one the client knows of (HF_TOKEN or a login).
        entry: The catalogue's row, where there is one.
        target: Folder the file goes to, for messages.
    """

    repo: str
    file: str
    revision: str | None
    endpoint: str
    token: str | None
    entry: CatalogueEntry | None
    target: Path

    def __str__(self) -> str:
        at = f" at revision {self.revision!r}" if self.revision else ""
        return f"{self.file} of {self.repo}{at}"

    @property
    def page(self) -> str:
        """The repository's page, for people."""
        return f"{self.endpoint}/{self.repo}"


@contextlib.contextmanager
def explained(request: HubRequest) -> Iterator[None]:
    """Turns whatever the Hub's client raises inside the block into a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(explain(error, request)) from error


def explain(error: BaseException, request: HubRequest) -> str:
    """The message for an exception of the Hub's client: what was found, what was expected, what to do."""
    chain = _chain(error)
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    if numbers & set(_NO_SPACE) or any("No space left" in str(link) for link in chain):
        return no_space(request)
    for link in chain:
        message = _refusal(link, request)
        if message:
            return message
    if any(_from_network(link) for link in chain):
        return (
            f"The Hub at {request.endpoint} could not be reached, or the connection broke off, while asking for "
            f"{request} ({type(chain[-1]).__name__}: {chain[-1]}). Check the network, the proxy settings and "
            f"HF_ENDPOINT, and try again; or download the file from {request.page} elsewhere and give its path."
        )
    if numbers & set(_NO_PERMISSION):
        return (
            f"No permission to write to {_place(error, request)}, where {request} was to go ({error}). "
            f"Make the folder writable, or choose another one. {how_to_choose_folder()}"
        )
    if any("Consistency check failed" in str(link) for link in chain):
        return truncated(request, str(error).splitlines()[0])
    if isinstance(error, OSError) and error.errno is not None:
        return f"{_place(error, request)} cannot hold {request} ({error}). {how_to_choose_folder()}"
    return f"{request} could not be fetched from {request.endpoint} ({type(error).__name__}: {error})."


def no_space(request: HubRequest, needed: int | None = None, free: int | None = None) -> str:
    """The message for a full disk; sizes in bytes."""
    sizes = f": {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free" if needed and free is not None else ""
    return f"Not enough disk space at {request.target} for {request}{sizes}. Free some. {how_to_choose_folder()}"


def truncated(request: HubRequest, details: str) -> str:
    """The message for a download that is not what the Hub announced."""
    return (
        f"The download of {request} from {request.endpoint} is incomplete or corrupted ({details}). It was deleted: "
        f"try again. If it happens again, look for a proxy or a mirror (HF_ENDPOINT) that changes files on their way."
    )


def how_to_choose_folder() -> str:
    """Where downloads can be sent."""
    return (
        "Downloads can go elsewhere: set HF_HUB_CACHE, or pass cache_dir or download_dir; in ComfyUI, name another "
        "folder as birefnet in extra_model_paths.yaml."
    )


def _refusal(error: BaseException, request: HubRequest) -> str | None:
    """The message for an answer of the Hub other than the file, or for asking it while offline."""
    from huggingface_hub import utils

    if isinstance(error, utils.GatedRepoError):
        return _gated(request)
    if isinstance(error, utils.RevisionNotFoundError):
        otherwise = f" Leave out '@{request.revision}' for the newest." if request.revision else ""
        return (
            f"{request.repo} at {request.endpoint} has no revision {request.revision or 'main'!r}. Expected a branch, "
            f"tag or commit listed at {request.page}/commits/main.{otherwise}"
        )
    if isinstance(error, utils.RepositoryNotFoundError):
        close = suggest(request.repo)
        hint = f" Near it in the catalogue: {', '.join(close)}." if close else ""
        return (
            f"There is no repository {request.repo} at {request.endpoint}, or it is private; nor is there a local file "
            f"or folder of that name. Check the spelling; for a private one set HF_TOKEN to a valid token.{hint}"
        )
    if isinstance(error, utils.EntryNotFoundError) and not isinstance(error, utils.LocalEntryNotFoundError):
        return f"{request.repo} has no file {request.file}. Look at {request.page}/tree/main for what it holds."
    if isinstance(error, utils.OfflineModeIsEnabled):
        return (
            f"{request} is not on this disk and offline mode is on. Unset HF_HUB_OFFLINE and start again to "
            f"download it, or download it from {request.page} elsewhere and give its path."
        )
    if isinstance(error, utils.HFValidationError):
        return f"{request.repo!r} is not a repository id ({error}). Expected 'owner/name'."
    status = getattr(getattr(error, "response", None), "status_code", None)
    return None if status is None or status < 400 else _status(status, request)


def _gated(request: HubRequest) -> str:
    mirrors = [repo for repo in request.entry.mirrors if repo != request.repo] if request.entry else []
    other = f" Or use {mirrors[0]!r}, a copy that needs no account." if mirrors else ""
    return (
        f"{request.repo} is gated: its licence must be accepted before {request.file} can be downloaded. Accept the "
        f"licence at {request.page} and set HF_TOKEN to an access token of that account.{other}"
    )


def _status(status: int, request: HubRequest) -> str:
    if status in (401, 403):
        advice = "Check that HF_TOKEN is valid and may read this repository, or unset it for public ones."
    elif status == 429:
        advice = "Too many requests: wait some minutes, or set HF_TOKEN to be allowed more."
    elif status >= 500:
        advice = "The Hub is having trouble: try again later."
    else:
        advice = "Check HF_ENDPOINT: it must be the address of a Hugging Face Hub or a mirror of it."
    return f"{request.endpoint} answered HTTP {status} when asked for {request}. {advice}"


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and those it came from, outermost first."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _from_network(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    return any(cls.__module__.partition(".")[0] in _HTTP_LIBRARIES for cls in type(error).__mro__)


def _place(error: BaseException, request: HubRequest) -> str:
    name = getattr(error, "filename", None)
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else str(request.target)
