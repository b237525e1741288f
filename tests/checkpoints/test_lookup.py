from pathlib import Path

import pytest

from birefnet_core.checkpoints.catalogue import checkpoints
from birefnet_core.checkpoints.lookup import find_entry, find_published, suggest

ROWS = {entry.name: entry for entry in checkpoints()}


@pytest.mark.parametrize("entry", [entry for entry in checkpoints() if entry.repo], ids=lambda entry: entry.name)
def test_find_entry_knows_names_and_paths(entry):
    for source in (
        entry.name,
        entry.name.upper(),
        f" {entry.name} ",
        f"{entry.name}@main",
        f"models/{entry.name}.safetensors",
        Path("/models") / f"{entry.name.lower()}.PTH",
        f"/models/{entry.name}",
        f"/models/{entry.name}/model.safetensors",
        f"/models/{entry.name}@{'a' * 40}/model.safetensors",
    ):
        assert find_entry(source) is entry, source


def test_find_entry_takes_a_file_called_as_the_bundled_one_for_the_users():
    assert find_entry("demo") is ROWS["demo"]
    for source in ("models/demo.safetensors", "/models/demo", "/models/demo/model.safetensors"):
        assert find_entry(source) is None


def test_find_entry_knows_repositories_mirrors_and_cache_folders():
    assert find_entry("zhengpeng7/birefnet_LITE") is ROWS["BiRefNet_lite"]
    assert find_entry("1038lab/RMBG-2.0") is ROWS["RMBG-2.0"]
    assert find_entry("briaai/RMBG-2.0@main") is ROWS["RMBG-2.0"]
    assert find_entry("Comfy-Org/BiRefNet") is ROWS["BiRefNet-ComfyOrg"]  # the first of its two
    cached = "/hub/models--ZhengPeng7--BiRefNet_HR/snapshots/0123/model.safetensors"
    assert find_entry(cached) is ROWS["BiRefNet_HR"]


def test_find_entry_knows_files_with_names_of_their_own():
    assert find_entry("/models/birefnet_finetuned_toonout.pth") is ROWS["toonout"]
    assert find_entry("/models/BiRefNet-ep480.pth") is ROWS["BiRefNet-ep480"]


@pytest.mark.parametrize(
    "source",
    [
        "",
        "nonsense",
        "someone/BiRefNet",  # a repository of the same name is not the same checkpoint
        "models/birefnet/my_finetune.safetensors",  # nor does its folder say what a file is
        "/models/BiRefNet/General-HR.safetensors",
        "/models/birefnet/model.safetensors",  # the folder of all models, not the one of "BiRefNet"
        "/hub/models--someone--else/snapshots/0123/model.safetensors",
    ],
)
def test_find_entry_does_not_guess(source):
    assert find_entry(source) is None


def test_find_entry_takes_an_existing_folder_for_a_path(tmp_path, monkeypatch):
    (tmp_path / "models" / "BiRefNet_lite").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_entry("models/BiRefNet_lite") is ROWS["BiRefNet_lite"]


def test_find_published_ignores_paths():
    assert find_published("/models/BiRefNet_lite.safetensors") is None
    assert find_published("BiRefNet_lite") is ROWS["BiRefNet_lite"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("birefnet_lit", "BiRefNet_lite"),
        ("BiRefNet-HR", "BiRefNet_HR"),
        ("BiRefNet portrait", "BiRefNet-portrait"),
        ("ZhengPeng7/BiRefNet_light", "BiRefNet_lite"),
        ("rmbg2.0", "RMBG-2.0"),
    ],
)
def test_suggest_gives_the_nearest_name_first(typed, meant):
    assert suggest(typed)[0] == meant


def test_suggest_gives_nothing_for_something_else():
    assert suggest("stable-diffusion-xl") == []
