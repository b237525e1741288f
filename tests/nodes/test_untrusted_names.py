"""What a workflow gives as a model or an adapter stays inside the model folders, whatever node it comes from."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

KEY = "decoder.conv_out1.0.weight"


@pytest.fixture(scope="module")
def adapter(comfy, small_file):
    """Saves an adapter for the small file's network at a path."""
    config = comfy.core.load_file(Path(comfy.folders.models_dir, "birefnet", small_file)).config
    weight = comfy.core.BiRefNet(config).state_dict()["reconstruction.head.weight"]
    metadata = {"birefnet_adapter": "birefnet_core/1", "birefnet_config": json.dumps(config.to_dict()), "scale": "1"}

    def save(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"{KEY}.lora_up": torch.ones(1, 1), f"{KEY}.lora_down": torch.ones(1, weight[0].numel())}
        save_file(tensors, path, metadata)
        return path

    return save


@pytest.fixture
def load(comfy, small_file):
    node = next(node for node in comfy.nodes.NODES if node.__name__ == "BiRefNetLoadModel")

    def execute(name=small_file, adapter="none"):
        return node.execute(name, "fp32", "cpu", "auto", adapter).result[0].model

    execute.node = node
    return execute


def outside(comfy, path: Path) -> list[str]:
    """Ways to write the path of a file beside the model folders."""
    folder = Path(comfy.folders.models_dir, "birefnet")
    relative = os.path.relpath(path, folder)
    return [str(path), relative, f"./{relative}", f"adapters/../{relative}", f"../{folder.name}/{relative}"]


def test_adapters_in_the_folder_are_merged(comfy, load, adapter, small_file):
    adapter(Path(comfy.folders.models_dir, "birefnet", "adapters", "mine.safetensors"))
    plain, changed = load().state_dict(), load(adapter="adapters/mine.safetensors").state_dict()
    assert [name for name in plain if not torch.equal(plain[name], changed[name])] == ["reconstruction.head.weight"]


def test_adapters_beside_the_folders_are_not_reached(comfy, load, adapter, tmp_path):
    path = adapter(tmp_path / "private" / "adapter.safetensors")
    for name in outside(comfy, path):
        with pytest.raises(Exception, match="There is no adapter") as error:
            load(adapter=name)
        missing = name.replace("adapter.safetensors", "nothing.safetensors")
        with pytest.raises(Exception, match="There is no adapter") as other:
            load(adapter=missing)
        assert str(error.value) == str(other.value).replace("nothing.safetensors", "adapter.safetensors")


def test_models_beside_the_folders_are_not_reached(comfy, load, small_file, tmp_path):
    path = tmp_path / "private.safetensors"
    shutil.copy(Path(comfy.folders.models_dir, "birefnet", small_file), path)
    for name in outside(comfy, path):
        with pytest.raises(Exception, match="There is no model"):
            load(name)
        assert "There is no model" in load.node.validate_inputs(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/", "a\0b", "x" * 300, "x" * 5000, "~/x.safetensors", "file:///etc/passwd", "owner/name",
        "adapters", "demo", 5, 5.5, True, ["demo"], {"a": 1}, b"demo", None,
    ],
)  # fmt: skip
def test_names_of_any_kind_are_refused_with_a_sentence(load, name):
    with pytest.raises(Exception, match="There is no adapter"):
        load(adapter=name)
    assert isinstance(load.node.fingerprint_inputs("demo", name), str)
    if name not in ("demo", None):
        with pytest.raises(Exception, match="There is no model"):
            load(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BiRefNet_HRR", "BiRefNet_HR"), ("birefnet_lite", "BiRefNet_lite"), ("BiRefNet-matting.", "BiRefNet-matting"),
        ("smal.safetensors", "small.safetensors"), ("small2.pth", "small.safetensors"), ("demmo", "demo"),
        ("sam_vit_h", ""), ("gone.safetensors", ""), ("empty.safetensors", ""), ("", ""), (5, ""),
    ],
)  # fmt: skip
def test_a_name_that_is_nearly_right_is_told(load, small_file, name, meant):
    found = load.node.validate_inputs(name)
    assert found.startswith(f"There is no model {name!r}: ")
    assert found.endswith(f"Did you mean {meant!r}?" if meant else "choose another model.")
