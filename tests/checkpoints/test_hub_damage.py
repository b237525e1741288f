"""Downloads from servers that misbehave, into caches that are damaged, and after processes that were killed."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest

import birefnet_core
from birefnet_core.checkpoints.resolve import resolve
from birefnet_core.checkpoints.weight_names import pick_weights
from birefnet_core.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
REPO = "ZhengPeng7/BiRefNet"
CONTENT = b"w" * 5000


# Servers that would have a download never end, or half a file taken for the whole


def test_server_that_begins_anew_and_stalls_is_left(hub, cache, tmp_path, place, left_behind, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr("birefnet_core.checkpoints.hub._STALL_TIMEOUT", 1)
    hub.add(REPO, fault="anew")
    words = r"connection broke off.*began anew and sent nothing new"
    if huggingface_hub.__version__.startswith("0.25."):  # puts what comes anew behind what it has
        words = r"bytes and more of 5000"
    with pytest.raises(CheckpointError, match=words):
        resolve("BiRefNet", **place)
    assert left_behind(cache, tmp_path / "models") == []


def test_file_without_an_end_is_refused(hub, cache, tmp_path, place, left_behind, monkeypatch):
    monkeypatch.setattr("birefnet_core.checkpoints.hub._MOST_BYTES", 2**20)
    hub.add(REPO, {"model.safetensors": b"w" * 100_000}, fault="endless")
    with pytest.raises(CheckpointError, match=r"incomplete or corrupted .* bytes and more"):
        resolve("BiRefNet", **place)
    assert left_behind(cache, tmp_path / "models") == []


def test_server_that_sends_next_to_nothing_is_left(hub, cache, tmp_path, place, left_behind, monkeypatch):
    monkeypatch.setattr("birefnet_core.checkpoints.hub._SILENCE", 0.4)
    hub.add(REPO, fault="drip")
    with pytest.raises(CheckpointError, match=r"broke off.*nothing, or next to nothing, came for 0\.4 seconds"):
        resolve("BiRefNet", **place)
    assert left_behind(cache, tmp_path / "models") == []


def test_list_of_files_without_an_end_is_left(hub, monkeypatch):
    monkeypatch.setattr("birefnet_core.checkpoints.hub._MOST_FILES", 50)
    hub.add("a/odd", {"readme.md": b"", "config.json": b""}, pages=True)
    with pytest.raises(CheckpointError, match="no weights among 50 files"):
        resolve("a/odd")


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (b"[" * 200_000, "not as a Hugging Face Hub does"),
        (b'[{"type": "file", "path": 3, "size": 1, "oid": "0"}]', "no weights among 0 files"),
        (b'[{"type": "file", "path": null, "size": 1, "oid": "0"}]', "no weights among 0 files"),
        (b'[{"type": "file", "path": "a\\ud800.safetensors", "size": 1, "oid": "0"}]', "no weights among 1 files"),
        (b'[{"type": "directory", "path": "a.safetensors", "oid": "0"}]', "no weights among 0 files"),
    ],
)
def test_lists_of_files_that_are_none_are_refused(hub, listing, words):
    hub.add("a/odd", {}, listing=listing)
    with pytest.raises(CheckpointError, match=words):
        resolve("a/odd")


def test_commit_of_other_letters_is_refused_before_anything_is_written(hub, cache, left_behind):
    hub.add(REPO, revisions={"main": ["caf\xe9"]})
    with pytest.raises(CheckpointError, match="not as a Hugging Face Hub does"):
        resolve("BiRefNet")
    assert left_behind(cache) == []


@pytest.mark.parametrize("lfs", [True, False])
def test_half_a_file_without_a_length_is_refused(hub, cache, tmp_path, place, left_behind, lfs):
    hub.add(REPO, lfs=lfs, fault="no length")
    words = "incomplete or corrupted .*SHA-256" if lfs else "neither size nor SHA-256 of model.safetensors"
    with pytest.raises(CheckpointError, match=words):
        resolve("BiRefNet", **place)
    assert left_behind(cache, tmp_path / "models") == []


def test_hash_that_leads_out_of_the_cache_at_a_later_request_is_not_used(hub, cache, tmp_path, place, left_behind):
    repo = hub.add(REPO)
    repo.later_etag = "../../../../escaped"
    path = resolve("BiRefNet", **place).path
    assert path.read_bytes() == CONTENT
    assert not [file for file in left_behind(tmp_path) if "escaped" in file]


def test_names_that_lead_out_of_the_folder_or_the_line_are_not_weights(hub):
    names = ["../x.safetensors", "/tmp/x.safetensors", "a\\..\\..\\x.pth", "x\x1b[31m\n.safetensors", "a/../../b.pth"]
    assert [pick_weights([name]) for name in names] == [None] * len(names)
    hub.add("a/odd", dict.fromkeys(names, b""))
    with pytest.raises(CheckpointError, match="no weights among 5 files"):
        resolve("a/odd")


# A damaged cache


def cut(folder):
    (blob,) = (folder / "blobs").iterdir()
    blob.write_bytes(blob.read_bytes()[:100])


def make_loop(folder):
    (blob,) = (folder / "blobs").iterdir()
    blob.unlink()
    blob.symlink_to(blob)


def replace_by_file(folder):
    shutil.rmtree(folder)
    folder.write_bytes(b"")


DAMAGE = {
    "empty reference": lambda folder: (folder / "refs" / "main").write_bytes(b""),
    "binary reference": lambda folder: (folder / "refs" / "main").write_bytes(b"\xff\xfe\0\x80" * 9),
    "reference that leads elsewhere": lambda folder: (folder / "refs" / "main").write_bytes(b"../../.."),
    "reference that is a folder": lambda folder: [(folder / "refs" / "main").unlink(), (folder / "refs/main").mkdir()],
    "no references": lambda folder: shutil.rmtree(folder / "refs"),
    "references that are a file": lambda folder: replace_by_file(folder / "refs"),
    "no blob": lambda folder: [blob.unlink() for blob in (folder / "blobs").iterdir()],
    "blob that leads to itself": make_loop,
    "blobs that are a file": lambda folder: replace_by_file(folder / "blobs"),
    "snapshots that are a file": lambda folder: replace_by_file(folder / "snapshots"),
}


@pytest.mark.skipif(os.name == "nt", reason="no links")
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_cache_heals(hub, cache, damage):
    hub.add(REPO)
    good = resolve("BiRefNet")
    DAMAGE[damage](cache / "models--ZhengPeng7--BiRefNet")
    with pytest.raises(CheckpointError, match="not on this disk"):
        resolve("BiRefNet", local_only=True)
    assert resolve("BiRefNet").path.read_bytes() == CONTENT
    assert resolve("BiRefNet", local_only=True) == good


@pytest.fixture(scope="module")
def whole(filled, tmp_path_factory):
    """The bytes of a checkpoint."""
    model = birefnet_core.model_from_state_dict(filled("smallest"))
    return birefnet_core.save_checkpoint(model, tmp_path_factory.mktemp("whole") / "x.safetensors").read_bytes()


@pytest.mark.parametrize("change", [lambda data: data[:-9], lambda data: b"?" + data[1:], lambda data: b""])
def test_damaged_file_in_the_cache_is_downloaded_anew(hub, cache, whole, change):
    hub.add(REPO, {"model.safetensors": whole})
    blob = resolve("BiRefNet").path.resolve()
    blob.write_bytes(change(whole))
    hub.requests.clear()
    birefnet_core.load_model("BiRefNet")
    assert hub.requests and resolve("BiRefNet").path.read_bytes() == whole


@pytest.fixture
def no_links(monkeypatch):
    """As on Windows without developer mode."""

    def refuse(*args, **options):
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refuse)


def test_damaged_file_in_a_cache_without_links_is_downloaded_anew(hub, no_links, whole):
    hub.add(REPO, {"deep/er/model.safetensors": whole})
    path = resolve("BiRefNet").path
    path.write_bytes(whole[:-9])
    birefnet_core.load_model("BiRefNet")
    assert path.read_bytes() == whole and not path.is_symlink()


@pytest.mark.parametrize("fault", ["status", "offline"])
def test_damaged_file_in_a_cache_without_links_is_named_where_the_hub_is_out_of_reach(
    hub, no_links, monkeypatch, fault
):
    repo = hub.add(REPO)
    path = resolve("BiRefNet").path
    path.write_bytes(b"\0" * 5000)
    if fault == "status":
        repo.status = 500
    else:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        hub.close_session()
    with pytest.raises(CheckpointError, match=r"holds zeros in place of weights.*Delete it and download it again"):
        birefnet_core.load_model("BiRefNet")
    assert path.exists()


def test_file_without_links_that_is_what_the_hub_has_is_not_downloaded_anew(hub, no_links):
    hub.add(REPO, {"model.safetensors": b"no weights at all"})
    with pytest.raises(CheckpointError, match="but text that begins with 'no weights at all'"):
        birefnet_core.load_model("BiRefNet")
    assert [method for method, *_ in hub.requests].count("GET") == 1


def test_damaged_file_in_a_cache_that_only_others_may_change_is_named(hub, monkeypatch):
    hub.add(REPO)
    path = resolve("BiRefNet").path
    path.resolve().write_bytes(b"\0" * 5000)

    def refuse(self, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    hub.requests.clear()
    with pytest.raises(CheckpointError, match=r"holds zeros in place of weights.*Delete it and download it again"):
        birefnet_core.load_model("BiRefNet")
    assert path.exists() and hub.requests == []


def test_file_that_is_what_the_hub_has_is_not_downloaded_anew(hub):
    hub.add(REPO, {"model.safetensors": b"no weights at all"})
    resolve("BiRefNet")
    hub.requests.clear()
    with pytest.raises(CheckpointError, match="but text that begins with 'no weights at all'"):
        birefnet_core.load_model("BiRefNet")
    assert hub.requests == []


# What killed processes leave


def test_incomplete_files_of_killed_clients_go_and_running_ones_stay(hub, cache):
    hub.add(REPO)
    blobs = cache / "models--ZhengPeng7--BiRefNet" / "blobs"
    blobs.mkdir(parents=True)
    digest = hashlib.sha256(CONTENT).hexdigest()
    for name, age in ((digest, 7200), (f"{digest}.0123abcd", 7200), (f"{digest}.4567abcd", 60), ("another", 7200)):
        path = blobs / f"{name}.incomplete"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    resolve("BiRefNet")
    left = sorted(path.name for path in blobs.glob("*.incomplete"))
    assert left == sorted([f"{digest}.4567abcd.incomplete", "another.incomplete"])


KILLED = """
import os, sys
from birefnet_core.checkpoints.resolve import resolve
from huggingface_hub import file_download

def die(url, file, **options):
    file.write(b"half")
    file.flush()
    os._exit(9)

file_download.http_get = die
resolve("BiRefNet", **eval(sys.argv[1]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no file that is open")
def test_part_file_of_a_killed_download_goes_with_the_next(hub, cache, tmp_path, place):
    hub.add(REPO)
    arguments = {name: str(folder) for name, folder in (place or {"cache_dir": cache}).items()}
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    run = subprocess.run([sys.executable, "-c", KILLED, repr(arguments)], env=environment, cwd=ROOT)
    parts = [path for folder in (cache, tmp_path / "models") for path in folder.rglob("*.part")]
    assert run.returncode == 9 and len(parts) == 1
    resolve("BiRefNet", **place)
    assert not parts[0].exists()
