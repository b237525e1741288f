"""The network against recorded tensors of the published one."""

import numpy as np
import pytest
import torch

import birefnet_core as bc
from birefnet_core.network.outward_reference import gradient_label, image_gradient

from .conftest import without_noise

MODELS = ("swin_v1_t", "pvt_v2_b0")
SIZES = ("256x256", "192x320")

# Allowed difference from the recorded network, as a share of the largest magnitude.
LOGITS, TRAINING, FEATURES = 1e-4, 1e-5, 5e-5


@pytest.fixture(scope="module")
def recorded_run(published, reference):
    """Output and features of a network for the recorded image of a size, computed once."""
    made = {}

    def run(variant, size):
        model, seen = published(variant), {}
        hooks = [
            model.localization.encoder.register_forward_hook(
                lambda _m, _i, levels: seen.update({f"x{i}": x.concatenated() for i, x in enumerate(levels, 1)})
            ),
            model.localization.fusion.register_forward_hook(lambda _m, _i, out: seen.update(squeeze_in=out)),
            model.localization.squeeze.register_forward_hook(lambda _m, _i, out: seen.update(squeeze=out)),
        ]
        try:
            with torch.no_grad():
                return model(torch.from_numpy(reference(f"input_{size}").x)), seen
        finally:
            for hook in hooks:
                hook.remove()

    def get(variant, size):
        if (variant, size) not in made:
            made[variant, size] = run(variant, size)
        return made[variant, size]

    return get


def assert_close(found, expected, share):
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", MODELS)
def test_logits_equal_the_published_network(variant, size, recorded_run, reference):
    output, _ = recorded_run(variant, size)
    assert_close(output.logits[0, 0], reference(f"{variant}_{size}").logits, LOGITS)
    assert output.intermediate == () and output.gradient is None and output.classes is None


@pytest.mark.parametrize("size", [pytest.param("256x256", marks=pytest.mark.slow), "192x320"])
@pytest.mark.parametrize("variant", MODELS)
def test_both_patch_orders_equal_the_published_network(variant, size, filled, reference):
    x = torch.from_numpy(reference(f"input_{size}").x)
    recorded = reference(f"legacy_patch_order_{variant}_{size}")
    orders = {
        "channels_first": recorded.logits_order_c_hg_wg_current,
        "columns_first": recorded.logits_order_wg_hg_c_legacy,
    }
    for order, expected in orders.items():
        with torch.no_grad():
            logits = bc.model_from_state_dict(filled(variant), patch_order=order)(x).logits
        assert_close(logits[0, 0], expected, LOGITS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", MODELS)
def test_features_equal_the_published_network(variant, size, recorded_run, reference):
    (_, seen), recorded = recorded_run(variant, size), reference(f"{variant}_{size}")
    for name in ("x1", "x2", "x3", "x4", "squeeze"):
        feature, steps = seen[name][0].numpy(), recorded.meta["subsample"][name]
        c, s = steps["channel_stride"], steps["spatial_stride"]
        assert_close(feature[::c, ::s, ::s], recorded.arrays[f"{name}_sub"], FEATURES)
        assert_close(feature.mean((1, 2)), recorded.arrays[f"{name}_chmean"], FEATURES)
        assert_close(feature.std((1, 2)), recorded.arrays[f"{name}_chstd"], FEATURES)
    assert_close(seen["squeeze_in"][0].numpy().mean((1, 2)), recorded.squeeze_in_chmean, FEATURES)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", MODELS)
def test_training_outputs_equal_the_published_network(variant, size, published_training, reference):
    x, recorded = torch.from_numpy(reference(f"input_{size}").x), reference(f"{variant}_{size}")
    with torch.no_grad():
        output = published_training(variant)(x)
    assert_close(output.logits[0, 0], recorded.logits, TRAINING)
    assert_close(image_gradient(x)[0, 0], recorded.train_laplacian, TRAINING)
    for level, prediction, gradient, label in zip(
        (4, 3, 2), output.intermediate, output.gradient.predictions, output.gradient.labels, strict=True
    ):
        assert_close(prediction[0, 0], recorded.arrays[f"train_m{level}"], TRAINING)
        assert_close(gradient[0, 0], recorded.arrays[f"train_gdt_pred_{level}"], TRAINING)
        step = 1 if level == 4 else 2
        key = f"train_gdt_label_{level}" + ("" if step == 1 else "_stride2")
        assert_close(label[0, 0, ::step, ::step], recorded.arrays[key], TRAINING)


def test_class_logits_equal_the_published_network(filled, reference):
    model = without_noise(bc.model_from_state_dict(filled("swin_v1_t+auxcls")))
    with torch.no_grad():
        classes = model(torch.from_numpy(reference("input_256x256").x)).classes
    assert_close(classes[0], reference("swin_v1_t_auxcls_256x256").class_logits, LOGITS)


def test_dilated_gradient_label_keeps_gradients_near_the_object_only():
    gradient = torch.ones(1, 1, 64, 64)
    prediction = torch.full((1, 1, 8, 8), -1.0)
    prediction[0, 0, 4, 4] = 1.0
    label = gradient_label(gradient, prediction, "dilated")
    expected = torch.zeros(64, 64)
    expected[3 * 8 : 6 * 8, 3 * 8 : 6 * 8] = 1  # the cell and one cell around it
    assert torch.equal(label[0, 0], expected)


def test_dilated_gradient_label_passes_no_gradient_to_the_prediction():
    prediction = torch.randn(1, 1, 8, 8, requires_grad=True)
    assert not gradient_label(torch.ones(1, 1, 64, 64), prediction, "dilated").requires_grad
    assert gradient_label(torch.ones(1, 1, 64, 64), prediction, "logit").requires_grad


@pytest.mark.parametrize("backbone", ["swin_v1_t", "pvt_v2_b0", "resnet50", "dino_v3_s"])
def test_any_multiple_of_32_runs(backbone):
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone=backbone)).eval()
    for height, width in ((64, 64), (64, 96), (160, 64)):
        with torch.no_grad():
            logits = model(torch.randn(1, 3, height, width)).logits
        assert logits.shape == (1, 1, height, width)
        assert logits.isfinite().all()


def test_swin_runs_on_the_smallest_image(published):
    with torch.no_grad():
        assert published("swin_v1_t")(torch.randn(1, 3, 32, 32)).logits.shape == (1, 1, 32, 32)


def test_a_batch_equals_its_images_one_by_one(published):
    x = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        model = published("pvt_v2_b0")
        together = model(x).logits
        alone = torch.cat([model(image[None]).logits for image in x])
    assert_close(together, alone.numpy(), LOGITS)


@pytest.mark.parametrize(
    "shape", [(3, 64, 64), (1, 1, 64, 64), (0, 3, 64, 64), (1, 3, 64, 65), (1, 3, 0, 64), (1, 3, 32, 32)]
)
def test_images_that_do_not_fit_are_refused(shape, published):
    with pytest.raises(bc.ImageError, match="found"):
        published("pvt_v2_b0")(torch.zeros(shape))
