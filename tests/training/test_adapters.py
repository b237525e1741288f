"""Adapters of trainings whose network has a head of classes, which the network that they are for may not have."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints import read_adapter, save_adapter
from birefnet_core.training.lora import add_adapters, extract_adapter, merged
from birefnet_core.training.model_setup import build_network, phase_of, set_phase
from birefnet_core.training.optim import make_optimizer

from .conftest import TINY

HEAD = "localization.classifier.fc."
CLASSES = 20  # more than the rank of the adapters, as DIS5K's 219 are


@pytest.fixture
def adapted(tmp_path, tiny_checkpoint, tiny_recipe):
    """Makes a network with changed adapters from one of some classes; gives the file it began with and the network."""

    def make(classes: int) -> tuple[object, bc.BiRefNet]:
        start = tiny_checkpoint
        if classes:
            config = bc.BiRefNetConfig(backbone="pvt_v2_b0", num_classes=classes, **TINY)
            start = bc.save_checkpoint(bc.BiRefNet(config), tmp_path / "start.safetensors", training_size=(64, 64))
        recipe = tiny_recipe(init=str(start), train="lora", lora_rank=2, classes="file_name")
        model = build_network(recipe, CLASSES)
        set_phase(model, recipe, phase_of(recipe, 0), frozen_norms=True)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(".up") or name.startswith(HEAD):
                    parameter.normal_(std=0.05)
        return start, model

    return make


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_an_adapter_of_a_training_with_classes_fits_the_network_it_began_with(adapted, tmp_path, classes):
    start, model = adapted(classes)
    path = save_adapter(extract_adapter(model), tmp_path / "adapter.safetensors")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        loaded, expected = bc.load_model(start, adapter=path)(x).logits, merged(model)(x).logits
        assert torch.allclose(loaded, expected, atol=1e-5)
        assert not torch.allclose(loaded, bc.load_model(start)(x).logits, atol=1e-3)
    assert not any(name.startswith(HEAD) for name in read_adapter(path).factors)


def test_the_head_of_classes_learns_as_a_whole(adapted, tiny_recipe, tiny_checkpoint):
    _, model = adapted(0)
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {HEAD + "weight", HEAD + "bias"} <= learned
    assert {name.rsplit(".", 1)[1] for name in learned if not name.startswith(HEAD)} == {"up", "down"}
    optimizer = make_optimizer(model, tiny_recipe(init=str(tiny_checkpoint), train="lora", lora_rank=2))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(learned)
    before = {name: value.clone() for name, value in merged(model).state_dict().items()}
    assert torch.equal(before[HEAD + "weight"], model.localization.classifier.fc.weight)


def test_factors_for_a_head_of_classes_in_older_files_are_left_out(adapted, tmp_path, tiny_checkpoint):
    _, model = adapted(0)
    adapter = extract_adapter(model)
    older = {**adapter.factors, HEAD + "weight": (torch.ones(CLASSES, 2), torch.ones(2, 256))}
    paths = [
        save_adapter(dataclasses.replace(adapter, factors=factors), tmp_path / name)
        for name, factors in (("older.safetensors", older), ("today.safetensors", adapter.factors))
    ]
    first, second = (bc.load_model(tiny_checkpoint, adapter=path).state_dict() for path in paths)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint):
    """An adapter that changes nothing yet, without a size."""
    model = bc.load_model(tiny_checkpoint)
    add_adapters(model, rank=2, alpha=2)
    return extract_adapter(model)


def test_a_network_with_an_adapter_segments_at_the_size_that_it_was_trained_at(tmp_path, tiny_checkpoint):
    """As the whole network beside it does, which its training validated."""
    model = bc.load_model(tiny_checkpoint)
    add_adapters(model, rank=2, alpha=2)
    path = save_adapter(extract_adapter(model, (128, 96)), tmp_path / "adapter.safetensors")
    assert read_adapter(path).training_size == (128, 96)
    assert bc.Segmenter(bc.load_model(tiny_checkpoint)).training_size == (64, 64)
    assert bc.Segmenter(bc.load_model(tiny_checkpoint, adapter=path)).training_size == (128, 96)
    for strength, size in ((0.5, (128, 96)), (0, (64, 64)), (-1, (64, 64))):
        loaded = bc.load_model(tiny_checkpoint, adapter=path, adapter_strength=strength)
        assert bc.Segmenter(loaded).training_size == size


def test_adapters_of_versions_before_leave_the_size_as_it_is(tmp_path, tiny_checkpoint, adapter):
    path = save_adapter(adapter, tmp_path / "adapter.safetensors")
    assert read_adapter(path).training_size is None
    assert bc.Segmenter(bc.load_model(tiny_checkpoint, adapter=path)).training_size == (64, 64)


@pytest.mark.parametrize("size", ["0x64", "64", "64x64x64", "99999x64", "-32x64", "wide", ""])
def test_a_size_that_no_adapter_was_trained_at_is_told(tmp_path, adapter, size):
    path = save_adapter(adapter, tmp_path / "adapter.safetensors", {"training_size": size})
    with pytest.raises(bc.CheckpointError, match=r"adapter\.safetensors: the adapter cannot be read"):
        read_adapter(path)
