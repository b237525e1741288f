"""Inward reference (Sec. 3.4): the source image at its original scale, beside the decoder's features.

Shapes: B batch, H W image, h w the stage's map, g_h = H / h and g_w = W / w patches a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import PatchOrder

__all__ = ["InwardReference", "PatchOrder", "image_patches"]

INNER_CHANNELS = 64  # published


def image_patches(image: Tensor, height: int, width: int) -> Tensor:
    """Cuts an image into a grid of patches and stacks them on the channel axis.

    Not a pixel unshuffle: each patch is a connected piece of the image at full resolution.

    Args:
        image: B, 3, H, W with H a multiple of ``height`` and W of ``width``.
        height: Patch height h.
        width: Patch width w.

    Returns:
        B, 3 * g_h * g_w, h, w in PatchOrder.CHANNELS_FIRST, channels last in memory if the image is.
    """
    if image.is_contiguous(memory_format=torch.channels_last):
        patches = rearrange(image, "b c (gh h) (gw w) -> b h w (c gh gw)", h=height, w=width)
        return patches.permute(0, 3, 1, 2)
    return rearrange(image, "b c (gh h) (gw w) -> b (c gh gw) h w", h=height, w=width)


class InwardReference(nn.Module):
    """Image patches through two 3 x 3 convolutions, with nothing between them (published)."""

    def __init__(self, stride: int, out_channels: int) -> None:
        """Makes the reference of the stage at ``stride`` input pixels per cell."""
        super().__init__()
        self.conv_in = nn.Conv2d(3 * stride**2, INNER_CHANNELS, 3, padding=1)
        self.conv_out = nn.Conv2d(INNER_CHANNELS, out_channels, 3, padding=1)

    def forward(self, image: Tensor, height: int, width: int) -> Tensor:
        """B, 3, H, W -> B, out_channels, height, width."""
        return self.conv_out(self.conv_in(image_patches(image, height, width)))

    def projected(self, image: Tensor, weight: Tensor) -> Tensor:
        """The reference at full resolution through a 1 x 1 convolution that alone reads it.

        Its second convolution and that one are merged, as nothing is between them: a small part of the work.

        Args:
            image: B, 3, H, W.
            weight: P, out_channels, 1, 1.

        Returns:
            B, P, H, W.
        """
        projection = weight.flatten(1)  # P O
        kernel = torch.einsum("po,ochw->pchw", projection, self.conv_out.weight)
        bias = None if self.conv_out.bias is None else projection @ self.conv_out.bias
        return F.conv2d(self.conv_in(image), kernel, bias, padding=1)
