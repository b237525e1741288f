"""Workflows in a real ComfyUI: image uploaded over HTTP, nodes run, mask saved."""

import copy

import numpy as np
import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints import Adapter, merge_adapter, save_adapter
from birefnet_core.images import read_image, to_bytes, write_image
from tests.comfyui.workflows import PHOTO

pytestmark = pytest.mark.comfyui

LOAD = {"model": "small.safetensors", "dtype": "fp32", "device": "auto", "patch_order": "auto"}
SEGMENT = {"size": "auto (training size)", "width": 1024, "height": 1024}


def mask_workflow(image, load=(), segment=()):
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "BiRefNetLoadModel", "inputs": {**LOAD, **dict(load)}},
        "3": {
            "class_type": "BiRefNetSegment",
            "inputs": {"model": ["2", 0], "image": ["1", 0], **SEGMENT, **dict(segment)},
        },
        "4": {"class_type": "MaskToImage", "inputs": {"mask": ["3", 0]}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "mask"}},
    }


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """The photograph as a PNG: ComfyUI has JPEG decoders of its own, and they round differently."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    write_image(path, read_image(PHOTO))
    return path


@pytest.fixture(scope="module")
def image(comfyui, photo):
    return comfyui.upload(photo)


def test_the_pack_is_imported_without_complaint(comfyui):
    (line,) = (line for line in comfyui.log().splitlines() if "seconds" in line and line.endswith("birefnet"))
    assert "IMPORT FAILED" not in line
    assert {"BiRefNetLoadModel", "BiRefNetSegment"} <= set(comfyui.get("/object_info"))


def test_every_input_has_a_tooltip(comfyui):
    for name in ("BiRefNetLoadModel", "BiRefNetSegment"):
        inputs = comfyui.get(f"/object_info/{name}")[name]["input"]["required"]
        assert all(options[1].get("tooltip") for options in inputs.values())


def test_the_catalogue_and_the_files_of_both_folders_are_offered(comfyui):
    info = comfyui.get("/object_info/BiRefNetLoadModel")["BiRefNetLoadModel"]["input"]["required"]["model"]
    options = info[1]["options"] if info[0] == "COMBO" else info[0]
    assert {"BiRefNet", "BiRefNet_lite", "demo", "small.safetensors", "shared.safetensors"} <= set(options)
    assert {"extra.safetensors", "extra_shared.safetensors"} <= set(options)  # of extra_model_paths.yaml
    assert info[1]["birefnet_labels"]["demo"].startswith("✓ demo (")


@pytest.mark.parametrize("size", ["auto (training size)", "custom", "native"])
def test_the_saved_mask_is_the_one_the_core_computes(size, comfyui, image, demo_model):
    options = {"size": size, "width": 320, "height": 192}
    outputs = comfyui.run(mask_workflow(image, load={"model": "demo"}, segment=options))
    (picture,) = comfyui.pictures(outputs, "5")
    photo = read_image(PHOTO)[None]
    wanted = {"auto (training size)": None, "custom": (320, 192), "native": "native"}[size]
    expected = to_bytes(bc.Segmenter(demo_model)(photo, wanted)[0])
    assert picture.shape[:2] == photo.shape[1:3]
    assert np.abs(picture[..., 0].astype(int) - expected.astype(int)).max() <= 1


def test_the_shared_folder_and_the_cpu_give_the_same_mask(comfyui, image):
    first = comfyui.pictures(comfyui.run(mask_workflow(image)), "5")
    load = {"model": "shared.safetensors", "device": "cpu", "dtype": "fp32", "patch_order": "channels_first"}
    second = comfyui.pictures(comfyui.run(mask_workflow(image, load=load)), "5")
    assert np.array_equal(first[0], second[0])


@pytest.mark.parametrize("model", ["other.safetensors", "extra.safetensors", "extra_shared.safetensors"])
def test_files_in_any_folder_are_loaded(model, comfyui, image, other_model):
    (picture,) = comfyui.pictures(comfyui.run(mask_workflow(image, load={"model": model})), "5")
    expected = to_bytes(bc.Segmenter(other_model)(read_image(PHOTO)[None], 256)[0])
    assert np.abs(picture[..., 0].astype(int) - expected).max() <= 1


def test_a_broken_file_is_named(comfyui, image):
    entry = comfyui.wait(comfyui.submit(mask_workflow(image, load={"model": "broken.safetensors"})))
    error = dict(entry["status"]["messages"])["execution_error"]
    assert error["node_type"] == "BiRefNetLoadModel"
    assert "broken.safetensors" in error["exception_message"]
    assert "not a safetensors file" in error["exception_message"]


def test_a_checkpoint_that_cannot_be_fetched_says_what_to_do(comfyui, image):
    entry = comfyui.wait(comfyui.submit(mask_workflow(image, load={"model": "BiRefNet_lite"})))
    message = dict(entry["status"]["messages"])["execution_error"]["exception_message"]
    assert "ZhengPeng7/BiRefNet_lite" in message and "HF_HUB_OFFLINE" in message


def test_an_adapter_changes_the_mask_as_in_the_core(comfyui, image, small_model):
    weights = {"localization.squeeze.conv_in.weight": small_model.localization.squeeze.conv_in.weight}
    factors = {
        name: (0.05 * torch.ones(len(weight), 2), 0.05 * torch.ones(2, weight[0].numel()))
        for name, weight in weights.items()
    }
    path = comfyui.base / "models" / "birefnet" / "adapters" / "mine.safetensors"
    save_adapter(Adapter(factors=factors, scale=1.0, config=small_model.config), path)
    outputs = comfyui.run(mask_workflow(image, load={"adapter": "adapters/mine.safetensors"}))
    (picture,) = comfyui.pictures(outputs, "5")
    adapted = merge_adapter(copy.deepcopy(small_model), path)
    photo = read_image(PHOTO)[None]
    expected, without = (to_bytes(bc.Segmenter(model)(photo, 256)[0]) for model in (adapted, small_model))
    assert np.abs(picture[..., 0].astype(int) - expected).max() <= 1
    assert np.abs(expected.astype(int) - without).max() > 1
