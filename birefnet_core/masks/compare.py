"""A picture of where a mask and its ground truth agree.

Shapes: B batch, H W picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..image_ops import check_masks, check_same_device, pair_batches, resize_masks

# Colours that stay apart for colour-blind eyes (Okabe and Ito), and on black.
LEGEND = {
    "true positive": (1.0, 1.0, 1.0),  # white: subject in both
    "false positive": (0.835, 0.369, 0.0),  # vermilion: subject in the mask only
    "false negative": (0.0, 0.447, 0.698),  # blue: subject in the ground truth only
    "true negative": (0.0, 0.0, 0.0),  # black: background in both
}


@torch.no_grad()
def compare_masks(masks: Tensor, truths: Tensor) -> Tensor:
    """Paints agreement and errors of masks in the colours of ``LEGEND``.

    A soft pixel is a mixture: with mask m and truth g it is min(m, g) true positive, max(m - g, 0) false
    positive, max(g - m, 0) false negative and the rest true negative, and gets the colours in these shares.

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
    picture = torch.zeros(*masks.shape, 3, device=masks.device)
    shares = {
        "true positive": torch.minimum(masks, truths),
        "false positive": (masks - truths).clamp_(min=0),
        "false negative": (truths - masks).clamp_(min=0),
    }
    for name, share in shares.items():
        colour = torch.tensor(LEGEND[name], device=masks.device)
        picture.addcmul_(share[..., None], colour)
    return picture
