"""Pixel level: binary cross entropy (Eq. 2), mean absolute and mean squared error."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .common import check_logits_and_label


def bce(logits: Tensor, label: Tensor, *, log_floor: float | None = None) -> Tensor:
    """Binary cross entropy (Eq. 2): mean over pixels and batch of -[g log m + (1 - g) log(1 - m)].

    Published training takes probabilities and clamps both logarithms at -100, so that a pixel which is wrong beyond the
    reach of float32 (a logit of about 17) costs 100 and has no gradient. From logits nothing needs a clamp: the cost
    grows on with the logit and the gradient stays m - g.

    Args:
        logits: B, 1, H, W.
        label: B, 1, H, W in [0, 1].
        log_floor: Lowest value of a logarithm; -100 limits the cost of a pixel as published does. None: no limit.

    Returns:
        A scalar >= 0.
    """
    logits, label = check_logits_and_label(logits, label)
    if log_floor is None:
        return F.binary_cross_entropy_with_logits(logits, label)
    positive = F.logsigmoid(logits).clamp(min=log_floor)
    negative = F.logsigmoid(-logits).clamp(min=log_floor)
    return -(label * positive + (1 - label) * negative).mean()


def mae(logits: Tensor, label: Tensor) -> Tensor:
    """Mean absolute error of the mask, over pixels and batch, as published for the general and matting models.

    Args:
        logits: B, 1, H, W; the mask is their sigmoid.
        label: B, 1, H, W in [0, 1].

    Returns:
        A scalar in [0, 1].
    """
    logits, label = check_logits_and_label(logits, label)
    return F.l1_loss(logits.sigmoid(), label)


def mse(logits: Tensor, label: Tensor) -> Tensor:
    """Mean squared error of the mask, over pixels and batch.

    Args:
        logits: B, 1, H, W; the mask is their sigmoid.
        label: B, 1, H, W in [0, 1].

    Returns:
        A scalar in [0, 1].
    """
    logits, label = check_logits_and_label(logits, label)
    return F.mse_loss(logits.sigmoid(), label)
