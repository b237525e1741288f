"""Inward reference (Sec. 3.4): the source image at its original scale, beside the decoder's features.

Shapes: B batch, H W image, h w the stage's map, g_h = H / h and g_w = W / w patches a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..ops.execution import row_chunks
from ..ops.split_conv import match_dtype

INNER_CHANNELS = 64  # published
LEAST_ROWS = 16  # of a chunk, which computes two more rows above and below


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
        self.stride = stride
        self.conv_in = nn.Conv2d(3 * stride**2, INNER_CHANNELS, 3, padding=1)
        self.conv_out = nn.Conv2d(INNER_CHANNELS, out_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """B, 3, H, W -> B, out_channels, H / stride, W / stride."""
        image = match_dtype(image, self.conv_in.weight)
        patches = image_patches(image, image.shape[2] // self.stride, image.shape[3] // self.stride)
        return self.conv_out(self.conv_in(patches))

    def projected(self, image: Tensor, weight: Tensor) -> Tensor:
        """The reference at full resolution through a convolution to one channel that alone reads it.

        Nothing is between the three convolutions, so they are merged: the last two are a 3 x 3 convolution to one
        channel, of which each of the nine taps reads one weighted sum of the 64 inner channels, and those sums are all
        that the first convolution has to make. The map between the two 3 x 3 convolutions stays, because its zero
        padding makes the borders; it has 9 channels instead of 64.

        Args:
            image: B, 3, H, W.
            weight: 1, out_channels, 1, 1.

        Returns:
            B, 1, H, W.
        """
        first, last, dtype = self.conv_in, self.conv_out, weight.dtype
        assert first.bias is not None and last.bias is not None
        wide = torch.promote_types(dtype, torch.float32)  # half precision would round every product
        head = weight.flatten().to(wide)  # O
        taps = torch.einsum("o,ochw->hwc", head, last.weight.to(wide)).flatten(0, 1)  # 9 64
        kernel = torch.einsum("tc,cixy->tixy", taps, first.weight.to(wide)).to(dtype)  # 9 3 3 3
        bias = (taps @ first.bias.to(wide)).to(dtype)  # 9
        pick = torch.eye(9, dtype=dtype, device=image.device).view(1, 9, 3, 3)  # the pixel of its tap from each sum
        last_bias = (head @ last.bias.to(wide)).to(dtype)[None]
        image, parts = match_dtype(image, weight), []
        per_row = _channels(9, image) * image[:, 0, 0].numel()
        for rows in row_chunks(image.shape[2], per_row, "map", image.device, minimum=LEAST_ROWS):
            above, below = max(0, rows.start - 2), min(rows.stop + 2, image.shape[2])  # for two 3 x 3 convolutions
            sums = _conv3x3(image[:, :, above:below], kernel, bias)  # B 9 h W, or with channels of zeros
            some = _conv3x3(sums, pick, last_bias)[:, :1]
            parts.append(some[:, :, rows.start - above : rows.stop - above])
        return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]


def _channels(count: int, x: Tensor) -> int:
    """Channels of a map beside ``x``, those of zeros included.

    On GPUs half precision has tensor core kernels for multiples of eight channels only, ten times as fast as others.
    """
    return count + -count % 8 if x.is_cuda and x.dtype in (torch.float16, torch.bfloat16) else count


def _conv3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3 x 3 convolution with zero padding of a map of few channels.

    Args:
        x: B, C, H, W; or with channels of zeros, as another call returns it.
        weight: O, C, 3, 3.
        bias: O.

    Returns:
        B, ``_channels(O)``, H, W.
    """
    outputs, inputs = weight.shape[:2]
    more_out, more_in = _channels(outputs, x) - outputs, _channels(inputs, x) - inputs
    if more_out or more_in:
        if x.shape[1] == inputs:
            x = F.pad(x, (0, 0, 0, 0, 0, more_in))
        x = x.contiguous(memory_format=torch.channels_last)
        weight = F.pad(weight, (0, 0, 0, 0, 0, more_in, 0, more_out)).contiguous(memory_format=torch.channels_last)
        bias = F.pad(bias, (0, more_out))
    return F.conv2d(x, weight, bias, padding=1)
