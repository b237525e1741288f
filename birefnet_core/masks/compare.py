"""Images of where a mask and its ground truth agree.

Shapes: B batch, H W image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..error_colours import FALSE_NEGATIVE, FALSE_POSITIVE
from ..image_ops import check_masks, check_same_device, pair_batches, resize_masks

LEGEND = {
    "true positive": (1.0, 1.0, 1.0),  # white: subject in both
    "false positive": FALSE_POSITIVE,  # subject in the mask only
    "false negative": FALSE_NEGATIVE,  # subject in the ground truth only
    "true negative": (0.0, 0.0, 0.0),  # black: background in both
}


@torch.no_grad()
def compare_masks(masks: Tensor, truths: Tensor) -> Tensor:
    """Paints agreement and errors of masks in the colours of ``LEGEND``.

    A soft pixel is a mixture: with mask m and truth g it is min(m, g) true positive, max(m - g, 0) false
    positive, max(g - m, 0) false negative and the rest true negative, and gets the colours with these weights.

    Args:
        masks: B, H, W in [0, 1]; resized to the truths if sizes differ.
        truths: B, H, W in [0, 1]; one may go with many masks and the reverse.

    Returns:
        B, H, W, 3 float32 in [0, 1].

    Raises:
        ImageError: Masks of the wrong shape, type or content, or that do not fit each other.
    """
    masks, truths = check_masks(masks), check_masks(truths, "truths")
    check_same_device(masks, truths, ("masks", "truths"))
    masks, truths = pair_batches(resize_masks(masks, truths.shape[1:3]), truths, ("masks", "truths"))
    painted = torch.zeros(*masks.shape, 3, dtype=torch.float32, device=masks.device)
    weights = {
        "true positive": torch.minimum(masks, truths),
        "false positive": (masks - truths).clamp_(min=0),
        "false negative": (truths - masks).clamp_(min=0),
    }
    for name, weight in weights.items():
        colour = torch.tensor(LEGEND[name], dtype=torch.float32, device=masks.device)
        painted.addcmul_(weight[..., None], colour)
    return painted
