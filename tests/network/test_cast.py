"""Networks in half precision: masks near those of float32, and ``.to`` left alone."""

import copy

import pytest
import torch
from torch import nn

import birefnet_core as bc
from birefnet_core.checkpoints import build
from birefnet_core.network.cast import cast_for_inference, dtype_of, state_dtypes
from birefnet_core.network.encoders.registry import BACKBONE_SPECS


def masks_of(network, x):
    with torch.no_grad():
        return torch.sigmoid(network(x).logits.float())


@pytest.fixture(scope="module")
def in_float32(filled):
    """Masks of weights that were stored in a precision, computed in float32; made once."""
    made = {}

    def get(variant, stored, x):
        if (variant, stored) not in made:
            weights = {name: value.to(stored) for name, value in filled(variant).items()}
            fused = bc.fuse_for_inference(bc.model_from_state_dict(weights, dtype=torch.float32))
            made[variant, stored] = masks_of(fused, x)
        return made[variant, stored]

    return get


DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Each precision to store in and each to compute in; the others differ from these in the rounding of weights only.
PRECISIONS = [
    *((torch.float32, compute) for compute in DTYPES),
    (torch.float16, torch.bfloat16),
    (torch.bfloat16, torch.float16),
]


@pytest.mark.parametrize(
    ("variant", "stored", "compute"),
    [
        pytest.param(
            variant, stored, compute,
            marks=() if variant == "pvt_v2_b0" and (stored, compute) in PRECISIONS else pytest.mark.slow,
        )
        for variant in ("pvt_v2_b0", "swin_v1_t")
        for stored in DTYPES
        for compute in DTYPES
    ],
)  # fmt: skip
def test_every_precision_stays_near_float32(variant, stored, compute, filled, in_float32):
    """The masks of the stored weights, computed in float32, are what the other precisions must come near to."""
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = in_float32(variant, stored, x)
    weights = {name: value.to(stored) for name, value in filled(variant).items()}
    model = bc.model_from_state_dict(weights, dtype=compute)
    for network in (model, bc.fuse_for_inference(model)):
        found = masks_of(network, x.to(compute))
        assert found.isfinite().all()
        assert (found - expected).abs().mean() < 2e-3


@pytest.mark.parametrize(
    ("variant", "fine_dtype"),
    [
        ("swin_v1_t", torch.float16),
        ("pvt_v2_b0", torch.float32),
        ("resnet50", torch.float32),
        *(
            pytest.param(variant, fine_dtype, marks=pytest.mark.slow)
            for variant, fine_dtype in (
                ("swin_v1_t", torch.float32), ("pvt_v2_b0", torch.float16), ("resnet50", torch.float16),
                ("swin_v1_l", torch.float32), ("swin_v1_l", torch.float16),
            )
        ),
    ],
)  # fmt: skip
def test_the_largest_change_of_a_mask_in_bfloat16_is_small(variant, fine_dtype, filled, reference):
    x = torch.from_numpy(reference("input_256x256").x)
    fused = bc.fuse_for_inference(bc.model_from_state_dict(filled(variant)))
    expected = masks_of(fused, x)
    found = masks_of(cast_for_inference(fused, torch.bfloat16, fine_dtype=fine_dtype), x.to(fine_dtype))
    assert (found - expected).abs().max() < 5e-3


def test_a_network_that_is_cast_is_as_one_loaded_in_bfloat16(filled, published):
    x = torch.randn(1, 3, 64, 64)
    loaded = bc.model_from_state_dict(filled("pvt_v2_b0"), dtype=torch.bfloat16)
    cast = cast_for_inference(copy.deepcopy(published("pvt_v2_b0")), torch.bfloat16)
    assert {n: t.dtype for n, t in loaded.state_dict().items()} == {n: t.dtype for n, t in cast.state_dict().items()}
    expected = masks_of(loaded, x)
    assert torch.equal(expected, masks_of(cast, x))
    again = cast_for_inference(cast, torch.bfloat16)
    assert torch.equal(expected, masks_of(again, x))
    assert len(again.reconstruction.head._forward_pre_hooks) == 1
    first = bc.fuse_for_inference(cast)
    last = cast_for_inference(bc.fuse_for_inference(copy.deepcopy(published("pvt_v2_b0"))), torch.bfloat16)
    assert torch.equal(masks_of(first, x), masks_of(last, x))


def test_norms_of_trainings_on_several_gpus_are_cast_as_others():
    torch.manual_seed(0)
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone="resnet10", reconstruction_block="aspp")).eval()
    synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    x = torch.rand(1, 3, 64, 64)
    found, expected = (masks_of(cast_for_inference(each, torch.bfloat16), x) for each in (synchronised, model))
    assert torch.equal(found, expected)


def test_the_source_of_a_fused_network_is_not_cast_with_it():
    model = build.empty_network(bc.BiRefNetConfig(backbone="resnet50"))
    cast_for_inference(bc.fuse_for_inference(model), torch.bfloat16, fine_dtype=torch.float16)
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {torch.float32}


def test_most_weights_of_an_encoder_are_in_bfloat16(filled):
    model = bc.model_from_state_dict(filled("swin_v1_t"), dtype=torch.bfloat16)
    assert dtype_of(model) == torch.bfloat16
    encoder = model.localization.encoder
    rounded = sum(p.numel() for p in encoder.parameters() if p.dtype == torch.bfloat16)
    assert rounded > 0.9 * sum(p.numel() for p in encoder.parameters())
    assert {p.dtype for p in model.reconstruction.parameters()} == {torch.float32}


@pytest.mark.parametrize("backbone", BACKBONE_SPECS)
def test_every_backbone_names_modules_it_has(backbone):
    model = build.empty_network(bc.BiRefNetConfig(backbone=backbone))
    for fine_dtype in (torch.float32, torch.float16):
        dtypes = state_dtypes(model, torch.bfloat16, fine_dtype=fine_dtype)
        sizes = {name: p.numel() for name, p in model.localization.encoder.named_parameters("localization.encoder")}
        rounded = sum(size for name, size in sizes.items() if dtypes[name] == torch.bfloat16)
        assert 0.1 < rounded / sum(sizes.values()) < 1
        assert all(dtype != torch.bfloat16 for name, dtype in dtypes.items() if name not in sizes)
        norms = [name for name, module in model.named_modules() if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d))]
        assert {dtypes[f"{name}.weight"] for name in norms} <= {fine_dtype}


def test_to_casts_everything():
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0")).eval().to(torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16)).logits.dtype == torch.bfloat16
    state = state_dtypes(model, torch.float16)
    assert set(state.values()) == {torch.float16, torch.int64}
