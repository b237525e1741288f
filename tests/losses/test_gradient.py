from __future__ import annotations

import math

import pytest
import torch

from birefnet_core import ImageError
from birefnet_core.losses import gradient_map
from birefnet_core.network.outward_reference import gradient_label


def test_gradient_map_equals_hand_computed_value():
    prediction, label = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), math.log(3.0))  # 0.5 against 0.75
    assert gradient_map(prediction, label).item() == pytest.approx(math.log(2), rel=1e-6)
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))  # entropy: the least value
    assert gradient_map(label, label).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_map_equals_recorded_value_and_gradients_with_logit_mask(recorded):
    predictions = [getattr(recorded, f"gdt_pred_{i}").clone().requires_grad_() for i in range(3)]
    masks = [getattr(recorded, f"gdt_m_{i}").clone().requires_grad_() for i in range(3)]
    labels = [gradient_label(recorded.gdt_laplacian, mask, "logit") for mask in masks]
    total = sum(gradient_map(*pair) for pair in zip(predictions, labels, strict=True))
    total.backward()
    assert total.item() == pytest.approx(recorded.values["gdt_loss"], rel=1e-6)
    for i in range(3):
        for tensor, name in ((predictions[i], "pred"), (masks[i], "m")):
            expected = getattr(recorded, f"gdt_grad_{name}_{i}")
            torch.testing.assert_close(tensor.grad, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_gradient_map_passes_nothing_to_the_mask_with_dilated_labels(recorded):
    mask = recorded.gdt_m_2.clone().requires_grad_()
    assert not gradient_label(recorded.gdt_laplacian, mask, "dilated").requires_grad


def test_gradient_map_passes_gradcheck_on_prediction_and_label():
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 1, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    label = torch.randn(2, 1, 6, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gradient_map, (prediction, label))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [-6e4, 0.0, 6e4])
def test_gradient_map_is_finite_for_saturated_maps(dtype, value):
    prediction = torch.full((1, 1, 3, 4), value, dtype=dtype, requires_grad=True)
    label = torch.full((1, 1, 12, 16), -value, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = gradient_map(prediction, label)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert prediction.grad.isfinite().all()
    assert label.grad.isfinite().all()


def test_gradient_map_rejects_label_of_another_batch():
    with pytest.raises(ImageError, match="same shape"):
        gradient_map(torch.zeros(1, 1, 3, 4), torch.zeros(2, 1, 6, 8))
    with pytest.raises(ImageError, match="the gradient map must have"):
        gradient_map(torch.zeros(2, 3, 4), torch.zeros(2, 1, 6, 8))
