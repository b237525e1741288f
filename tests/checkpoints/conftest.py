"""A Hub of the tests' own: enough of its HTTP API on the loopback interface for the real client."""

import contextlib
import dataclasses
import hashlib
import json
import re
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@dataclasses.dataclass
class Repo:
    """A repository and what is wrong with it.

    Attributes:
        files: Path to content, at every revision.
        lfs: Announce SHA-256 and size as for large files; otherwise a git hash, as for small ones.
        revisions: Branch, tag or commit to commit; several commits are given out one after the other.
        gated: Only ``FakeHub.good_token`` may read.
        status: Answer everything with this HTTP status.
        hub_headers: Send the headers that make a Hub a Hub.
        redirect: Files come from another host, as large ones do.
        fault: What a GET of a file does: "short" sends less than was announced, "corrupt" other bytes, "cut" breaks
            the connection off half-way and at every further attempt, "stall" sends nothing more from half-way on,
            "interrupt" does so, too, and sends SIGINT to the main thread, "anew" begins anew at each attempt and stalls
            half-way, "endless" sends more and more without a length, "no length" breaks off half-way without one,
            "drip" sends a byte now and then.
        announced: Size in bytes that is announced, if it is not that of the file.
        seconds: How long sending a file takes.
        listing: What is sent instead of the list of files.
        pages: Whether each page of the list of files names a next one.
        etag: What is sent instead of the file's hash.
        later_etag: What is sent instead from the second request of a file on.
    """

    files: dict[str, bytes]
    lfs: bool = True
    revisions: dict[str, list[str]] = dataclasses.field(default_factory=lambda: {"main": ["a" * 40]})
    gated: bool = False
    status: int | None = None
    hub_headers: bool = True
    redirect: bool = False
    fault: str | None = None
    announced: int | None = None
    seconds: float = 0
    listing: bytes | None = None
    pages: bool = False
    etag: str | None = None
    later_etag: str | None = None


class FakeHub:
    """The server: ``repos`` by id, and the ``requests`` it has had as (method, path, authorization).

    ``pauses`` are the seconds the client wanted to wait between its attempts.
    """

    good_token = "hf_good"

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.pauses: list[float] = []
        self.main_thread = threading.main_thread().ident
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.hub = self
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def add(self, repo: str, files: dict[str, bytes] | None = None, **kwargs) -> Repo:
        self.repos[repo] = Repo({"model.safetensors": b"w" * 5000} if files is None else files, **kwargs)
        return self.repos[repo]

    def close_session(self):
        """Ends the client's session, which remembers the proxies and, before 1.0, whether it is offline."""
        import huggingface_hub
        from huggingface_hub import utils

        (getattr(huggingface_hub, "close_session", None) or utils.reset_sessions)()

    def close(self):
        self.close_session()
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # which would have a body wait for the other side to confirm its headers

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Authorization")))
        match = re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+)/(resolve|tree)/(refs/pr/\d+|[^/]+)(?:/(.+))?", path)
        if path.startswith("/cdn/"):
            _, _, owner, name, file = path.split("/", 4)
            return self.content(hub.repos[f"{owner}/{name}"], hub.repos[f"{owner}/{name}"].files[file], {})
        repo = hub.repos.get(match[1]) if match else None
        if repo is None:
            return self.refuse(401, "RepoNotFound")
        if repo.status is not None:
            return self.refuse(repo.status)
        if repo.gated and self.headers.get("Authorization") != f"Bearer {hub.good_token}":
            return self.refuse(401, "GatedRepo")
        known = any(match[3] in commits for commits in repo.revisions.values())
        commits = repo.revisions.get(match[3], [match[3]] if known else None)
        if commits is None:
            return self.refuse(404, "RevisionNotFound")
        commit = commits[0]
        if len(commits) > 1:
            repo.revisions[match[3]] = commits[1:]
        if match[2] == "tree":
            return self.tree(repo)
        if match[4] not in repo.files:
            return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        return self.file(match[1], repo, match[4], commit)

    def refuse(self, status, code=None, headers=None):
        headers = {"Content-Length": "0", **(headers or {}), **({"X-Error-Code": code} if code else {})}
        self.reply(status, headers)

    def reply(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def tree(self, repo):
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
            for path, content in repo.files.items()
        ]
        body = json.dumps(entries).encode() if repo.listing is None else repo.listing
        more = {"Link": f'<{self.server.hub.url}{self.path}>; rel="next"'} if repo.pages else {}
        self.reply(200, {"Content-Type": "application/json", "Content-Length": str(len(body)), **more})
        self.wfile.write(body)

    def file(self, repo_id, repo, path, commit):
        content = repo.files[path]
        headers = {"Accept-Ranges": "bytes"}
        if repo.hub_headers:
            headers |= {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if repo.hub_headers and repo.lfs:
            size = repo.announced or len(content)
            etag = repo.etag or hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(size)}
            repo.etag = repo.later_etag or repo.etag
        if repo.fault in ("endless", "no length"):
            headers.pop("X-Linked-Size", None)
        if repo.redirect:
            location = f"http://localhost:{self.server.hub.port}/cdn/{repo_id}/{path}"
            return self.reply(302, {**headers, "Content-Length": "0", "Location": location})
        return self.content(repo, content, headers)

    def content(self, repo, content, headers):
        if repo.fault in ("endless", "no length"):
            self.reply(200, headers)
            self.close_connection = True
            pieces = 10**6 if repo.fault == "endless" else 1
            with contextlib.suppress(ConnectionError):
                for _ in range(pieces if self.command == "GET" else 0):
                    self.wfile.write(content[: len(content) // 2])
            return None
        if self.command == "HEAD":
            return self.reply(200, {**headers, "Content-Length": str(repo.announced or len(content))})
        if repo.fault == "corrupt":
            content = bytes(byte ^ 1 for byte in content)
        if repo.fault == "short":
            content = content[: len(content) // 2]
        if repo.fault == "cut off":
            self.close_connection = True
            return None
        start = re.match(r"bytes=(\d+)-", "" if repo.fault == "anew" else self.headers.get("Range", ""))
        first = int(start[1]) if start else 0
        if start:
            headers = {**headers, "Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        content = content[first:]
        self.reply(206 if start else 200, {**headers, "Content-Length": str(len(content))})
        if repo.fault in ("cut", "stall", "interrupt", "anew"):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
            if repo.fault == "cut":
                repo.fault = "cut off"
                return None
            if repo.fault == "interrupt":
                signal.pthread_kill(self.server.hub.main_thread, signal.SIGINT)
            # Until the client closes the connection: nothing but the signal or its own time limit ends the download,
            # however slow the machine is.
            with contextlib.suppress(ConnectionError):
                self.rfile.read(1)
            return None
        if repo.fault == "drip":
            with contextlib.suppress(ConnectionError):
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    threading.Event().wait(0.05)  # time.sleep is replaced
            return None
        pieces = 50 if repo.seconds else 1
        size = -(-len(content) // pieces) or 1
        for first in range(0, len(content), size):
            self.wfile.write(content[first : first + size])
            if repo.seconds:
                time.sleep(repo.seconds / pieces)
        return None


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A running FakeHub for the client, with an empty cache; no pauses between the client's retries.

    The client reads its environment when it is imported, which some test before may have done.
    """
    from huggingface_hub import constants, file_download

    for name in (*_PROXIES, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeHub()
    template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # up to 0.25
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    monkeypatch.setattr(file_download.time, "sleep", fake.pauses.append)
    fake.close_session()
    yield fake
    fake.close()


@pytest.fixture
def cache(hub, tmp_path) -> Path:
    """The Hub's cache on disk."""
    return tmp_path / "cache"


@pytest.fixture
def left_behind():
    """Lists the files below folders, without locks and other small files of the client's own.

    Clients up to 1.x keep what a failed download brought as ``*.incomplete`` in their cache, to go on from there.
    """
    import huggingface_hub

    resumes = int(huggingface_hub.__version__.partition(".")[0]) < 2
    kept = (".lock", ".incomplete") if resumes else (".lock",)

    def files(*folders: Path) -> list[str]:
        own = ("CACHEDIR.TAG", ".gitignore", "version.txt")
        return sorted(
            str(path.relative_to(folder))
            for folder in folders
            for path in folder.rglob("*")
            if not path.is_dir() and path.suffix not in kept and path.name not in own and "refs" not in path.parts
        )

    return files


@pytest.fixture(params=["cache", "download_dir"])
def place(request, tmp_path):
    """Both places a download can go to, as arguments of ``resolve``."""
    return {} if request.param == "cache" else {"download_dir": tmp_path / "models"}
