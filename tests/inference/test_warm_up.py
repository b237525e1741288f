"""What is compiled ahead of the first image."""

import torch

import birefnet_core as bc
from birefnet_core.inference import warm_up


def test_one_layer_of_each_kind_is_run(monkeypatch):
    ran = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(warm_up, "_run", lambda layers, device: ran.extend(layers))
    model = bc.fuse_for_inference(bc.BiRefNet(bc.BiRefNetConfig(backbone="swin_v1_t")))
    warm_up.WarmUp(model, torch.device("cuda")).wait()
    kernels = sorted(layer.kernel.kernel_size[0] for layer in ran if hasattr(layer, "kernel"))
    assert kernels == [1, 3, 7] and len(ran) == 4
    assert not {id(layer) for layer in ran} & {id(module) for module in model.modules()}


def test_layers_run_on_zeros_of_their_own_shapes():
    model = bc.fuse_for_inference(bc.BiRefNet(bc.BiRefNetConfig(backbone="swin_v1_t")))
    kinds = {warm_up._kind(module): module for module in model.modules() if isinstance(module, warm_up._KINDS)}
    with torch.inference_mode():
        for layer in kinds.values():
            warm_up._run_layer(layer, 16, torch.device("cpu"))


def test_without_a_gpu_nothing_is_done():
    model = bc.fuse_for_inference(bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0")))
    assert warm_up.WarmUp(model, torch.device("cpu"))._thread is None
