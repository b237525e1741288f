"""Messages for failed downloads: what was found, what was expected, what to do.

huggingface_hub changed its HTTP library twice (requests, httpx, httpx2), and its exceptions with it. They are
distinguished by the names of its own classes, by status codes and error numbers, and last by their library.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping

from ..errors import CheckpointError
from ..text import first_line
from .catalogue import DEMO

_HTTP = {"requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2", "ssl", "socket"}
_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
_ELSEWHERE = (
    "Downloads can go elsewhere: set HF_HUB_CACHE, or pass cache_dir or download_dir; in ComfyUI, name another folder "
    "as birefnet in extra_model_paths.yaml."
)
_TOKEN = "Check that HF_TOKEN is valid and may read this repository, or unset it for public ones."
_ADVICE = {  # by HTTP status
    401: _TOKEN,
    403: _TOKEN,
    407: "A proxy asks for a user name and a password: give them in HTTPS_PROXY, as http://user:password@host:port.",
    511: "The network asks for a log-in: open any page in a browser, log in, and try again.",
    429: "Too many requests: wait some minutes, or set HF_TOKEN to be allowed more.",
    400: "Check HF_ENDPOINT: it must be the address of a Hugging Face Hub or a mirror of it.",
    500: "The Hub is having trouble: try again later.",
}
_MESSAGES = {
    # Classes of huggingface_hub.errors
    "GatedRepoError": "{repo} is gated: its licence must be accepted before {file} can be downloaded. Accept the "
    "licence at {page} and set HF_TOKEN to an access token of that account.{mirror}",
    "RevisionNotFoundError": "{repo} at {endpoint} has no revision {revision!r}. Expected a branch, tag or commit "
    "listed at {page}/commits/main; without '@' the newest is taken.",
    "RepositoryNotFoundError": "There is no repository {repo} at {endpoint}, or it is private; nor is there a local "
    "file or folder of that name. Check the spelling; for a private one set HF_TOKEN to a valid token.{near}",
    "EntryNotFoundError": "{repo} has no file {file}. See {page}/tree/main for what it holds.",
    "HFValidationError": "{repo!r} is not a repository id ({details}). Expected 'owner/name'.",
    # Others
    "no file": "{repo} holds {details}. Download the file you want, or all shards of one checkpoint into one folder, "
    "from {page}/tree/main and give its path.",
    "status": "{endpoint} answered {details}",
    "no hub": "{endpoint} answered, but not as a Hugging Face Hub does ({details}). Check HF_ENDPOINT and whether a "
    "proxy or a log-in page answers in the Hub's place.",
    "unreachable": "The Hub at {endpoint} could not be reached, or the connection broke off, while asking for "
    "{request} ({kind}: {details}). Check the network, the proxy settings and HF_ENDPOINT, and try again; or use "
    + repr(DEMO)
    + ", which comes with this package; or {by_hand}.",
    "certificates": "The certificates for {endpoint} cannot be read: SSL_CERT_FILE is {details!r}, and there is no "
    "such file. Correct it, or unset it.",
    "proxy": "The proxy for {endpoint} cannot be used ({details}). Expected http://host:port or socks5://host:port in "
    "HTTPS_PROXY, HTTP_PROXY and ALL_PROXY: correct or unset them. A SOCKS proxy needs the package socksio: `pip "
    "install socksio`.",
    "token": "The access token of the Hub has characters that no token has ({details}). Copy it anew into HF_TOKEN, or "
    "unset that for public repositories.",
    "corrupt": "The download of {request} from {endpoint} is incomplete or corrupted ({details}). It was deleted: try "
    "again. If it happens again, look for a proxy or a mirror (HF_ENDPOINT) that changes files on their way.",
    "no space": "Not enough disk space at {target} for {request}{details}. Free some. " + _ELSEWHERE,
    "no permission": "No permission to write to {place}, where {request} was to go ({details}). Make the folder "
    "writable, or choose another one. " + _ELSEWHERE,
    "no folder": "{place} cannot hold {request} ({details}). " + _ELSEWHERE,
    "other": "{request} could not be fetched from {endpoint} ({kind}: {details}).",
}


def failure(name: str, fields: Mapping[str, str], details: object = "") -> CheckpointError:
    """The error with a message of the table above.

    Args:
        name: Its key.
        fields: Those of ``hub.HubFile``.
        details: What was found, or the exception.
    """
    path = getattr(details, "filename", None)
    place = os.fsdecode(path) if isinstance(path, (str, bytes)) else fields["target"]
    return CheckpointError(_MESSAGES[name].format(**fields, details=details, kind=type(details).__name__, place=place))


@contextlib.contextmanager
def explained(fields: Mapping[str, str]) -> Iterator[None]:
    """Turns exceptions of huggingface_hub, the network and the disk into a CheckpointError. Others pass unchanged."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        explanation = explain(error, fields)
        if explanation is None:
            raise
        raise explanation from error


def explain(error: BaseException, fields: Mapping[str, str]) -> CheckpointError | None:
    """What to raise for an exception that a download can end with, None for any other."""
    hf_xet = str(error).startswith("Data processing error")  # a plain RuntimeError
    known = isinstance(error, (OSError, ValueError)) or hf_xet or _libraries(error) & {"huggingface_hub", *_HTTP}
    if not (known or _is_of_proxy(error)):
        return None
    chain = [error]
    while (link := chain[-1].__cause__ or chain[-1].__context__) is not None and link not in chain:
        chain.append(link)
    classes = [[cls.__name__ for cls in type(link).__mro__] for link in chain]
    # LocalEntryNotFoundError says only that an earlier request failed: its cause says how.
    named = [name for names in classes if "LocalEntryNotFoundError" not in names for name in names]
    statuses = [getattr(getattr(link, "response", None), "status_code", None) or 0 for link in chain]
    status = next((status for status in statuses if status >= 400), 0)
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    if numbers & _NO_SPACE or any("No space left" in str(link) for link in chain):
        return failure("no space", fields)
    if refusal := next((name for name in named if name in _MESSAGES), None):
        return failure(refusal, fields, error)
    if status:
        advice = _ADVICE.get(status) or _ADVICE[400 if status < 500 else 500]
        return failure("status", fields, f"HTTP {status} when asked for {fields['request']}. {advice}")
    if any(map(_is_of_proxy, chain)):
        return failure("proxy", fields, first_line(error))
    if isinstance(error, UnicodeEncodeError) and error.encoding in ("ascii", "latin-1"):  # of HTTP headers
        return failure("token", fields, first_line(error))
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle and not os.path.isfile(bundle) and any(map(_is_of_no_file, chain)):
        return failure("certificates", fields, bundle)
    if any(isinstance(link, (ConnectionError, TimeoutError)) or _libraries(link) & _HTTP for link in chain):
        return failure("unreachable", fields, chain[-1])
    if numbers & _NO_PERMISSION:
        return failure("no permission", fields, error)
    if any("Consistency check failed" in str(link) for link in chain):
        return failure("corrupt", fields, first_line(error))
    return failure("no folder" if getattr(error, "errno", None) is not None else "other", fields, error)


def _is_of_no_file(error: BaseException) -> bool:
    """Whether something that is not named is no file, as in Python's ssl module."""
    return isinstance(error, (FileNotFoundError, IsADirectoryError)) and error.filename is None


def _is_of_proxy(error: BaseException) -> bool:
    """Whether httpx does not know the kind of proxy, or lacks the package for SOCKS."""
    return isinstance(error, (ImportError, ValueError)) and bool(re.search(r"proxy URL|SOCKS", str(error)))


def _libraries(error: BaseException) -> set[str]:
    """The packages of an exception's class and of those it derives from."""
    return {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
