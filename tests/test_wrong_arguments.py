"""A path where a network or a tensor is expected, and the reverse: the public API says so in a sentence."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import birefnet_core as bc
from birefnet_core import losses
from birefnet_core.checkpoints.catalogue import find_published
from birefnet_core.checkpoints.resolve import present_locally, resolve
from birefnet_core.metrics.protocol import Protocol
from birefnet_core.network.birefnet import BiRefNetOutput

IMAGES, MASKS = torch.rand(1, 20, 24, 3), torch.ones(1, 20, 24)


@pytest.fixture(scope="module")
def model():
    return bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0"))


@pytest.mark.parametrize("value", ["BiRefNet_lite", None, 5, IMAGES, {}, torch.nn.Linear(2, 2), bc.BiRefNet])
@pytest.mark.parametrize(
    "call",
    [
        bc.Segmenter,
        bc.fuse_for_inference,
        lambda value: bc.merge_adapter(value, "adapter.safetensors"),
        lambda value: bc.save_checkpoint(value, "never.safetensors") if not isinstance(value, torch.nn.Module)
        else bc.Segmenter(value),
    ],
    ids=["Segmenter", "fuse_for_inference", "merge_adapter", "save_checkpoint"],
)  # fmt: skip
def test_what_is_no_network_is_told(call, value):
    with pytest.raises(bc.ConfigError, match=r"model is .*, expected a BiRefNet: load_model"):
        call(value)


@pytest.mark.parametrize("value", [None, 5, IMAGES, [], IMAGES.numpy(), b"x.safetensors"])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda model, value: bc.load_file(value), "path"),
        (bc.merge_adapter, "path"),
        (bc.save_checkpoint, "path"),
        (lambda model, value: bc.evaluate(value, "masks"), "pred_dir"),
        (lambda model, value: bc.evaluate("masks", value), "gt_dir"),
    ],
    ids=["load_file", "merge_adapter", "save_checkpoint", "evaluate", "evaluate, second"],
)
def test_what_is_no_path_is_told(call, name, value, model):
    found = re.escape(type(value).__name__)
    with pytest.raises(bc.ConfigError, match=f"^{name} is a {found}, expected a path"):
        call(model, value)


@pytest.mark.parametrize("value", ["swin_v1_t", 5, {"backbone": "swin_v1_t"}, IMAGES, np.ones((2, 2))])
def test_what_is_no_config_is_told(value):
    with pytest.raises(bc.ConfigError, match=r"config is .*, expected a BiRefNetConfig such as"):
        bc.BiRefNet(value)


def test_a_segmenter_takes_the_name_of_a_device(model):
    segment = bc.Segmenter(model, device="cpu")
    assert segment(IMAGES, 32).shape == MASKS.shape
    with pytest.raises(bc.ConfigError, match="device 'nonsense' cannot be used here"):
        bc.Segmenter(model, device="nonsense")


@pytest.mark.parametrize("value", ["4", None, 0, -1, 1.5, True, [1]])
def test_a_batch_size_of_another_form_is_told(value, model):
    with pytest.raises(bc.ConfigError, match=r"batch_size=.*expected a whole number, at least 1"):
        bc.Segmenter(model, batch_size=value)


@pytest.mark.parametrize("value", ["false", None, 2, IMAGES])
def test_switches_of_a_segmenter_of_another_form_are_told(value, model):
    segment = bc.Segmenter(model)
    for name in ("tiled", "flip"):
        with pytest.raises(bc.ConfigError, match=f"^{name} is .*, expected True or False"):
            segment(IMAGES, 32, **{name: value})
    with pytest.raises(bc.ConfigError, match=r"^compile is .*, expected True or False"):
        bc.Segmenter(model, compile=value)


@pytest.mark.parametrize("value", ["a: b", [1], [("a", "b")], {"a": 3}, 5])
def test_metadata_that_are_no_texts_by_name_are_told(value, model, tmp_path):
    with pytest.raises(bc.ConfigError, match="texts by name"):
        bc.save_checkpoint(model, tmp_path / "a.safetensors", metadata=value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["false", None, 2, IMAGES])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda value: bc.load_model("demo", fused=value), "fused"),
        (lambda value: bc.load_file("never read.safetensors", fused=value), "fused"),
        (lambda value: bc.model_from_state_dict({}, fused=value), "fused"),
        (lambda value: bc.evaluate("predictions", "masks", allow_missing=value), "allow_missing"),
        (lambda value: Protocol(matting=value), "matting"),
    ],
)
def test_switches_of_another_form_are_told(call, name, value):
    with pytest.raises(bc.ConfigError, match=f"^{name} is .*, expected True or False"):
        call(value)


@pytest.mark.parametrize("value", ["2", None, 1.5, True])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda value: bc.evaluate("predictions", "masks", workers=value), "workers"),
        (lambda value: bc.evaluate("predictions", "masks", hce_relax=value), "relax"),
        (lambda value: bc.evaluate("predictions", "masks", hce_relax=value, metrics=["HCE"]), "relax"),
    ],
)
def test_numbers_of_an_evaluation_of_another_form_are_told(call, name, value):
    with pytest.raises(bc.ConfigError, match=f"^{name} is .*, expected a whole number"):
        call(value)


@pytest.mark.parametrize("value", ["1", None, [1], True, 1j, IMAGES])
def test_a_strength_that_is_no_number_is_told(value, model):
    with pytest.raises(bc.ConfigError, match=r"the strength of the adapter is .*, expected a number such as 1"):
        bc.merge_adapter(model, "never read.safetensors", value)


@pytest.mark.parametrize("call", [bc.load_file, lambda path: bc.load_model("demo", adapter=path)])
@pytest.mark.parametrize("name", ["folder", "folder.safetensors", "folder.pth"])
def test_a_folder_where_a_file_is_expected_is_told(call, name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(bc.CheckpointError, match=f"{name}: this is a folder, expected a file"):
        call(tmp_path / name)


@pytest.mark.parametrize(
    "of", [str, Path, lambda path: [path], lambda path: ("nowhere", str(path)), lambda path: {path}]
)
def test_one_folder_of_models_may_be_given_by_itself(of, tmp_path):
    path = tmp_path / "BiRefNet_lite.safetensors"
    path.write_bytes(b"weights")
    assert resolve("BiRefNet_lite", folders=of(tmp_path), local_only=True).path == path
    assert present_locally(find_published("BiRefNet_lite"), of(tmp_path)) == path


@pytest.mark.parametrize("value", [5, b"models", [None], [["models"]]])
@pytest.mark.parametrize("name", ["folders", "cache_dir", "download_dir"])
def test_folders_that_are_no_paths_are_told(name, value):
    with pytest.raises(bc.ConfigError, match=r" is a \w+, expected (a path|paths of folders)"):
        bc.load_model("BiRefNet_lite", **{name: value})


@pytest.mark.parametrize("value", [[[1.0]], None, 5, "photo.jpg", IMAGES.numpy(), Image.new("RGB", (64, 64))])
def test_what_is_no_tensor_is_told_by_network_and_losses(value, model):
    kind, logits = type(value).__name__, torch.zeros(1, 1, 4, 4)
    found = re.escape(repr(value) if isinstance(value, str) else f"a {kind}")
    with pytest.raises(bc.ImageError, match=f"image is {found}, expected a tensor B, 3, H, W"):
        model(value)
    loss = losses.HybridLoss(losses.loss_preset("general"))
    for term in (losses.bce, losses.iou, losses.ssim, losses.mae, losses.mse, losses.structure, losses.gradient_map):
        for pair in ((logits, value), (value, logits)):
            with pytest.raises(bc.ImageError, match=f": found a {kind}, expected a tensor B, 1, H, W; torch.as_tensor"):
                term(*pair)
    with pytest.raises(bc.ImageError, match=f"the class labels: found a {kind}, expected a tensor B;"):
        losses.cross_entropy(torch.zeros(1, 3), value)
    with pytest.raises(bc.ImageError, match=f"the label: found a {kind}"):
        loss(BiRefNetOutput(logits), value)
    with pytest.raises(bc.ImageError, match=f"found a {kind}, expected the output of a BiRefNet"):
        loss(value, logits)


def test_a_map_in_place_of_an_output_is_told():
    maps = torch.zeros(1, 1, 4, 4)
    with pytest.raises(bc.ImageError, match="found a Tensor, expected the output of a BiRefNet; single maps"):
        losses.HybridLoss(losses.loss_preset("matting"))(maps, maps)
