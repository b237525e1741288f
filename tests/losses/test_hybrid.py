from __future__ import annotations

import pytest
import torch

from birefnet_core import BiRefNet, BiRefNetConfig, BiRefNetOutput, ConfigError, ImageError
from birefnet_core.losses import HybridLoss, LossWeights, bce, loss_preset
from birefnet_core.losses.hybrid import MAP_TERMS
from birefnet_core.network import GradientMaps
from birefnet_core.network.outward_reference import gradient_label

PUBLISHED_TASKS = {"DIS5K": "dis5k", "General": "general", "Matting": "matting"}


def output_of(recorded, **parts) -> BiRefNetOutput:
    """The recorded maps as leaves of a graph."""
    *intermediate, logits = [x.clone().requires_grad_() for x in recorded.maps]
    return BiRefNetOutput(logits, tuple(intermediate), **parts)


def published(name: str, batch_size: int) -> HybridLoss:
    return HybridLoss(loss_preset(name).from_published(batch_size))


@pytest.mark.parametrize("task", PUBLISHED_TASKS)
def test_hybrid_loss_equals_recorded_total_and_terms(task, recorded):
    expected = recorded.values["pixloss"][task]
    value = published(PUBLISHED_TASKS[task], len(recorded.gt))(output_of(recorded), recorded.gt)
    assert value.total.item() == pytest.approx(expected["total"], rel=1e-6)
    # published reports the mean over maps
    means = {name: term.item() / len(recorded.maps) for name, term in value.terms.items()}
    assert means == pytest.approx(expected["loss_dict"], rel=1e-5)


@pytest.mark.parametrize("task", PUBLISHED_TASKS)
def test_hybrid_loss_gradients_equal_recorded_ones(task, recorded):
    """As a whole; single values carry float32 noise, here and there, of up to 1e-4 of the largest."""
    output = output_of(recorded)
    published(PUBLISHED_TASKS[task], len(recorded.gt))(output, recorded.gt).total.backward()
    gradients = [x.grad for x in (*output.intermediate, output.logits)]
    gradients[-1] = gradients[-1][..., ::2, ::2]  # as stored
    for i, gradient in enumerate(gradients):
        expected = getattr(recorded, f"grad_{task}_pred_{i}")
        assert (gradient - expected).norm() <= 1e-5 * expected.norm()
        assert (gradient - expected).abs().max() <= 2e-4 * expected.abs().max()


def test_hybrid_loss_equals_recorded_total_at_a_quarter_of_the_weights(recorded):
    expected = recorded.values["pixloss_DIS5K_pix_loss_lambda_0.25"]["total"]
    weights = LossWeights(bce=30 / 4, iou=0.5 / 4, ssim=10 / 4).from_published(len(recorded.gt))
    assert HybridLoss(weights)(output_of(recorded), recorded.gt).total.item() == pytest.approx(expected, rel=1e-6)


def test_hybrid_loss_adds_gradient_maps_and_classes(recorded):
    labels = tuple(gradient_label(recorded.gdt_laplacian, getattr(recorded, f"gdt_m_{i}"), "logit") for i in range(3))
    maps = GradientMaps(tuple(getattr(recorded, f"gdt_pred_{i}") for i in range(3)), labels)
    output = output_of(recorded, gradient=maps, classes=recorded.cls_logits[:2])
    value = published("dis5k", 2)(output, recorded.gt, recorded.cls_labels[:2])
    assert list(value.terms) == ["bce", "iou", "ssim", "gradient", "ce"]
    assert value.terms["gradient"].item() == pytest.approx(recorded.values["gdt_loss"], rel=1e-6)
    maps_only = recorded.values["pixloss"]["DIS5K"]["total"]
    assert value.total.item() == pytest.approx(
        maps_only + recorded.values["gdt_loss"] + value.terms["ce"].item(), rel=1e-6
    )


def test_hybrid_loss_total_is_the_sum_of_its_terms(recorded):
    value = HybridLoss(LossWeights(**dict.fromkeys(MAP_TERMS, 0.7)))(output_of(recorded), recorded.gt)
    assert list(value.terms) == list(MAP_TERMS)
    assert value.total.item() == pytest.approx(sum(term.item() for term in value.terms.values()), rel=1e-6)
    assert not any(term.requires_grad for term in value.terms.values())


def test_hybrid_loss_is_a_mean_over_images(recorded):
    """Two half batches give the gradient of the whole one: what accumulation and several processes rely on."""
    loss = HybridLoss(loss_preset("general"))
    whole = loss(output_of(recorded), recorded.gt).total
    halves = [
        loss(BiRefNetOutput(recorded.maps[-1][i : i + 1], tuple(m[i : i + 1] for m in recorded.maps[:-1])), gt[None])
        for i, gt in enumerate(recorded.gt)
    ]
    assert whole.item() == pytest.approx(sum(half.total.item() for half in halves) / 2, rel=1e-6)


def test_hybrid_loss_compares_final_map_alone_without_intermediate_ones(recorded):
    value = HybridLoss(LossWeights(bce=2, gradient=1, ce=5))(BiRefNetOutput(recorded.maps[-1]), recorded.gt)
    assert list(value.terms) == ["bce"]
    assert value.total.item() == pytest.approx(2 * bce(recorded.maps[-1], recorded.gt).item(), rel=1e-6)


def test_hybrid_loss_clamps_labels_as_published():
    output = BiRefNetOutput(torch.zeros(1, 1, 4, 4))
    loss = HybridLoss(LossWeights(mae=1))
    assert loss(output, torch.full((1, 1, 4, 4), 1.7)).total.item() == 0.5


def test_hybrid_loss_passes_gradcheck(pair):
    logits, label = pair
    coarse = torch.randn(2, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    loss = HybridLoss(LossWeights(bce=30, iou=0.5, ssim=10, mae=100, mse=1, structure=1))
    assert torch.autograd.gradcheck(lambda x, y: loss(BiRefNetOutput(x, (y,)), label).total, (logits, coarse))


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_hybrid_loss_is_finite_for_saturated_maps_in_half_precision(dtype, label):
    sizes_and_values = ((2, -6e4), (8, 6e4), (32, -100))
    leaves = [torch.full((2, 1, size, size), v, dtype=dtype, requires_grad=True) for size, v in sizes_and_values]
    loss = HybridLoss(LossWeights(**dict.fromkeys(MAP_TERMS, 10)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(BiRefNetOutput(leaves[-1], tuple(leaves[:-1])), torch.full((2, 1, 32, 32), label))
    value.total.backward()
    assert value.total.dtype == torch.float32
    assert value.total.isfinite()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_hybrid_loss_rejects_labels_that_do_not_fit(recorded):
    loss, output = HybridLoss(loss_preset("dis5k")), output_of(recorded)
    with pytest.raises(ImageError, match="the label has 1 images, but the network gave 2"):
        loss(output, recorded.gt[:1])
    with pytest.raises(ImageError, match=r"the label must have the shape B, 1, H, W; found \(2, 96, 128\)"):
        loss(output, recorded.gt[:, 0])
    with pytest.raises(ImageError, match="Divide 8-bit masks by 255"):
        loss(output, recorded.gt.byte())


def test_hybrid_loss_rejects_weights_whose_outputs_are_missing(recorded):
    with pytest.raises(ConfigError, match="no class labels"):
        HybridLoss(loss_preset("dis5k"))(output_of(recorded, classes=recorded.cls_logits[:2]), recorded.gt)
    with pytest.raises(ConfigError, match="this output has none"):
        HybridLoss(LossWeights(ce=5))(output_of(recorded), recorded.gt)


def test_hybrid_loss_gives_every_parameter_a_gradient():
    torch.manual_seed(0)
    network = BiRefNet(BiRefNetConfig(backbone="pvt_v2_b0", num_classes=3, gradient_mask="logit"))
    output = network(torch.randn(2, 3, 64, 64))
    value = HybridLoss(loss_preset("general"))(output, (torch.rand(2, 1, 64, 64) > 0.5).float(), torch.tensor([0, 2]))
    value.total.backward()
    assert set(value.terms) == {"bce", "iou", "ssim", "mae", "gradient", "ce"}
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_required_outputs_are_those_whose_parameters_get_a_gradient():
    """Every weight on its own, so that a new term cannot be forgotten: several processes rely on this."""
    torch.manual_seed(0)
    network = BiRefNet(BiRefNetConfig(backbone="pvt_v2_b0", num_classes=3, reconstruction_block="residual"))
    label = (torch.rand(2, 1, 64, 64) > 0.5).float()
    output = network(torch.randn(2, 3, 64, 64))
    heads = {"logits": output.logits, "classes": output.classes, "intermediate": output.intermediate[0],
             "gradient": output.gradient.predictions[0]}  # fmt: skip
    for name in LossWeights(bce=1).to_dict():
        loss = HybridLoss(LossWeights(**{name: 1}))
        total = loss(output, label, torch.tensor([0, 2])).total
        gradients = torch.autograd.grad(total, list(heads.values()), retain_graph=True, allow_unused=True)
        found = {key for key, gradient in zip(heads, gradients, strict=True) if gradient is not None}
        assert found == loss.required_outputs, name
