"""The prepared form computes what the network computes."""

import itertools

import pytest
import torch
from torch import nn

import birefnet_core as bc
from birefnet_core.inference import folding
from birefnet_core.network import layers
from birefnet_core.ops import execution
from birefnet_core.ops.deform_conv import use_backend

SWITCHES = {
    "image_pyramid": ("cat", "none"),
    "context_fusion": (3, 0),
    "inward_reference": (True, False),
    "outward_reference": (True, False),
    "reconstruction_block": ("deformable_aspp", "aspp", "residual"),
    "batch_norm": (True, False),
}


def with_lively_norms(model):
    """Random statistics, so that a norm that is not folded in shows."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def difference(model, shape=(2, 3, 64, 96)):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = model(x).logits, bc.prepare(model)(x).logits
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("variant", ["swin_v1_t", "swin_v1_t+bs1", "pvt_v2_b0", "dino_v3_s", "resnet50", "vgg16"])
def test_every_family_gives_the_same_logits(variant, filled):
    assert difference(bc.model_from_state_dict(filled(variant)), (2, 3, 96, 160)) < 1e-5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("backend", ["gather", "torchvision"])
@pytest.mark.parametrize("variant", ["swin_v1_t", "dino_v3_s"])
def test_the_ways_of_other_devices_give_the_same_logits(variant, backend, layout, filled, monkeypatch):
    monkeypatch.setattr(layers, "conv_layout", lambda device: layout)
    with use_backend(backend), execution.use_chunk_sizes(deform_columns=2**18, deform_gather=2**18, map=2**16):
        assert difference(bc.model_from_state_dict(filled(variant)), (2, 3, 96, 160)) < 1e-5


def test_every_combination_of_switches_gives_the_same_logits():
    torch.manual_seed(0)
    for values in itertools.product(*SWITCHES.values()):
        options = dict(zip(SWITCHES, values, strict=True))
        model = with_lively_norms(bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0", **options)))
        assert difference(model, (1, 3, 64, 64)) < 1e-4, options


@pytest.mark.parametrize("variant", ["swin_v1_t", "pvt_v2_b0"])
@pytest.mark.parametrize("size", ["256x256", "192x320"])
def test_logits_equal_the_published_network(variant, size, filled, reference):
    prepared = bc.prepare(bc.model_from_state_dict(filled(variant)))
    expected = torch.from_numpy(reference(f"{variant}_{size}").logits)
    found = prepared(torch.from_numpy(reference(f"input_{size}").x)).logits[0, 0]
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_smaller_pieces_give_the_same_logits(filled):
    prepared = bc.prepare(bc.model_from_state_dict(filled("pvt_v2_b0")))
    x = torch.randn(1, 3, 64, 64)
    expected = prepared(x).logits
    while prepared.spare_memory():
        pass
    torch.testing.assert_close(prepared(x).logits, expected, atol=1e-4, rtol=1e-4)


def test_preparing_leaves_the_network_alone(filled):
    model = bc.model_from_state_dict(filled("pvt_v2_b0")).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = bc.prepare(model)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    shared = {p.data_ptr() for p in model.localization.encoder.parameters()}
    assert shared <= {p.data_ptr() for p in prepared.parameters()}


def masks_of(network, x):
    with torch.no_grad():
        return torch.sigmoid(network(x).logits.float())


@pytest.mark.parametrize("compute", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", ["pvt_v2_b0", pytest.param("swin_v1_t", marks=pytest.mark.slow)])
def test_every_precision_stays_near_float32(variant, stored, compute, filled):
    """The masks of the stored weights, computed in float32, are what the other precisions must come near to."""
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    weights = {name: value.to(stored) for name, value in filled(variant).items()}
    expected = masks_of(bc.prepare(bc.model_from_state_dict(weights, dtype=torch.float32)), x)
    model = bc.model_from_state_dict(weights, dtype=compute)
    for network in (model, bc.prepare(model)):
        found = masks_of(network, x.to(compute))
        assert found.isfinite().all()
        assert (found - expected).abs().mean() < 2e-3


def test_a_network_brought_to_bfloat16_is_as_one_loaded_in_it(filled):
    x = torch.randn(1, 3, 64, 64)
    loaded = bc.model_from_state_dict(filled("pvt_v2_b0"), dtype=torch.bfloat16)
    moved = bc.model_from_state_dict(filled("pvt_v2_b0")).to(torch.bfloat16)
    prepared = bc.prepare(bc.model_from_state_dict(filled("pvt_v2_b0"))).bfloat16()
    assert moved.reconstruction.head.weight.dtype == prepared.final.second.weight.dtype == torch.float32
    assert torch.equal(masks_of(loaded, x), masks_of(moved, x))
    torch.testing.assert_close(masks_of(prepared, x), masks_of(moved, x), atol=5e-3, rtol=0)


def test_most_weights_are_rounded_in_bfloat16(filled):
    model = bc.model_from_state_dict(filled("swin_v1_t")).to(torch.bfloat16).localization.encoder
    rounded = sum(p.numel() for p in model.parameters() if p.dtype == torch.bfloat16)
    assert rounded > 0.9 * sum(p.numel() for p in model.parameters())


def test_two_convolutions_as_one_are_exact_inside():
    first, second = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 2, 3, padding=1)
    x = torch.randn(1, 3, 9, 11)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(folding.compose(first, second)(x)[inner], second(first(x))[inner])


def test_split_convolutions_add_up():
    conv, maps = nn.Conv2d(5, 4, 3, padding=1), (torch.randn(1, 2, 6, 6), torch.randn(1, 3, 6, 6))
    parts = folding.split_inputs(conv, [2, 3])
    torch.testing.assert_close(sum(p(m) for p, m in zip(parts, maps, strict=True)), conv(torch.cat(maps, dim=1)))
