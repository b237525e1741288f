from __future__ import annotations

import math

import pytest
import torch

from birefnet_core.losses import iou


def test_iou_equals_hand_computed_batch_mean():
    mask = torch.tensor([[0.5, 0.25], [0.75, 0.5]], dtype=torch.float64).view(2, 1, 1, 2)
    label = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64).view(2, 1, 1, 2)
    # intersections 0.5 and 1.25; unions 1 + 0.25 and 2
    expected = ((1 - 0.5 / 1.25) + (1 - 1.25 / 2)) / 2
    assert iou(mask.logit(), label).item() == pytest.approx(expected, rel=1e-12)


def test_iou_times_batch_equals_recorded_sum_at_every_scale(recorded, recorded_scales):
    sums = [len(recorded.gt) * value for value in recorded_scales(iou)]
    assert sums == pytest.approx(recorded.values["unweighted_terms_per_scale"]["iou"], rel=1e-6)


def test_iou_of_two_empty_maps_is_zero_where_published_is_nan(recorded):
    logits = torch.full((1, 1, 4, 4), -200.0, requires_grad=True)
    value = iou(logits, torch.zeros(1, 1, 4, 4))
    value.backward()
    assert math.isnan(recorded.values["edge"]["iou_pred0_gt0"])
    assert value.item() == 0
    assert not logits.grad.any()


def test_iou_of_an_empty_image_leaves_the_others_alone():
    logits = torch.tensor([-200.0, 0.0]).view(2, 1, 1, 1).requires_grad_()
    value = iou(logits, torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    value.backward()
    assert value.item() == pytest.approx((0 + 0.5) / 2)
    assert logits.grad.flatten().tolist() == pytest.approx([0, -0.125])


@pytest.mark.parametrize(("logit", "label", "expected"), [(200, 1, 0), (-200, 1, 1), (200, 0, 1), (0, 0, 1)])
def test_iou_of_constant_maps(logit, label, expected):
    assert iou(torch.full((1, 1, 4, 4), float(logit)), torch.full((1, 1, 4, 4), float(label))).item() == expected


def test_iou_passes_gradcheck(pair):
    assert torch.autograd.gradcheck(iou, pair)


def test_iou_is_finite_for_saturated_logits(assert_finite):
    assert_finite(iou)


def test_iou_is_finite_on_the_way_to_an_empty_union():
    for logit in torch.linspace(-110, -20, 91).tolist():
        logits = torch.full((1, 1, 8, 8), logit, requires_grad=True)
        value = iou(logits, torch.zeros(1, 1, 8, 8))
        (65536 * value).backward()  # as a gradient scaler would
        assert value.item() in (0, 1)
        assert logits.grad.isfinite().all(), logit


def test_iou_rejects_label_of_other_shape(assert_rejects_mismatch):
    assert_rejects_mismatch(iou)
