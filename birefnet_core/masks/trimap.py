"""Trimaps: surely subject, surely background, and the band between, which a matting method decides.

Shapes: B batch, H W image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_number
from ..errors import ConfigError
from ..image_ops import check_masks
from .morphology import grow
from .windows import Progress, groups_in_turn

UNKNOWN = 0.5
# Values between are soft edges, and always unknown.
LOW, HIGH = 0.05, 0.95


@torch.no_grad()
def make_trimap(
    masks: Tensor,
    inside: int = 10,
    outside: int = 10,
    low: float = LOW,
    high: float = HIGH,
    progress: Progress | None = None,
) -> Tensor:
    """Makes trimaps out of masks.

    Args:
        masks: B, H, W in [0, 1].
        inside: Width in pixels of the unknown band within the subject. The subject does not end at the image's
            border, so there is no band along it.
        outside: Width in pixels of the unknown band around the subject.
        low: Values up to this are background.
        high: Values from this are subject.
        progress: Called with (frames done, frames in all). What it raises passes through.

    Returns:
        B, H, W float32: 1 on the subject, 0 on the background, 0.5 between. A pixel is unknown if one that is not
        subject lies within ``inside`` pixels of it, and one that is not background within ``outside``.

    Raises:
        ConfigError: A negative width, or levels that are not 0 <= low < high <= 1.
        ImageError: Masks of the wrong shape, type or content.
    """
    for name, pixels in (("inside", inside), ("outside", outside)):
        check_number(name, pixels, whole=True)
        if pixels < 0:
            raise ConfigError(f"{name} is {pixels!r}, expected a whole number of pixels, 0 or more.")
    for name, level in (("low", low), ("high", high)):
        check_number(name, level)
    if not 0 <= low < high <= 1:
        raise ConfigError(f"low is {low} and high {high}, expected 0 <= low < high <= 1.")
    masks = check_masks(masks)
    result = torch.empty(masks.shape, dtype=torch.float32, device=masks.device)
    for group in groups_in_turn(masks.shape[0], masks.shape[1] * masks.shape[2], progress):
        subject = grow((masks[group] >= high).float(), -inside)
        possible = grow((masks[group] > low).float(), outside)
        result[group] = (subject + possible) * UNKNOWN
    return result
