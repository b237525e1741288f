from __future__ import annotations

import math

import pytest
import torch

from birefnet_core import ImageError
from birefnet_core.losses import cross_entropy


def test_cross_entropy_equals_hand_computed_mean():
    logits = torch.tensor([[math.log(1.0), math.log(3.0)], [math.log(2.0), math.log(2.0)]], dtype=torch.float64)
    expected = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    assert cross_entropy(logits, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-12)


def test_cross_entropy_equals_recorded_value(recorded):
    value = cross_entropy(recorded.cls_logits, recorded.cls_labels).item()
    assert value == pytest.approx(recorded.values["clsloss"]["cross_entropy"], rel=1e-6)
    assert 5 * value == pytest.approx(recorded.values["clsloss"]["total"], rel=1e-6)


def test_cross_entropy_leaves_out_images_of_unknown_class(recorded):
    labels = recorded.cls_labels.clone()
    labels[1:] = -1
    expected = cross_entropy(recorded.cls_logits[:1], labels[:1])
    assert cross_entropy(recorded.cls_logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_cross_entropy_without_any_known_class_is_zero():
    logits = torch.randn(3, 5, requires_grad=True)
    value = cross_entropy(logits, torch.full((3,), -1))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


def test_cross_entropy_passes_gradcheck():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, torch.tensor([4, -1, 0])), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_cross_entropy_is_finite_for_saturated_logits(dtype):
    logits = torch.tensor([[6e4, -6e4, 0.0], [-6e4, 6e4, 6e4]], dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = cross_entropy(logits, torch.tensor([1, 0]))
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0]), "int64 labels B"),
        (torch.tensor([[0], [1]]), "int64 labels B"),
        (torch.tensor([0.0, 1.0]), "int64 labels B"),
        (torch.tensor([0, 5]), r"0 \.\.\. 4.*found 0 \.\.\. 5"),
        (torch.tensor([0, -2]), r"found -2 \.\.\. 0"),
    ],
)
def test_cross_entropy_rejects_labels_that_do_not_fit(labels, message):
    with pytest.raises(ImageError, match=message):
        cross_entropy(torch.zeros(2, 5), labels)
