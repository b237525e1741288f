"""Downloads that are refused, from a Hub on this machine and by clients that are not installed here: what is said."""

import os
import re
import shutil
import socket
import sys
from pathlib import Path

import huggingface_hub
import pytest

from birefnet_core.checkpoints.hub import HubFile
from birefnet_core.checkpoints.hub_errors import explain, explained
from birefnet_core.checkpoints.resolve import resolve
from birefnet_core.errors import CheckpointError

REPO = "ZhengPeng7/BiRefNet"
as_user = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read and write anything")


@pytest.mark.parametrize("etag", ["../../../escaped", "/tmp/escaped", "..", "a\\..\\b"])
@pytest.mark.parametrize("what", ["etag", "commit"])
def test_hashes_that_lead_out_of_the_cache_are_refused(hub, cache, tmp_path, place, left_behind, what, etag):
    hub.add(REPO, **({"etag": etag} if what == "etag" else {"revisions": {"main": [etag]}}))
    with pytest.raises(CheckpointError, match="not as a Hugging Face Hub does"):
        resolve("BiRefNet", **place)
    assert left_behind(tmp_path) == []


def set_endpoint(monkeypatch, url):
    from huggingface_hub import constants, file_download

    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # up to 0.25


def test_gated_repository_names_the_licence_page_and_the_mirror(hub, place):
    hub.add("briaai/RMBG-2.0", gated=True)
    with pytest.raises(CheckpointError, match="is gated") as caught:
        resolve("RMBG-2.0", **place)
    for part in (f"{hub.url}/briaai/RMBG-2.0", "licence", "HF_TOKEN", "1038lab/RMBG-2.0"):
        assert part in str(caught.value)


def test_gated_mirror_is_not_recommended_for_itself(hub):
    hub.add("1038lab/RMBG-2.0", gated=True)
    with pytest.raises(CheckpointError, match=r"is gated.*that account\.$"):
        resolve("1038lab/RMBG-2.0")


def test_missing_repository_suggests_near_names(hub):
    with pytest.raises(CheckpointError, match=r"no repository ZhengPeng7/BiRefNet_light at .* BiRefNet_lite"):
        resolve("ZhengPeng7/BiRefNet_light")


def test_unknown_revision_is_told(hub):
    hub.add(REPO)
    with pytest.raises(CheckpointError, match=r"ZhengPeng7/BiRefNet at .* has no revision 'v9'"):
        resolve("BiRefNet@v9")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "HF_TOKEN"),
        (403, "HF_TOKEN"),
        (404, "HF_ENDPOINT"),
        (407, "proxy"),
        (429, "wait"),
        (500, "later"),
        (503, "later"),
    ],
)
def test_other_answers_are_told_with_advice(hub, status, advice):
    hub.add(REPO, status=status)
    with pytest.raises(CheckpointError, match=f"answered HTTP {status} .*{advice}"):
        resolve("BiRefNet")


def test_server_that_is_no_hub_is_told(hub):
    hub.add(REPO, hub_headers=False)
    with pytest.raises(CheckpointError, match=r"not as a Hugging Face Hub does.*HF_ENDPOINT"):
        resolve("BiRefNet")


@pytest.mark.parametrize("source", ["BiRefNet", "toonout", "someone/unknown"])
def test_no_network_is_told_at_once(hub, monkeypatch, source):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    set_endpoint(monkeypatch, url)
    with pytest.raises(CheckpointError, match=f"Hub at {url} could not be reached"):
        resolve(source)
    retries = huggingface_hub.__version__.startswith("0.3")  # its later versions do so for half a minute
    assert sum(hub.pauses) < (30 if retries else 5)  # seconds the client would have waited between attempts


def test_endpoint_that_is_no_address_is_told(hub, monkeypatch):
    set_endpoint(monkeypatch, "not an address")
    with pytest.raises(CheckpointError, match="HF_ENDPOINT"):
        resolve("BiRefNet")


def test_invalid_repository_id_is_told(hub):
    with pytest.raises(CheckpointError, match=r"'a--b/c..d' is not a repository id .* Expected 'owner/name'"):
        resolve("a--b/c..d")


def test_full_disk_is_told_before_downloading(hub, cache, monkeypatch, place, tmp_path, left_behind):
    hub.add(REPO)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match=r"Not enough disk space at .* needed, .* free") as caught:
        resolve("BiRefNet", **place)
    assert str(place.get("download_dir", cache)) in str(caught.value)
    assert {method for method, _, _ in hub.requests} == {"HEAD"}
    assert left_behind(cache, tmp_path / "models") == []


def test_disk_that_fills_up_meanwhile_is_told(hub, cache, monkeypatch, place, tmp_path, left_behind):
    from huggingface_hub import file_download

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    hub.add(REPO)
    with pytest.raises(CheckpointError, match="Not enough disk space"):
        resolve("BiRefNet", **place)
    assert left_behind(cache, tmp_path / "models") == []


def test_folder_that_is_a_file_is_told(hub, tmp_path):
    hub.add(REPO)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"cannot hold model.safetensors.*download_dir"):
        resolve("BiRefNet", download_dir=tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"cannot hold model.safetensors.*HF_HUB_CACHE"):
        resolve("BiRefNet", cache_dir=tmp_path / "file")


def test_folder_without_write_permission_is_told(hub, monkeypatch, tmp_path):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    hub.add(REPO)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CheckpointError, match=f"No permission to write to {tmp_path}"):
        resolve("BiRefNet", download_dir=tmp_path / "models")


@as_user
def test_cache_without_write_permission_is_told(hub, cache):
    hub.add(REPO)
    cache.mkdir(mode=0o500)
    with pytest.raises(CheckpointError, match="No permission to write"):
        resolve("BiRefNet")


# Exceptions of clients that are not installed here


def _exception(module: str, name: str, text: str = "details", base: type[Exception] = Exception) -> Exception:
    return type(name, (base,), {"__module__": module})(text)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_exception("requests.exceptions", "ConnectTimeout", base=OSError), "could not be reached"),
        (_exception("httpx", "ConnectError"), "could not be reached"),
        (_exception("httpx2._exceptions", "ReadTimeout"), "could not be reached"),
        (_exception("urllib3.exceptions", "ProtocolError"), "could not be reached"),
        (ConnectionResetError(104, "reset by peer"), "could not be reached"),
        (RuntimeError("Data processing error: No space left on device (os error 28)"), "Not enough disk space"),
        (PermissionError(13, "Permission denied", "/x/y"), "No permission to write to /x/y"),
        (OSError(30, "Read-only file system"), "No permission to write to /target"),
        (OSError("Consistency check failed: file should be of size 2 but has size 1"), "incomplete or corrupted"),
        (RuntimeError("Data processing error: File not found"), "could not be fetched .*RuntimeError: Data processing"),
        (_exception("huggingface_hub.errors", "LaterError"), "could not be fetched .*LaterError: details"),
    ],
)
def test_explain_knows_the_exceptions_of_other_clients(error, message):
    wanted = HubFile(repo=REPO, folder=Path("/target"))
    assert re.search(message, str(explain(error, wanted.fields)))


def test_certificates_that_are_not_there_are_told(monkeypatch, tmp_path):
    error = FileNotFoundError(2, "No such file or directory")  # of ssl.create_default_context
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    fields = HubFile(repo=REPO).fields
    assert "cannot hold" in str(explain(error, fields))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path))
    assert "SSL_CERT_FILE is" in str(explain(IsADirectoryError(21, "Is a directory"), fields))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "corporate.pem"))
    assert re.search(r"SSL_CERT_FILE is '.*corporate.pem', and there is no such file", str(explain(error, fields)))


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "socks://127.0.0.1:1080/", "ftp://127.0.0.1:21"])
def test_proxies_that_the_client_cannot_use_are_told(hub, monkeypatch, proxy):
    monkeypatch.setitem(sys.modules, "socksio", None)  # as where it is not installed
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("ALL_PROXY", proxy)
    hub.close_session()
    with pytest.raises(CheckpointError, match=r"(?i)proxy"):
        resolve("BiRefNet")


def test_token_that_is_none_is_told(hub):
    with pytest.raises(CheckpointError, match=r"access token .* that no token has .*Copy it anew into HF_TOKEN"):
        resolve("BiRefNet", token="hf_abc\N{HORIZONTAL ELLIPSIS}")


def test_explain_looks_for_the_cause():
    from huggingface_hub.utils import LocalEntryNotFoundError

    error = LocalEntryNotFoundError("cannot find the requested files in the local cache")
    error.__cause__ = _exception("httpx", "ConnectError")
    assert "could not be reached" in str(explain(error, HubFile(repo=REPO).fields))


def test_explain_tells_a_blocked_connection_from_a_protected_folder():
    error = _exception("httpx", "ConnectError")
    error.__cause__ = PermissionError(1, "Operation not permitted")  # a firewall refuses connect() like this
    assert "could not be reached" in str(explain(error, HubFile(repo=REPO, revision="v1").fields))


@pytest.mark.parametrize("error", [TypeError("a mistake"), RuntimeError("another"), KeyError("file")])
def test_mistakes_of_a_program_are_not_taken_for_the_hubs(error):
    with pytest.raises(type(error)) as caught, explained(HubFile(repo=REPO).fields):
        try:
            raise ConnectionError("reset by peer")
        except ConnectionError:
            raise error from None
    assert caught.value is error
