"""Boundary level: structural similarity (Eq. 4) and the structure loss.

Shapes: B batch, H W image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..autocast import autocast_disabled
from .common import check_logits_and_label

WINDOW, SIGMA = 11, 1.5  # Gaussian window of Eq. 4
C1, C2 = 0.01**2, 0.03**2  # Eq. 4

STRUCTURE_WINDOW = 31  # pixels of the surroundings a pixel is compared with (Wei et al., "F3Net", 2020)
STRUCTURE_GAIN = 5  # weight of a pixel unlike its surroundings: 1 + 5 * difference (ibid.)


def _gaussian_blur(x: Tensor) -> Tensor:
    """Blurs each channel of B, C, H, W with the window, zeros around the image.

    Two passes of 11 taps, and channels as groups of one convolution: forwards and backwards three to five times
    faster on a CPU than channels stacked on the batch axis.
    """
    channels = x.shape[1]
    offset = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    window = torch.exp(-(offset**2) / (2 * SIGMA**2))
    window = (window / window.sum()).expand(channels, 1, -1)  # C 1 11
    rows = F.conv2d(x, window.unsqueeze(2), padding=(0, WINDOW // 2), groups=channels)
    return F.conv2d(rows, window.unsqueeze(3), padding=(WINDOW // 2, 0), groups=channels)


def ssim(logits: Tensor, label: Tensor) -> Tensor:
    """Structural similarity (Eq. 4): mean over pixels and batch of 1 - SSIM(mask, label).

    Published training halves it; ``LossWeights.from_published`` accounts for it. Windows that leave the image see
    zeros there, as published.

    Args:
        logits: B, 1, H, W; the mask is their sigmoid.
        label: B, 1, H, W in [0, 1].

    Returns:
        A scalar in [0, 2]; 0 for equal maps.
    """
    logits, label = check_logits_and_label(logits, label)
    mask = logits.sigmoid()
    moments = torch.cat((mask, label, mask * mask + label * label, mask * label), dim=1)  # B 4 H W
    with autocast_disabled(moments.device.type):  # variances are small differences of large numbers
        mean_m, mean_g, squares, product = _gaussian_blur(moments).unbind(dim=1)  # B H W each
    mean_product = mean_m * mean_g
    mean_squares = mean_m * mean_m + mean_g * mean_g
    similarity = (2 * mean_product + C1) * (2 * (product - mean_product) + C2)
    similarity = similarity / ((mean_squares + C1) * (squares - mean_squares + C2))
    return 1 - similarity.mean()


def structure(logits: Tensor, label: Tensor, *, double_sigmoid: bool = False) -> Tensor:
    """Structure loss (Wei et al., "F3Net", 2020): cross entropy and IoU that weigh boundaries and thin parts more.

    The weight of a pixel is 1 + 5 |mean of the label in a 31 x 31 window - label|, with zeros around the image. Per
    image, the weighted mean of the cross entropy plus 1 - (I + 1) / (U + 1), with the weighted intersection I and
    union U (the ones smooth it; nothing is 0 / 0). Mean over the batch.

    Args:
        logits: B, 1, H, W; the mask is their sigmoid.
        label: B, 1, H, W in [0, 1].
        double_sigmoid: The published code's form: it hands over probabilities where logits are expected, so that a
            second sigmoid leaves the mask between 0.5 and 0.73. Only to reproduce its numbers.

    Returns:
        A scalar >= 0.
    """
    logits, label = check_logits_and_label(logits, label)
    if double_sigmoid:
        logits = logits.sigmoid()
    mask = logits.sigmoid()
    half = STRUCTURE_WINDOW // 2
    surroundings = F.avg_pool2d(label, (STRUCTURE_WINDOW, 1), stride=1, padding=(half, 0))
    surroundings = F.avg_pool2d(surroundings, (1, STRUCTURE_WINDOW), stride=1, padding=(0, half))
    weight = 1 + STRUCTURE_GAIN * (surroundings - label).abs()  # B 1 H W

    image = (1, 2, 3)
    entropy = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
    entropy = (weight * entropy).sum(image) / weight.sum(image)  # B
    intersection = (weight * mask * label).sum(image)
    union = (weight * (mask + label)).sum(image) - intersection
    return (entropy + 1 - (intersection + 1) / (union + 1)).mean()
