"""Networks that are fused while they are loaded, before their weights are rounded."""

import copy

import pytest
import torch
from torch import nn

import birefnet_core as bc
from birefnet_core.checkpoints import Adapter, save_adapter
from birefnet_core.network.cast import cast_for_inference, dtype_of


def masks_of(network, x):
    with torch.no_grad():
        return network(x).logits.float().sigmoid()


def equal(found, expected):
    """Whether two networks have the same weights, of the same types."""
    found, expected = found.state_dict(), expected.state_dict()
    types = {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in expected.items()}
    return types and all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("dtype", "fine_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float16),
    ],
)
@pytest.mark.parametrize("variant", ["smallest", "pvt_v2_b0"])
def test_weights_are_rounded_after_norms_are_folded(variant, dtype, fine_dtype, filled):
    options = {"dtype": dtype, "fine_dtype": fine_dtype}
    found = bc.model_from_state_dict(filled(variant), fused=True, **options)
    expected = bc.fuse_for_inference(bc.model_from_state_dict(filled(variant)))
    assert found.fused
    assert not found.training
    assert dtype_of(found) == dtype
    assert equal(found, cast_for_inference(expected, dtype, fine_dtype=fine_dtype))
    assert bc.Segmenter(found).model is found


def test_masks_in_float16_are_nearer_to_those_of_float32(filled):
    """Computed in float32 with the weights of each, as sums of products in float16 differ between processors."""
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    state = filled("pvt_v2_b0")
    expected = masks_of(bc.model_from_state_dict(state, fused=True), x)

    def change(network):
        return (masks_of(network.float(), x) - expected).abs().mean()

    fused = bc.model_from_state_dict(state, dtype=torch.float16, fused=True)
    rounded_first = bc.fuse_for_inference(bc.model_from_state_dict(state, dtype=torch.float16))
    assert 0 < change(fused) < 0.9 * change(rounded_first)


def test_a_file_in_float16_stays_what_it_is(model_file, tmp_path):
    path = bc.save_checkpoint(bc.load_model(model_file), tmp_path / "half.safetensors", dtype=torch.float16)
    expected = bc.fuse_for_inference(bc.load_model(path, dtype="fp16"))
    assert equal(bc.load_model(path, dtype="fp16", fused=True), expected)
    assert equal(bc.load_file(path, dtype=None, fused=True), expected)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_files_are_fused_in_inference_mode(dtype, model_file):
    expected = bc.load_model(model_file, dtype=dtype, fused=True)
    with torch.inference_mode():  # as ComfyUI runs nodes
        found = bc.load_model(model_file, dtype=dtype, fused=True)
    assert equal(found, expected)
    x = torch.rand(1, 3, 64, 64).to(next(found.parameters()).dtype)
    assert torch.equal(masks_of(found, x), masks_of(expected, x))


def test_an_adapter_is_merged_before(model_file, tmp_path):
    model = bc.load_model(model_file)
    name = next(n for n, m in model.reconstruction.named_modules() if isinstance(m, nn.Conv2d))
    name = f"reconstruction.{name}.weight"
    weight = model.get_parameter(name)
    adapter = Adapter(
        factors={name: (torch.randn(len(weight), 2), torch.randn(2, weight[0].numel()))}, scale=0.1, config=model.config
    )
    file = save_adapter(adapter, tmp_path / "adapter.safetensors")
    found = bc.load_model(model_file, dtype="fp16", adapter=file, fused=True)
    expected = cast_for_inference(bc.fuse_for_inference(bc.merge_adapter(model, file)), torch.float16)
    assert found.fused
    assert equal(found, expected)


def test_variances_beyond_float16_fit(tmp_path):
    torch.manual_seed(0)
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone="resnet10", reconstruction_block="residual")).eval()
    with torch.no_grad():
        for norm in (model.reconstruction.blocks[0].block[0].norm1, model.localization.encoder.backbone.parts[0][1]):
            norm.running_var *= 1e6
    path = bc.save_checkpoint(copy.deepcopy(model), tmp_path / "loud.safetensors")
    found = bc.load_model(path, dtype="fp16", fused=True)
    x = torch.rand(1, 3, 64, 64)
    assert all(value.isfinite().all() for value in found.state_dict().values())
    torch.testing.assert_close(masks_of(found.float(), x), masks_of(model, x), atol=2e-3, rtol=0)
