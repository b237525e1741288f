"""Region level: intersection over union (Eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import check_logits_and_label

EMPTY_UNION = 1e-12  # pixels; a smaller union is none: its inverse would overflow in float32


def iou(logits: Tensor, label: Tensor) -> Tensor:
    """Soft intersection over union (Eq. 3): per image 1 - sum(m g) / sum(m + g - m g), then the mean over the batch.

    Published training takes the sum over the batch; ``LossWeights.from_published`` accounts for it. Where label and
    mask are both empty, 0 / 0, the loss is 0 (published: NaN). Near that point an empty label gives the constant 1
    without a gradient, as the definition does: empty images are learned by other terms.

    Args:
        logits: B, 1, H, W; the mask is their sigmoid.
        label: B, 1, H, W in [0, 1].

    Returns:
        A scalar in [0, 1].
    """
    logits, label = check_logits_and_label(logits, label)
    mask = logits.sigmoid()
    intersection = (mask * label).sum(dim=(1, 2, 3))  # B
    union = (mask + label - mask * label).sum(dim=(1, 2, 3))  # B
    empty = union < EMPTY_UNION
    ratio = intersection / torch.where(empty, 1, union)
    return torch.where(empty, 0, 1 - ratio).mean()
