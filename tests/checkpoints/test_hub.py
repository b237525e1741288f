"""Downloads with the real client from a Hub on this machine: what arrives, what is left behind."""

import os
import sys
import time

import pytest

from birefnet_core.checkpoints.resolve import resolve
from birefnet_core.checkpoints.weight_names import pick_weights
from birefnet_core.errors import CheckpointError

REPO = "ZhengPeng7/BiRefNet"
CONTENT = b"w" * 5000
COMMIT, NEWER = "a" * 40, "b" * 40


# What arrives


def test_download_arrives_in_the_cache_and_is_not_asked_for_again(hub, cache, monkeypatch):
    hub.add(REPO)
    first = resolve("BiRefNet")
    assert first.path.read_bytes() == CONTENT and first.path.is_relative_to(cache)
    assert (first.repo, first.revision, first.entry.name) == (REPO, COMMIT, "BiRefNet")
    hub.requests.clear()
    assert resolve(REPO) == first
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve("BiRefNet") == first
    assert hub.requests == []


@pytest.mark.parametrize("at_once", [False, True])
def test_without_links_the_file_itself_is_in_the_snapshot(hub, cache, monkeypatch, at_once):
    def refuse(blob, link):
        if at_once:  # another process has come so far as to move the file
            blob = link.parent / blob
            blob.replace(link.with_name("model.safetensors"))
        raise OSError(1314, "A required privilege is not held by the client")

    hub.add(REPO)
    monkeypatch.setattr(os, "symlink", refuse)
    found = resolve(REPO)
    assert found.path.read_bytes() == CONTENT
    assert not found.path.is_symlink()
    assert [path for path in cache.rglob("*") if path.is_file() and path.parent.name != "refs"] == [found.path]


@pytest.mark.parametrize("content", [CONTENT, CONTENT[:-1]])
def test_a_file_that_another_process_has_open_is_taken_where_it_is_whole(hub, place, monkeypatch, content):
    replace, calls = os.replace, []

    def refuse(part, target):
        calls.append(part)
        if len(calls) > 1:
            return replace(part, target)
        with open(target, "wb") as file:
            file.write(content)
        raise PermissionError(13, "Access is denied", str(target))  # as of Windows

    hub.add(REPO)
    monkeypatch.setattr(os, "replace", refuse)
    if content == CONTENT:
        assert resolve("BiRefNet", **place).path.read_bytes() == CONTENT
    else:
        with pytest.raises(CheckpointError, match="No permission to write"):
            resolve("BiRefNet", **place)


def test_download_dir_gets_the_file_and_nothing_else(hub, cache, tmp_path):
    hub.add(REPO)
    folder = tmp_path / "models"
    first = resolve("birefnet", download_dir=folder)
    assert first.path == folder / "BiRefNet" / "model.safetensors" and first.path.read_bytes() == CONTENT
    assert (first.repo, first.revision) == (REPO, COMMIT)
    assert [path for path in folder.rglob("*") if path.is_file()] == [first.path]
    assert sorted(folder.rglob(".*")) == []
    hub.requests.clear()
    assert resolve("BiRefNet", download_dir=folder).path == first.path
    assert resolve("BiRefNet", folders=[folder]).path == first.path
    assert hub.requests == []


def test_cached_file_is_not_copied_to_download_dir(hub, tmp_path):
    hub.add(REPO)
    first = resolve("BiRefNet")
    hub.requests.clear()
    assert resolve("BiRefNet", download_dir=tmp_path / "models") == first
    assert hub.requests == [] and not (tmp_path / "models").exists()


def test_unknown_repository_is_kept_under_both_its_names(hub, tmp_path):
    hub.add("someone/BiRefNet")
    resolved = resolve("someone/BiRefNet", download_dir=tmp_path)
    assert resolved.path == tmp_path / "someone--BiRefNet" / "model.safetensors"
    assert resolved.entry is None and resolved.repo == "someone/BiRefNet"
    hub.requests.clear()
    assert resolve("someone/BiRefNet", folders=[tmp_path]).path == resolved.path
    assert hub.requests == []


def test_revisions_are_kept_apart(hub, place):
    hub.add(REPO, revisions={"main": [COMMIT], "refs/pr/1": [NEWER]})
    main = resolve("BiRefNet", **place)
    other = resolve("BiRefNet@refs/pr/1", **place)
    assert (main.revision, other.revision) == (COMMIT, NEWER) and main.path != other.path
    hub.requests.clear()
    assert resolve("BiRefNet@refs/pr/1", **place).path == other.path
    assert resolve("BiRefNet", **place).path == main.path
    assert hub.requests == []


def test_mirror_is_downloaded_from_when_named(hub):
    hub.add("1038lab/RMBG-2.0")
    resolved = resolve("1038lab/rmbg-2.0")
    assert (resolved.repo, resolved.entry.name) == ("1038lab/RMBG-2.0", "RMBG-2.0")


@pytest.mark.parametrize("kind", [{"redirect": True}, {"lfs": False}])
def test_files_of_any_storage_arrive(hub, place, kind):
    hub.add(REPO, **kind)
    assert resolve("BiRefNet", **place).path.read_bytes() == CONTENT


def test_branch_that_moves_meanwhile_gives_one_commit(hub):
    hub.add(REPO, revisions={"main": [COMMIT, NEWER], COMMIT: [COMMIT]})
    resolved = resolve("BiRefNet")
    assert resolved.revision == COMMIT == resolved.path.parent.name


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_token_reaches_the_hub(hub, monkeypatch, how):
    hub.add("briaai/RMBG-2.0", gated=True)
    monkeypatch.setenv("HF_TOKEN", hub.good_token if how == "environment" else "hf_wrong")
    assert resolve("RMBG-2.0", token=hub.good_token if how == "argument" else None).path.is_file()
    assert {authorization for _, _, authorization in hub.requests} == {f"Bearer {hub.good_token}"}


def test_file_that_moved_in_its_repository_is_found(hub, place):
    hub.add(REPO, {"README.md": b"", "weights/model.safetensors": CONTENT, "weights/other.safetensors": b""})
    assert resolve("BiRefNet", **place).path.read_bytes() == CONTENT
    hub.requests.clear()
    assert resolve("BiRefNet", **place).path.name == "model.safetensors"
    assert hub.requests == []


def test_repository_without_an_obvious_file_lists_what_it_holds(hub):
    hub.add("a/several", {"a.safetensors": b"", "b.safetensors": b"", "config.json": b""})
    with pytest.raises(CheckpointError, match=r"several weight files \(a.safetensors, b.safetensors\)"):
        resolve("a/several")
    hub.add("a/none", {"config.json": b""})
    with pytest.raises(CheckpointError, match="a/none holds no weights among 1 files"):
        resolve("a/none")


@pytest.mark.parametrize("listing", [b"{not json", b"null", b'[{"size": 3}]', b"3"])
def test_listing_that_is_none_is_told(hub, listing):
    hub.add("a/none", {"config.json": b""}, listing=listing)
    with pytest.raises(CheckpointError, match="not as a Hugging Face Hub does"):
        resolve("a/none")


@pytest.mark.parametrize(
    ("names", "preferred", "chosen"),
    [
        (["x/a.pth", "model.safetensors"], "x/a.pth", "x/a.pth"),
        (["y/a.pth", "model.safetensors"], "x/a.pth", "y/a.pth"),
        (["y/a.pth", "z/a.pth", "model.safetensors"], "x/a.pth", "model.safetensors"),
        (["onnx/model.safetensors", "model.safetensors"], "model.safetensors", "model.safetensors"),
        (["a/model.safetensors", "b/model.safetensors"], "model.safetensors", None),
        (["only.safetensors", "a.pth", "b.pth"], "model.safetensors", "only.safetensors"),
        (["only.pth", "model.onnx", "optimizer.bin"], "model.safetensors", "only.pth"),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "model.safetensors", None),
        (["pytorch_model.bin"], "model.safetensors", "pytorch_model.bin"),
        (["../../model.safetensors", "a/../../b.pth"], "model.safetensors", None),
        ([], "model.safetensors", None),
    ],
)
def test_pick_weights_takes_the_obvious_one(names, preferred, chosen):
    assert pick_weights(names, preferred) == chosen


# Progress


def test_progress_goes_from_nothing_to_everything(hub, place):
    hub.add(REPO)
    calls = []
    resolve("BiRefNet", progress=lambda done, total: calls.append((done, total)), **place)
    assert calls[0] == (0, 5000) and calls[-1] == (5000, 5000)
    assert calls == sorted(set(calls))
    assert len(calls) > 4  # chunks of 1024


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt(), OSError("stop"), CheckpointError("stop")])
def test_exception_of_the_callback_ends_the_download_and_comes_through(hub, cache, tmp_path, place, left_behind, error):
    def stop(done, total):
        if done:
            raise error

    hub.add(REPO)
    with pytest.raises(type(error)) as caught:
        resolve("BiRefNet", progress=stop, **place)
    assert caught.value is error
    assert left_behind(cache, tmp_path / "models") == []


# What is left behind


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("short", "incomplete or corrupted"),
        ("corrupt", "incomplete or corrupted .*SHA-256"),
        ("cut", "incomplete or corrupted|connection broke off"),
    ],
)
def test_bad_download_is_refused_and_leaves_nothing(hub, cache, tmp_path, place, left_behind, fault, message):
    repo = hub.add(REPO, fault=fault)
    with pytest.raises(CheckpointError, match=message) as caught:
        resolve("BiRefNet", **place)
    assert REPO in str(caught.value) and "model.safetensors" in str(caught.value)
    assert left_behind(cache, tmp_path / "models") == []
    assert not (tmp_path / "models" / "BiRefNet").exists()
    repo.fault = None
    assert resolve("BiRefNet", **place).path.read_bytes() == CONTENT


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to threads")
def test_interrupted_download_leaves_nothing(hub, cache, tmp_path, place, left_behind):
    hub.add(REPO, {"model.safetensors": b"w" * 4_000_000}, fault="interrupt")
    with pytest.raises(KeyboardInterrupt):
        resolve("BiRefNet", **place)
    assert left_behind(cache, tmp_path / "models") == []


def test_silent_server_is_told_and_leaves_nothing(hub, cache, tmp_path, place, left_behind, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.add(REPO, fault="stall")
    with pytest.raises(CheckpointError, match="connection broke off"):
        resolve("BiRefNet", **place)
    assert left_behind(cache, tmp_path / "models") == []


def test_bad_download_does_not_replace_a_file_of_another_revision(hub, cache):
    repo = hub.add(REPO, revisions={"main": [COMMIT]})
    good = resolve("BiRefNet").path
    repo.revisions["v2"] = [NEWER]
    repo.files = {"model.safetensors": b"v" * 5000}
    repo.fault = "corrupt"
    with pytest.raises(CheckpointError, match="SHA-256"):
        resolve("BiRefNet@v2")
    assert good.read_bytes() == CONTENT


def test_incomplete_files_of_others_stay(hub, cache):
    hub.add(REPO, fault="short")
    blobs = cache / "models--ZhengPeng7--BiRefNet" / "blobs"
    blobs.mkdir(parents=True)
    theirs = blobs / "0123.incomplete"
    theirs.write_bytes(b"half")
    with pytest.raises(CheckpointError):
        resolve("BiRefNet")
    assert theirs.read_bytes() == b"half"


def test_leftovers_of_killed_downloads_go_and_running_ones_stay(hub, tmp_path):
    hub.add(REPO)
    folder = tmp_path / "BiRefNet"
    for name, age in (("killed", 7200), ("running", 60)):
        staging = folder / f".download-{name}"
        staging.mkdir(parents=True)
        (staging / "half").write_bytes(b"half")
        then = time.time() - age
        for path in (staging / "half", staging):
            os.utime(path, (then, then))
    resolve("BiRefNet", download_dir=tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [".download-running", "model.safetensors"]
