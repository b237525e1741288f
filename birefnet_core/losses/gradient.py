"""Supervision of the gradient maps of the outward reference (Sec. 3.4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..autocast import at_least_float32
from ..image_ops import resize
from .common import check_logits_and_label, check_map


def gradient_map(prediction: Tensor, label: Tensor) -> Tensor:
    """Binary cross entropy between the sigmoids of a gradient map and of its label, mean over pixels and batch.

    The sigmoid of the label is published: gradients are signed, and 0.5 means none. The label is not detached, so that
    labels made with ``gradient_mask="logit"`` pass gradients on to the intermediate prediction, as published; those of
    "dilated" have none to pass.

    Args:
        prediction: B, 1, h, w, logits of a gradient map; resized to its label.
        label: B, 1, H, W, of any range.

    Returns:
        A scalar >= 0; its least value is the entropy of the label, not 0.
    """
    check_map(prediction, "the gradient map")
    check_map(label, "its label")
    prediction = resize(at_least_float32(prediction), label.shape[-2:], align_corners=True)  # B 1 H W
    prediction, label = check_logits_and_label(prediction, label)
    return F.binary_cross_entropy_with_logits(prediction, label.sigmoid())
