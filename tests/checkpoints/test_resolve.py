"""Names and paths to files. Whatever lies on this disk is found without a single request: ``hub`` counts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import birefnet_core
from birefnet_core.checkpoints.catalogue import find_published
from birefnet_core.checkpoints.resolve import present_locally, resolve
from birefnet_core.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
COMMIT, NEWER = "a" * 40, "b" * 40
as_user = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read and write anything")


def put(path: Path, content: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_in_cache(cache: Path, repo: str, file: str = "model.safetensors", revision: str = "main") -> Path:
    folder = cache / f"models--{repo.replace('/', '--')}"
    put(folder / "refs" / revision, COMMIT.encode())
    return put(folder / "snapshots" / COMMIT / file)


# Paths


def test_existing_file_is_returned_without_network(hub, tmp_path):
    path = put(tmp_path / "BiRefNet_lite.safetensors")
    for source in (path, str(path), f" {path} "):
        resolved = resolve(source)
        assert (resolved.path, resolved.repo, resolved.revision) == (path, None, None)
        assert resolved.entry.name == "BiRefNet_lite"
    assert hub.requests == []


def test_existing_file_of_unknown_name_has_no_entry(hub, tmp_path):
    assert resolve(put(tmp_path / "BiRefNet" / "mine.safetensors")).entry is None


def test_home_is_expanded(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = put(tmp_path / "mine.pth")
    assert resolve("~/mine.pth").path == path


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors"], "model.safetensors"),
        (["model.safetensors", "other.safetensors", "model.pth"], "model.safetensors"),
        (["mine.safetensors", "config.json", "epoch_1.pth"], "mine.safetensors"),
        (["epoch_100.pth", "log.txt"], "epoch_100.pth"),
        (["EPOCH_100.PT"], "EPOCH_100.PT"),
        (["mine.safetensors", "._mine.safetensors"], "mine.safetensors"),
    ],
)
def test_folder_gives_its_one_weight_file(hub, tmp_path, names, chosen):
    for name in names:
        put(tmp_path / "run" / name)
    assert resolve(tmp_path / "run").path == tmp_path / "run" / chosen
    assert hub.requests == []


@pytest.mark.parametrize("names", [["a.safetensors", "b.safetensors"], ["a.pth", "b.pt"]])
def test_folder_with_several_weight_files_lists_them(hub, tmp_path, names):
    for name in names:
        put(tmp_path / "run" / name)
    with pytest.raises(CheckpointError, match="several weight files") as caught:
        resolve(str(tmp_path / "run"))
    assert all(name in str(caught.value) for name in (*names, str(tmp_path / "run")))


def test_folder_without_weights_tells_what_it_holds(hub, tmp_path):
    put(tmp_path / "run" / "config.json")
    with pytest.raises(CheckpointError, match=r"holds no weights. Found: config.json. Expected model.safetensors"):
        resolve(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="Found: nothing"):
        resolve(tmp_path / "empty")


@as_user
def test_unreadable_folder_is_told(hub, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0)
    with pytest.raises(CheckpointError, match="cannot be read"):
        resolve(folder)


def test_unreadable_folder_is_told_to_root_too(hub, tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(CheckpointError, match="cannot be read"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "nowhere/model.safetensors",
        "mine.pth",
        "./BiRefNet_lite",
        "/models/BiRefNet_lite",
        "a/b/c",
        "~/weights",
        r"C:\models\mine.safetensors",
        "C:/models/mine",
        Path("BiRefNet_lite"),
        Path("owner") / "name",
        "/models/mine@2.safetensors",
    ],
)
def test_missing_path_is_not_taken_for_a_repository(hub, source):
    with pytest.raises(CheckpointError, match="There is no file or folder"):
        resolve(source)
    assert hub.requests == []


def test_missing_file_of_a_known_name_suggests_the_name(hub, tmp_path):
    with pytest.raises(CheckpointError, match=r"BiRefNet_lite.safetensors. Did you mean 'BiRefNet_lite'"):
        resolve(tmp_path / "BiRefNet_lite.safetensors")


@pytest.mark.parametrize("source", ["", "  ", None, 3, b"BiRefNet", ["BiRefNet"], "a\0b"])
def test_source_of_the_wrong_kind_is_refused(hub, source):
    with pytest.raises(CheckpointError, match=r"source=.*Expected the path of a weight file"):
        resolve(source)


# Names


def test_unknown_name_suggests_the_nearest(hub):
    with pytest.raises(CheckpointError, match=r"'birefnet_lit' is neither .* Did you mean 'BiRefNet_lite'"):
        resolve("birefnet_lit")
    with pytest.raises(CheckpointError, match=r"'https://.*' is an address.*'BiRefNet_lite'.*'owner/name'"):
        resolve("https://huggingface.co/ZhengPeng7/BiRefNet_lite")
    assert hub.requests == []


def test_unknown_name_without_a_near_one_lists_some(hub):
    with pytest.raises(CheckpointError, match=r"Expected .* a name such as BiRefNet, BiRefNet_HR"):
        resolve("xyz")


@pytest.mark.parametrize("source", ["BiRefNet@", "owner/name@"])
def test_empty_revision_is_refused(hub, source):
    with pytest.raises(CheckpointError, match="ends in '@'"):
        resolve(source)
    assert hub.requests == []


@pytest.mark.parametrize("source", ["BiRefNet-DIS_ep580", "BiRefNet-ep480", "ViperYX/BiRefNet"])
def test_older_generation_is_refused_before_it_is_downloaded(hub, source):
    with pytest.raises(CheckpointError, match=r"older network .* cannot be loaded.* takes? their place"):
        resolve(source)
    assert hub.requests == []


@pytest.mark.parametrize(
    "file",
    [
        "BiRefNet_lite.safetensors",
        "BiRefNet_lite.pth",
        "birefnet_LITE.safetensors",
        "BiRefNet_lite/model.safetensors",
        "birefnet_lite/weights.pth",
    ],
)
@pytest.mark.parametrize("source", ["BiRefNet_lite", "birefnet_lite", "ZhengPeng7/BiRefNet_lite"])
def test_name_is_found_in_a_folder_of_models(hub, cache, tmp_path, file, source):
    put_in_cache(cache, "ZhengPeng7/BiRefNet_lite")  # comes second
    path = put(tmp_path / "models" / file)
    resolved = resolve(source, folders=[tmp_path / "absent", tmp_path / "models"])
    assert resolved.path == path
    assert (resolved.entry.name, resolved.repo) == ("BiRefNet_lite", None)
    assert hub.requests == []


def test_file_with_a_name_of_its_own_is_found_in_a_folder_of_models(hub, tmp_path):
    path = put(tmp_path / "birefnet_finetuned_toonout.pth")
    assert resolve("toonout", folders=[tmp_path]).path == path


def test_files_next_to_a_checkpoint_do_not_hide_it(hub, tmp_path):
    put(tmp_path / "lucida" / "lucida-other.safetensors")
    path = put(tmp_path / "lucida" / "model.safetensors")
    assert resolve("lucida", folders=[tmp_path]).path == path


def test_name_with_several_files_in_its_folder_lists_them(hub, tmp_path):
    put(tmp_path / "BiRefNet_lite" / "a.pth")
    put(tmp_path / "BiRefNet_lite" / "b.pth")
    with pytest.raises(CheckpointError, match=r"several weight files: a.pth, b.pth"):
        resolve("BiRefNet_lite", folders=[tmp_path])
    assert present_locally(find_published("BiRefNet_lite"), [tmp_path]) is None


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("BiRefNet", "BiRefNet/General.safetensors"),
        ("BiRefNet_HR", "BiRefNet/general-hr.pth"),
        ("BiRefNet", "RMBG/BiRefNet/BiRefNet-general.safetensors"),
        ("toonout", "RMBG/BiRefNet/BiRefNet_toonout.safetensors"),
        ("BiRefNet-COD", "rembg/models--ZhengPeng7--BiRefNet-COD/model.safetensors"),
        ("BiRefNet_lite", "any/BiRefNet-general-bb_swin_v1_tiny-epoch_232.pth"),
        ("BiRefNet_lite", "any/BiRefNet_T.safetensors"),
    ],
)
def test_the_file_of_another_pack_or_of_a_release_is_found_by_the_catalogue_s_name(hub, tmp_path, name, file):
    path = put(tmp_path / file)
    folder = path.parents[1] if path.name == "model.safetensors" else path.parent
    found = resolve(name, folders=[folder])
    assert (found.path, found.entry.name) == (path, name)
    assert hub.requests == []


def test_a_folder_of_another_pack_is_not_taken_for_one_checkpoint(hub, tmp_path):
    """models/RMBG/BiRefNet holds many checkpoints; models/RMBG may be a folder of models, too."""
    put(tmp_path / "BiRefNet" / "BiRefNet-HR.safetensors")
    assert present_locally(find_published("BiRefNet"), [tmp_path]) is None
    path = put(tmp_path / "BiRefNet" / "BiRefNet-general.safetensors")
    put(tmp_path / "BiRefNet" / "BiRefNet-portrait.safetensors")
    assert present_locally(find_published("BiRefNet"), [tmp_path]) == path


def test_relative_path_is_found_in_a_folder_of_models(hub, tmp_path):
    path = put(tmp_path / "models" / "run" / "mine.safetensors")
    put(tmp_path / "secret.pth")
    for source in ("run/mine.safetensors", "run"):
        assert resolve(source, folders=[tmp_path / "models"]).path == path
    with pytest.raises(CheckpointError, match="no file or folder"):
        resolve("../secret.pth", folders=[tmp_path / "models"])


@pytest.mark.parametrize("name", ["BiRefNet", "birefnet", "BiRefNet@main"])
def test_catalogue_name_is_never_a_path(hub, cache, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    cached = put_in_cache(cache, "ZhengPeng7/BiRefNet")
    path = put(tmp_path / name / "model.safetensors")  # the clone of some repository, say
    assert resolve(name).path == cached
    for source in (f"./{name}", Path(name), f"{name}/model.safetensors"):
        assert resolve(source).path.absolute() == path


def test_folder_named_like_a_repository_comes_first_if_it_holds_weights(hub, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cached = put_in_cache(cache, "ZhengPeng7/BiRefNet")
    (tmp_path / "ZhengPeng7" / "BiRefNet").mkdir(parents=True)
    assert resolve("ZhengPeng7/BiRefNet").path == cached
    path = put(tmp_path / "ZhengPeng7" / "BiRefNet" / "model.safetensors")
    assert resolve("ZhengPeng7/BiRefNet").path.absolute() == path


@pytest.mark.parametrize("others", [[], ["optimizer.bin"], ["model.safetensors.index.json", "training_args.bin"]])
def test_folder_of_shards_gives_the_first_for_all(hub, tmp_path, others):
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", *others):
        put(tmp_path / "run" / name)
    assert resolve(tmp_path / "run").path.name == "model-00001-of-00002.safetensors"
    put(tmp_path / "run" / "other-00001-of-00001.safetensors")
    with pytest.raises(CheckpointError, match="several weight files"):
        resolve(tmp_path / "run")


@pytest.mark.parametrize("revision", ["../../etc/x", "..", "a/../b", "/etc", "a\nb", "\x1b[31m", "x" * 3000, "a b"])
def test_revisions_that_lead_elsewhere_are_refused(hub, revision):
    with pytest.raises(CheckpointError, match="is no branch, tag or commit"):
        resolve(f"BiRefNet@{revision}")
    assert hub.requests == []


@pytest.mark.parametrize("source", ["~nobody_of_this_name/x.pth", "x" * 5000, "\ud800.pth", "a\nb.pth", "/dev/zero"])
def test_odd_paths_are_told_in_a_line(hub, source):
    with pytest.raises(CheckpointError) as caught:
        birefnet_core.load_model(source)
    assert "\n" not in str(caught.value) and str(caught.value).encode()
    assert hub.requests == []


# The Hub's cache


@pytest.mark.parametrize("source", ["BiRefNet", "ZhengPeng7/BiRefNet", "zhengpeng7/birefnet", f"BiRefNet@{COMMIT}"])
def test_cached_file_is_found_without_network(hub, cache, source):
    path = put_in_cache(cache, "ZhengPeng7/BiRefNet")
    resolved = resolve(source)
    assert (resolved.path, resolved.repo, resolved.revision) == (path, "ZhengPeng7/BiRefNet", COMMIT)
    assert resolved.entry.name == "BiRefNet"
    assert hub.requests == []


def test_cached_file_of_an_unknown_repository_is_found_without_network(hub, cache):
    path = put_in_cache(cache, "someone/tuned", "tuned.safetensors", revision="v2")
    assert resolve("someone/tuned@v2").path == path
    assert hub.requests == []


def test_cached_file_in_a_subfolder_is_found_without_network(hub, cache):
    put_in_cache(cache, "Comfy-Org/BiRefNet", "background_removal/birefnet.safetensors")
    path = put_in_cache(cache, "Comfy-Org/BiRefNet", "background_removal/lucida.safetensors")
    assert resolve("lucida-ComfyOrg").path == path


def test_cached_mirror_serves_the_name_but_not_the_other_repository(hub, cache):
    path = put_in_cache(cache, "1038lab/RMBG-2.0")
    for source in ("RMBG-2.0", "1038lab/RMBG-2.0"):
        resolved = resolve(source)
        assert (resolved.path, resolved.repo, resolved.entry.name) == (path, "1038lab/RMBG-2.0", "RMBG-2.0")
    with pytest.raises(CheckpointError):
        resolve("briaai/RMBG-2.0", local_only=True)
    with pytest.raises(CheckpointError):
        resolve(f"RMBG-2.0@{COMMIT}", local_only=True)  # a commit belongs to one repository
    assert hub.requests == []


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", None])
def test_environment_of_the_client_is_honoured(tmp_path, variable):
    """In a process of its own: the client reads the environment when it is imported."""
    below = {"HF_HUB_CACHE": "x", "HF_HOME": "x/hub", None: "home/.cache/huggingface/hub"}
    path = put_in_cache(tmp_path / below[variable], "ZhengPeng7/BiRefNet")
    theirs = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "TRANSFORMERS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in theirs}
    environment |= {"HOME": str(tmp_path / "home"), "USERPROFILE": str(tmp_path / "home")}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://mirror.example"}
    environment |= {variable: str(tmp_path / "x")} if variable else {}
    code = """
from birefnet_core.checkpoints.resolve import resolve
from birefnet_core.errors import CheckpointError
print(resolve("BiRefNet").path)
try:
    resolve("BiRefNet_lite")
except CheckpointError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    found, message = run.stdout.splitlines()
    assert Path(found) == path
    assert "HF_HUB_OFFLINE=1 forbids" in message and "http://mirror.example/ZhengPeng7/BiRefNet_lite" in message


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x80", b"abc\0def", b"../../..", b"../../../..", b"x" * 5000])
def test_damaged_reference_in_the_cache_is_taken_for_none(hub, cache, content):
    path = put_in_cache(cache, "someone/tuned", "tuned.safetensors")
    put(cache / "models--someone--tuned" / "refs" / "main", content)
    with pytest.raises(CheckpointError, match="not on this disk"):
        resolve("someone/tuned", local_only=True)
    assert resolve(f"someone/tuned@{COMMIT}", local_only=True).path == path
    hub.add("someone/tuned", {"tuned.safetensors": b"newer"}, revisions={"main": [NEWER]})
    assert resolve("someone/tuned").path.read_bytes() == b"newer"


def test_cache_dir_overrides_the_environment(hub, cache, tmp_path):
    put_in_cache(cache, "ZhengPeng7/BiRefNet")
    path = put_in_cache(tmp_path / "mine", "ZhengPeng7/BiRefNet")
    assert resolve("BiRefNet", cache_dir=str(tmp_path / "mine")).path == path


# Without network


def test_offline_without_a_copy_says_where_it_looked(hub, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE=1 forbids the network") as caught:
        resolve("BiRefNet_lite", folders=[tmp_path / "models"], download_dir=tmp_path / "more")
    assert f"{hub.url}/ZhengPeng7/BiRefNet_lite" in str(caught.value)
    for part in ("model.safetensors", tmp_path / "models", tmp_path / "more", cache):
        assert str(part) in str(caught.value)
    assert hub.requests == []


def test_local_only_without_a_copy_never_asks(hub):
    with pytest.raises(CheckpointError, match="local_only=True forbids the network"):
        resolve("someone/tuned", local_only=True)
    assert hub.requests == []


def test_present_locally_finds_copies_and_never_asks(hub, cache, tmp_path):
    entry = find_published("RMBG-2.0")
    assert present_locally(entry, [tmp_path / "absent"]) is None
    cached = put_in_cache(cache, "1038lab/RMBG-2.0")
    assert present_locally(entry) == cached
    assert present_locally(entry, cache_dir=tmp_path / "other") is None
    path = put(tmp_path / "models" / "RMBG-2.0" / "model.safetensors")
    assert present_locally(entry, [str(tmp_path / "models")]) == path
    assert hub.requests == []
