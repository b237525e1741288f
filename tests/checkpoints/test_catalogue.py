"""The catalogue: its rows, and which of them a name, a repository or a path stands for."""

import dataclasses
from pathlib import Path

import pytest

from birefnet_core.checkpoints.catalogue import CatalogueEntry, find_entry, find_published, list_checkpoints, suggest
from birefnet_core.config import PatchOrder
from birefnet_core.errors import ConfigError

PUBLISHED = {
    "BiRefNet": ("swin_v1_l", (1024, 1024), "fp16", "columns_first"),
    "BiRefNet_HR": ("swin_v1_l", (2048, 2048), "fp16", "channels_first"),
    "BiRefNet_HR-matting": ("swin_v1_l", (2048, 2048), "fp16", "channels_first"),
    "BiRefNet_dynamic": ("swin_v1_l", (1024, 1024), "fp16", "channels_first"),
    "BiRefNet_dynamic-matting": ("swin_v1_l", (1024, 1024), "fp16", "channels_first"),
    "BiRefNet_512x512": ("swin_v1_l", (512, 512), "fp16", "channels_first"),
    "BiRefNet_lite": ("swin_v1_t", (1024, 1024), "fp32", "columns_first"),
    "BiRefNet_lite-2K": ("swin_v1_t", (2560, 1440), "fp32", "columns_first"),
    "BiRefNet_lite-matting": ("swin_v1_t", (1024, 1024), "fp16", "channels_first"),
    "BiRefNet-matting": ("swin_v1_l", (1024, 1024), "fp32", "columns_first"),
    "BiRefNet-portrait": ("swin_v1_l", (1024, 1024), "fp32", "columns_first"),
    "BiRefNet-legacy": ("swin_v1_l", (1024, 1024), "fp32", "columns_first"),
    "BiRefNet-DIS5K": ("swin_v1_l", (1024, 1024), "fp32", "columns_first"),
    "BiRefNet-DIS5K-TR_TEs": ("swin_v1_l", (1024, 1024), "fp32", "columns_first"),
    "BiRefNet-HRSOD": ("swin_v1_l", (1024, 1024), "fp32", "columns_first"),
    "BiRefNet-COD": ("swin_v1_l", (1024, 1024), "fp32", "columns_first"),
}
OTHERS = {"RMBG-2.0", "toonout", "toonout-1038lab", "lucida", "BiRefNet-ComfyOrg", "lucida-ComfyOrg"}
OTHERS |= {"BiRefNet-DIS_ep580", "BiRefNet-ep480", "demo"}
ROWS = {entry.name: entry for entry in list_checkpoints()}


def test_names_are_complete_and_unique():
    # Names are in users' workflows: rows may be added, never taken away.
    assert set(ROWS) == set(PUBLISHED) | OTHERS
    assert len({name.casefold() for name in ROWS}) == len(list_checkpoints())
    assert not any(separator in name for name in ROWS for separator in "/\\@:")


@pytest.mark.parametrize("name", PUBLISHED)
def test_official_rows_match_what_was_published(name):
    entry = ROWS[name]
    backbone, size, dtype, order = PUBLISHED[name]
    assert (entry.repo, entry.file, entry.licence) == (f"ZhengPeng7/{name}", "model.safetensors", "MIT")
    assert (entry.backbone, entry.training_size, entry.dtype) == (backbone, size, dtype)
    assert entry.patch_order == PatchOrder(order)
    assert entry.any_size == ("dynamic" in name)
    assert not entry.gated and entry.loadable


def test_rows_are_frozen_and_tell_users_something():
    for entry in list_checkpoints():
        assert entry.description.endswith(".") and entry.purpose and entry.licence
        with pytest.raises(dataclasses.FrozenInstanceError):
            entry.name = "other"


def test_sizes_agree_with_backbone_and_dtype():
    expected = {("swin_v1_l", "fp16"): 444e6, ("swin_v1_l", "fp32"): 885e6, ("swin_v1_t", "fp32"): 178e6,
                ("swin_v1_t", "fp16"): 89e6}  # fmt: skip
    for entry in list_checkpoints():
        if entry.size_bytes is not None:
            assert entry.size_bytes == pytest.approx(expected[entry.backbone, entry.dtype], rel=0.01)


def test_rmbg_is_gated_and_non_commercial_with_a_mirror():
    entry = ROWS["RMBG-2.0"]
    assert entry.repos == ("briaai/RMBG-2.0", "1038lab/RMBG-2.0")
    assert entry.gated and "non-commercial" in entry.licence


def test_files_of_march_2024_are_listed_and_not_loadable():
    old = [entry for entry in list_checkpoints() if entry.repo == "ViperYX/BiRefNet"]
    assert [entry.loadable for entry in old] == [False, False]
    assert all(entry.file.endswith(".pth") for entry in old)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "swin"}, "backbone='swin'"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"generation": "2030"}, "generation='2030'"),
        ({"repo": "no-owner"}, "owner/name"),
        ({"mirrors": ("a/b/c",)}, "a/b/c"),
        ({"repo": None, "mirrors": ("c/d",)}, "comes with this package"),
        ({"training_size": (1000, 1000)}, "training_size"),
        ({"training_size": (1024,)}, "training_size"),
    ],
)
def test_entry_rejects_values_out_of_range(change, message):
    with pytest.raises(ConfigError, match=message):
        CatalogueEntry(**{"name": "x", "repo": "a/b", "purpose": "p", "description": "d.", **change})


# Looking up


@pytest.mark.parametrize("entry", [entry for entry in list_checkpoints() if entry.repo], ids=lambda entry: entry.name)
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
    ("path", "name"),
    [
        # ComfyUI_BiRefNet_ll, RemoveBackground_SET
        ("/models/BiRefNet/General.safetensors", "BiRefNet"),
        ("/models/BiRefNet/general-hr.safetensors", "BiRefNet_HR"),
        ("/models/BiRefNet/General-reso_512.safetensors", "BiRefNet_512x512"),
        ("/models/BiRefNet/DIS-TR_TEs.safetensors", "BiRefNet-DIS5K-TR_TEs"),
        ("/models/rembg/BiRefNet/Matting-Lite.safetensors", "BiRefNet_lite-matting"),
        ("/models/rembg/BRIA-RMBG2_0.safetensors", "RMBG-2.0"),
        # ComfyUI-RMBG
        ("/models/RMBG/BiRefNet/BiRefNet-general.safetensors", "BiRefNet"),
        ("/models/RMBG/BiRefNet/BiRefNet-HR-matting.safetensors", "BiRefNet_HR-matting"),
        ("/models/RMBG/BiRefNet/BiRefNet_toonout.safetensors", "toonout"),
        # ComfyUI-BiRefNet-Hugo
        ("/models/rembg/models--ZhengPeng7--BiRefNet-COD/model.safetensors", "BiRefNet-COD"),
        # ComfyUI-BiRefNet, -ZHO
        ("/models/BiRefNet/BiRefNet-ep480.pth", "BiRefNet-ep480"),
        # releases of the author
        ("/any/BiRefNet-general-epoch_244.pth", "BiRefNet"),
        ("/any/BiRefNet-general-bb_swin_v1_tiny-epoch_232.pth", "BiRefNet_lite"),
        ("/any/BiRefNet_lite-general-2K-epoch_232.pth", "BiRefNet_lite-2K"),
        ("/any/BiRefNet-general-resolution_512x512-fp16-epoch_216.pth", "BiRefNet_512x512"),
        ("/any/BiRefNet_HR-general-epoch_130.pth", "BiRefNet_HR"),
        ("/any/BiRefNet_HR-matting-epoch_135.pth", "BiRefNet_HR-matting"),
        ("/any/BiRefNet_dynamic-general-epoch_174.pth", "BiRefNet_dynamic"),
        ("/any/BiRefNet-matting-epoch_100.pth", "BiRefNet-matting"),
        ("/any/BiRefNet-portrait-epoch_150.pth", "BiRefNet-portrait"),
        ("/any/BiRefNet-massive-TR_DIS5K_TR_TEs-epoch_420.pth", "BiRefNet-DIS5K-TR_TEs"),
        ("/any/BiRefNet-DIS-epoch_590.pth", "BiRefNet-DIS5K"),
        ("/any/BiRefNet-HRSOD_DHU-epoch_115.pth", "BiRefNet-HRSOD"),
        ("/any/BiRefNet-COD-epoch_125.pth", "BiRefNet-COD"),
        ("BiRefNet_T", "BiRefNet_lite"),
        ("ZhengPeng7/BiRefNet_T", "BiRefNet_lite"),
    ],
)
def test_find_entry_knows_the_files_of_other_packs_and_the_author_s_releases(path, name):
    assert find_entry(path) is ROWS[name]


def test_aliases_and_short_names_are_unique():
    names = [n.casefold() for entry in list_checkpoints() for n in (entry.name, *entry.aliases)]
    assert len(set(names)) == len(names)
    short = [entry.short_name for entry in list_checkpoints() if entry.short_name]
    assert len(set(short)) == len(short)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "nonsense",
        "someone/BiRefNet",  # a repository of the same name is not the same checkpoint
        "models/birefnet/my_finetune.safetensors",  # nor does its folder say what a file is
        "/models/checkpoints/General-HR.safetensors",  # a short name of other packs means nothing outside their folders
        "General-HR",
        "1038lab/BiRefNet",  # a repository of many checkpoints
        "/models/birefnet/BiRefNet-epoch_10.safetensors",  # what a training writes: the releases have a task, too
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
