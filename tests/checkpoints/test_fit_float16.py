"""Weights that float16 cannot hold as they are."""

import copy
from contextlib import nullcontext

import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints import Adapter, save_adapter
from birefnet_core.checkpoints import fit_float16 as module
from birefnet_core.checkpoints.fit_float16 import VARIANCE_LIMIT, fit_float16, norm_pairs
from birefnet_core.checkpoints.io import read_file, write_safetensors
from birefnet_core.devices import DTYPES

NORM = "reconstruction.blocks.0.block.0.norm1"


@pytest.fixture(scope="module")
def shared():
    """A network one of whose norms sees values far beyond what is usual."""
    torch.manual_seed(0)
    config = bc.BiRefNetConfig(backbone="resnet10", reconstruction_block="residual", image_pyramid="none")
    model = bc.BiRefNet(config).eval()
    unit = model.reconstruction.blocks[0].block[0]
    with torch.no_grad():
        unit.conv1.weight[:5] *= 1000
        unit.conv1.bias[:5] *= 1000
        unit.norm1.running_mean[:5] += 300
        unit.norm1.running_var[:5] *= 1e6
    return model


@pytest.fixture
def loud(shared):
    return copy.deepcopy(shared)


def test_too_large_a_variance_is_scaled_with_its_convolution(loud, tmp_path):
    x = torch.rand(1, 3, 64, 64)
    path = bc.save_checkpoint(loud, tmp_path / "half.safetensors", dtype=torch.float16)
    found, half = bc.load_file(path), bc.load_file(path, dtype=None)
    state = half.state_dict()
    assert half.get_parameter("reconstruction.head.weight").dtype == torch.float16
    assert all(value.isfinite().all() for value in state.values())
    assert state[f"{NORM}.running_var"].max() <= VARIANCE_LIMIT
    assert state[f"{NORM}.running_var"][5:].eq(1).all()
    assert loud.state_dict()[f"{NORM}.running_var"].max() == pytest.approx(1e6)  # the network itself is left alone
    with torch.no_grad():
        expected, masks = loud(x).logits.sigmoid(), found.eval()(x).logits.sigmoid()
    torch.testing.assert_close(masks, expected, atol=2e-3, rtol=0)
    again = bc.load_file(bc.save_checkpoint(half, tmp_path / "again.safetensors"), dtype=None).state_dict()
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_norms_of_trainings_on_several_gpus_are_scaled_too(loud, tmp_path):
    path = bc.save_checkpoint(loud, tmp_path / "half.safetensors", dtype=torch.float16)
    loud = torch.nn.SyncBatchNorm.convert_sync_batchnorm(loud)
    again = bc.save_checkpoint(loud, tmp_path / "again.safetensors", dtype=torch.float16)
    assert again.read_bytes() == path.read_bytes()


def test_loading_as_float16_does_the_same(loud, tmp_path):
    path = bc.save_checkpoint(loud, tmp_path / "whole.safetensors")
    half = bc.load_model(str(path), device="cpu", dtype=torch.float16)
    assert all(value.isfinite().all() for value in half.state_dict().values())


VARIANTS = [
    {"backbone": "resnet10"},
    {"backbone": "resnet10", "reconstruction_block": "aspp"},
    {"backbone": "resnet10", "reconstruction_block": "residual"},
    {"backbone": "vgg16bn", "reconstruction_block": "residual"},
    {"backbone": "resnet50", "reconstruction_block": "residual"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_norm_is_found_with_its_convolution(options, monkeypatch):
    """With a limit far below every variance all norms are rescaled; any wrong pair would change the logits."""
    torch.manual_seed(0)
    model = bc.BiRefNet(bc.BiRefNetConfig(**options)).eval()
    norms = [name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert sorted(norm for _, norm in norm_pairs(model)) == sorted(norms)
    for norm in map(model.get_submodule, norms):
        norm.eps = 1e-12  # the one thing that is not rescaled; torch 2.11 does not take 0
        norm.running_var.uniform_(0.5, 2)
        norm.running_mean.normal_(std=0.1)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x).logits
        monkeypatch.setattr(module, "VARIANCE_LIMIT", 1e-2)
        fitted = fit_float16(model, model.state_dict())
        assert all(fitted[f"{norm}.running_var"].max() < 1.1e-2 for norm in norms)
        model.load_state_dict(fitted)
        torch.testing.assert_close(model(x).logits, expected, atol=1e-4, rtol=1e-4)


def test_a_weight_that_cannot_be_scaled_is_named(loud, tmp_path):
    with torch.no_grad():
        loud.reconstruction.head.weight.fill_(1e5)
    with pytest.raises(bc.CheckpointError, match=r"head.weight holds 100000, and float16 ends at 65504: use fp32"):
        bc.save_checkpoint(loud, tmp_path / "half.safetensors", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("whole_first", [True, False])
def test_an_adapter_s_change_is_scaled_as_its_convolution_is(loud, tmp_path, whole_first):
    name = NORM.replace("norm1", "conv1.weight")
    weight = loud.get_parameter(name)
    factors = torch.randn(len(weight), 2), torch.randn(2, weight[0].numel())
    adapter = Adapter(factors={name: factors}, scale=2.0, config=loud.config)
    path = bc.save_checkpoint(loud, tmp_path / "whole.safetensors")
    if whole_first:
        found = bc.load_model(path, dtype="fp16", adapter=save_adapter(adapter, tmp_path / "adapter.safetensors"))
    else:
        found = bc.merge_adapter(bc.load_model(path, dtype="fp16"), adapter)
    with torch.no_grad():
        weight += 2 * (factors[0] @ factors[1]).view_as(weight)
    expected = fit_float16(loud, loud.state_dict())[name]
    torch.testing.assert_close(found.get_parameter(name).float(), expected, rtol=2e-3, atol=1e-3)


def saved_once(model, folder):
    return bc.save_checkpoint(model, folder / "half.safetensors", dtype=torch.float16)


def saved_twice(model, folder):
    return bc.save_checkpoint(bc.load_file(saved_once(model, folder), dtype=None), folder / "again.safetensors")


def saved_wider(model, folder):
    half = bc.load_file(saved_once(model, folder), dtype=None)
    return bc.save_checkpoint(half, folder / "wider.safetensors", dtype=torch.float32)


@pytest.mark.parametrize(("save", "dtype"), [(saved_once, "fp32"), (saved_twice, "fp16"), (saved_wider, "fp32")])
def test_an_adapter_fits_a_file_whose_weights_were_scaled(loud, tmp_path, save, dtype):
    name = NORM.replace("norm1", "conv1.weight")
    weight = loud.get_parameter(name)
    factors = torch.randn(len(weight), 2), torch.randn(2, weight[0].numel())
    adapter = save_adapter(Adapter(factors={name: factors}, scale=2.0, config=loud.config), tmp_path / "a.safetensors")
    found = bc.load_model(save(loud, tmp_path), dtype=dtype, adapter=adapter)
    with torch.no_grad():
        weight += 2 * (factors[0] @ factors[1]).view_as(weight)
    expected = (fit_float16(loud, loud.state_dict()) if dtype == "fp16" else loud.state_dict())[name]
    torch.testing.assert_close(found.get_parameter(name).float(), expected, rtol=2e-3, atol=1e-2)  # of up to 10


def test_an_adapter_of_a_weight_scaled_by_an_unknown_number_is_refused(loud, tmp_path):
    path = saved_once(loud, tmp_path)
    file = read_file(path)  # version 0.1 noted no scales
    write_safetensors(path, file.tensors, {n: text for n, text in file.metadata.items() if n != "birefnet_scales"})
    bc.save_checkpoint(bc.load_file(path, dtype=None), path)
    found = bc.load_model(path)
    names = NORM.replace("norm1", "conv1.weight"), "localization.encoder.backbone.parts.3.0.conv1.weight"
    for name, refused in zip(names, (True, False), strict=True):
        weight = loud.get_parameter(name)
        factors = torch.ones(len(weight), 1), torch.ones(1, weight[0].numel())
        adapter = Adapter(factors={name: factors}, scale=1.0, config=loud.config)
        with (
            pytest.raises(bc.CheckpointError, match=r"version 0\.1 scaled 1 of.*made from")
            if refused
            else nullcontext()
        ):
            bc.merge_adapter(found, adapter)


def test_scales_that_are_none_are_refused(loud, tmp_path):
    path = saved_once(loud, tmp_path)
    file = read_file(path)
    name = '{"decoder.decoder_block4.0.conv1.weight": '
    for text in ("[1]", "[" * 9999, name + "3}", name + "[0.5]}", name + '["a"]}', '{"elsewhere.weight": [1]}'):
        write_safetensors(path, file.tensors, {**file.metadata, "birefnet_scales": text})
        with pytest.raises(bc.CheckpointError, match="metadata"):
            bc.load_file(path)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_an_adapter_is_merged_before_weights_are_rounded(loud, tmp_path, dtype):
    name = "localization.encoder.backbone.parts.3.0.conv1.weight"
    weight = loud.get_parameter(name)
    factors = torch.full((len(weight), 1), 1e-3), torch.ones(1, weight[0].numel()) * weight.std().item()
    adapter = save_adapter(Adapter(factors={name: factors}, scale=1.0, config=loud.config), tmp_path / "a.safetensors")
    path = bc.save_checkpoint(loud, tmp_path / "whole.safetensors")
    found = bc.load_model(path, dtype=dtype, adapter=adapter)
    plain = bc.load_model(path, dtype=dtype)
    assert {n: v.dtype for n, v in found.state_dict().items()} == {n: v.dtype for n, v in plain.state_dict().items()}
    merged = weight.detach() + (factors[0] @ factors[1]).view_as(weight)
    assert torch.equal(found.get_parameter(name), merged.to(plain.get_parameter(name).dtype))
    assert plain.get_parameter(name).dtype == DTYPES[dtype]


def test_a_fused_network_takes_no_adapter(loud):
    adapter = Adapter(factors={}, scale=1.0, config=loud.config)
    with pytest.raises(bc.CheckpointError, match="fused for inference"):
        bc.merge_adapter(bc.fuse_for_inference(loud), adapter)
