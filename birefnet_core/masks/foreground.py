"""Foreground colour estimation: what the subject's colours are without the background shining through.

Shapes: B batch, H W image. Masks are 1 on the subject.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_choice
from ..image_ops import pair
from .blur_fusion import blur_fusion
from .multilevel import multilevel
from .windows import frame_groups

METHODS = ("multilevel", "blur_fusion")


@torch.no_grad()
def estimate_foreground(images: Tensor, masks: Tensor, method: str = "multilevel") -> Tensor:
    """Estimates the subject's own colours.

    Args:
        images: B, H, W, 3 in [0, 1], floating point, any device.
        masks: B, H, W in [0, 1]. Resized (bicubic) if they are not of the images' size; one image may go
            with many masks and the reverse.
        method: "multilevel" (Germer et al. 2020, see ``multilevel``): opaque pixels keep their own colour
            exactly, empty ones take that of the subject nearby. "blur_fusion" (Forte 2021, see
            ``blur_fusion``): equals the variant published with the network before it is cut to bytes.

    Returns:
        B, H, W, 3 float32 in [0, 1] on the images' device. Images are handled a few at a time.

    Raises:
        ImageError: Images or masks that are not as above, or that do not fit each other.
        ConfigError: An unknown method.
    """
    check_choice("method", method, METHODS)
    images, masks = pair(images, masks)
    foreground = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    estimate = multilevel if method == "multilevel" else blur_fusion
    for group in frame_groups(images.shape[0], images.shape[1] * images.shape[2]):
        colours = estimate(images[group].permute(0, 3, 1, 2), masks[group, None])  # B 3 H W
        foreground[group] = colours.permute(0, 2, 3, 1)
    return foreground
