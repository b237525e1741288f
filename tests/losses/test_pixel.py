from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from birefnet_core.losses import bce, mae, mse


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).logit().view(1, 1, 1, -1)


def test_bce_equals_hand_computed_mean():
    label = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64).view(1, 1, 1, 3)
    expected = -(math.log(0.8) + math.log(0.7) + 0.5 * math.log(0.4) + 0.5 * math.log(0.6)) / 3
    assert bce(logits_of(0.8, 0.3, 0.4), label).item() == pytest.approx(expected, rel=1e-12)
    assert bce(logits_of(0.8, 0.3, 0.4), label, log_floor=-100).item() == pytest.approx(expected, rel=1e-12)


def test_mae_and_mse_equal_hand_computed_means():
    label = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64).view(1, 1, 1, 3)
    logits = logits_of(0.8, 0.3, 0.4)
    assert mae(logits, label).item() == pytest.approx((0.2 + 0.3 + 0.1) / 3, rel=1e-12)
    assert mse(logits, label).item() == pytest.approx((0.04 + 0.09 + 0.01) / 3, rel=1e-12)


@pytest.mark.parametrize("term", [bce, mae, mse])
def test_pixel_term_equals_recorded_values_at_every_scale(term, recorded, recorded_scales):
    expected = recorded.values["unweighted_terms_per_scale"][term.__name__]
    assert recorded_scales(term) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("logit", "label", "name"), [(200.0, 0.0, "bce_logit200_gt0"), (-200.0, 1.0, "bce_logit_minus200_gt1")]
)
def test_bce_with_log_floor_equals_recorded_limit(logit, label, name, recorded):
    logits, target = torch.full((1, 1, 4, 4), logit), torch.full((1, 1, 4, 4), label)
    assert bce(logits, target, log_floor=-100).item() == recorded.values["edge"][name] == 100
    assert bce(logits, target).item() == 200


def test_bce_keeps_its_gradient_where_the_mask_is_saturated():
    logits = torch.tensor([-300.0, 300.0]).view(1, 1, 1, 2).requires_grad_()
    bce(logits, torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)).backward()
    assert logits.grad.flatten().tolist() == [-0.5, 0.5]


def test_bce_with_log_floor_equals_torch_on_probabilities():
    logits = torch.linspace(-12, 12, 49).view(1, 1, 7, 7)
    label = torch.linspace(0, 1, 49).view(1, 1, 7, 7)
    expected = F.binary_cross_entropy(logits.double().sigmoid(), label.double()).item()
    assert bce(logits, label, log_floor=-100).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("term", [bce, mae, mse])
def test_pixel_term_is_zero_for_a_perfect_mask(term):
    label = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert term(torch.tensor([-200.0, 200.0]).view(1, 1, 1, 2), label).item() == 0


@pytest.mark.parametrize("term", [bce, mae, mse])
def test_pixel_term_passes_gradcheck(term, pair):
    assert torch.autograd.gradcheck(term, pair)


@pytest.mark.parametrize("term", [bce, mae, mse, lambda x, y: bce(x, y, log_floor=-100)])
def test_pixel_term_is_finite_for_saturated_logits(term, assert_finite):
    assert_finite(term)


@pytest.mark.parametrize("term", [bce, mae, mse])
def test_pixel_term_rejects_label_of_other_shape(term, assert_rejects_mismatch):
    assert_rejects_mismatch(term)


def test_pixel_term_accepts_bool_labels():
    label = torch.tensor([True, False]).view(1, 1, 1, 2)
    assert bce(torch.zeros(1, 1, 1, 2), label).item() == pytest.approx(math.log(2))
