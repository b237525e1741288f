"""What is compiled ahead of the first image."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.inference import warm_up


@pytest.fixture(scope="module")
def model():
    return bc.fuse_for_inference(bc.BiRefNet(bc.BiRefNetConfig(backbone="swin_v1_t")))


def test_one_layer_of_each_kind_is_run(model, monkeypatch):
    ran = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(warm_up, "_run", lambda layer, side, device: ran.append((layer, side)))
    warm_up.WarmUp(model, torch.device("cuda")).wait()
    sizes = {layer.kernel.kernel_size for layer, _ in ran if hasattr(layer, "kernel")}
    assert (1, 1) in sizes and len(sizes) == 2 and len(ran) == 3 * len(warm_up.SIDES)
    assert not {id(layer) for layer, _ in ran} & {id(module) for module in model.modules()}


def test_layers_run_on_zeros_of_their_own_shapes(model):
    kinds = {warm_up._kind(module): module for module in model.modules() if isinstance(module, warm_up._KINDS)}
    with torch.inference_mode():
        for layer in kinds.values():
            warm_up._run_layer(layer, 16, torch.device("cpu"))


def test_without_a_gpu_nothing_is_done(model):
    assert warm_up.WarmUp(model, torch.device("cpu"))._threads == []


def test_a_device_without_memory_for_the_copies_is_not_warmed_up(model, monkeypatch):
    def no_memory(layer):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(warm_up.copy, "deepcopy", no_memory)
    warm_up.WarmUp(model, torch.device("cuda")).wait()
