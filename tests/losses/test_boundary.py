from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from birefnet_core.losses import ssim, structure


def plain_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """1 - SSIM by the definition: one window at a time, central moments instead of differences of raw ones."""
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    x, y = np.pad(x, 5), np.pad(y, 5)
    losses = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            similarity = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
            losses.append(1 - similarity / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
    return float(np.mean(losses))


def test_ssim_equals_definition_window_by_window(pair):
    logits, label = (x.detach()[:1] for x in pair)
    expected = plain_ssim(logits.sigmoid()[0, 0].numpy(), label[0, 0].numpy())
    assert ssim(logits, label).item() == pytest.approx(expected, rel=1e-10)


def test_ssim_halved_equals_recorded_values_at_every_scale(recorded, recorded_scales):
    halves = [value / 2 for value in recorded_scales(ssim)]
    assert halves == pytest.approx(recorded.values["unweighted_terms_per_scale"]["ssim"], rel=1e-5)


def test_ssim_of_constant_maps_equals_recorded_values(recorded):
    zero, one = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    black, white = torch.full_like(zero, -200), torch.full_like(zero, 200)
    edge = recorded.values["edge"]
    assert ssim(black, one).item() / 2 == pytest.approx(edge["ssim_const0_vs_const1"], rel=1e-5)
    assert ssim(black, zero).item() == ssim(white, one).item() == edge["ssim_identical_const"] == 0


def test_ssim_takes_images_smaller_than_its_window():
    assert ssim(torch.zeros(1, 1, 2, 3), torch.full((1, 1, 2, 3), 0.5)).item() == pytest.approx(0, abs=1e-6)


def test_structure_equals_hand_computed_weighted_mean():
    mask = torch.tensor([0.8, 0.3], dtype=torch.float64).view(1, 1, 1, 2)
    label = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
    near = 1 / 31**2  # the window of either pixel holds the one foreground pixel
    weights = 1 + 5 * (1 - near), 1 + 5 * near
    entropy = -(weights[0] * math.log(0.8) + weights[1] * math.log(0.7)) / sum(weights)
    intersection, total = weights[0] * 0.8, weights[0] * 1.8 + weights[1] * 0.3
    expected = entropy + 1 - (intersection + 1) / (total - intersection + 1)
    assert structure(mask.logit(), label).item() == pytest.approx(expected, rel=1e-12)


def test_structure_equals_recorded_value_of_constant_map(recorded):
    value = structure(torch.full((1, 1, 32, 32), 5.0), torch.ones(1, 1, 32, 32)).item()
    assert value == pytest.approx(recorded.values["edge"]["structure_logit5_gt1"], rel=1e-5)


def test_structure_with_double_sigmoid_equals_recorded_values_at_every_scale(recorded, recorded_scales):
    expected = recorded.values["unweighted_terms_per_scale"]["structure"]
    assert recorded_scales(structure, double_sigmoid=True) == pytest.approx(expected, rel=1e-6)


def test_structure_of_a_perfect_mask_is_zero_only_without_double_sigmoid():
    label = torch.zeros(1, 1, 40, 40)
    label[..., :20] = 1
    logits = 400 * (label - 0.5)
    assert structure(logits, label).item() == pytest.approx(0, abs=1e-6)
    assert structure(logits, label, double_sigmoid=True).item() > 0.3


@pytest.mark.parametrize("term", [ssim, structure, partial(structure, double_sigmoid=True)])
def test_boundary_term_passes_gradcheck(term, pair):
    assert torch.autograd.gradcheck(term, pair)


@pytest.mark.parametrize("term", [ssim, structure, partial(structure, double_sigmoid=True)])
def test_boundary_term_is_finite_for_saturated_logits(term, assert_finite):
    assert_finite(term)


@pytest.mark.parametrize("term", [ssim, structure])
def test_boundary_term_is_not_changed_by_autocast(term, recorded):
    logits, label = recorded.maps[-1], recorded.gt
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = term(logits, label)
    assert value.item() == term(logits, label).item()


@pytest.mark.parametrize("term", [ssim, structure])
def test_boundary_term_rejects_label_of_other_shape(term, assert_rejects_mismatch):
    assert_rejects_mismatch(term)
