"""Where a deformable convolution samples its input and with which weights: one implementation for all backends.

Samples outside the map are zero, as in ``torchvision.ops.deform_conv2d``. So are those at infinite offsets, which are
outside. A sample whose offset is NaN is NaN, and so is every output that reads it, and no other.

The batch is one table with a row of channels for each pixel, and a border of zeros around each image. Positions outside
are clamped into the border, so that no sample needs a test whether it is inside.

Shapes: B images, C input channels, H W input map, K = kernel height * kernel width sampling points, b h images and
output rows of a block, Wo output columns, S = b * h * Wo * K samples.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Zeros around each image. A position is clamped to [-2, length], where it and its next neighbour are both outside.
BORDER = 2


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where the kernel's points are before offsets move them; (vertical, horizontal) each.

    Attributes:
        first_row: The output row that offsets begin with, where they are those of some rows only.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    first_row: int = 0


def position_dtype(dtype: torch.dtype) -> torch.dtype:
    """Positions, bilinear weights and sums of samples are in float32, of float64 maps in float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def pad_to_table(x: Tensor) -> Tensor:
    """B, C, H, W -> B * (H + 4) * (W + 4), C in ``position_dtype``."""
    pixels = x.permute(0, 2, 3, 1).to(position_dtype(x.dtype))  # B H W C
    padded = F.pad(pixels, (0, 0, BORDER, BORDER, BORDER, BORDER))
    return padded.reshape(-1, x.shape[1]).contiguous()


def crop_from_table(table: Tensor, shape: torch.Size) -> Tensor:
    """What ``pad_to_table`` gave -> B, C, H, W, channels last in memory."""
    batch, channels, height, width = shape
    padded = table.view(batch, height + 2 * BORDER, width + 2 * BORDER, channels)
    return padded[:, BORDER:-BORDER, BORDER:-BORDER].permute(0, 3, 1, 2)


class Samples(NamedTuple):
    """Samples of a block; all b, h, Wo, K.

    Attributes:
        upper_left: Row of the table that holds the upper left one of a sample's four neighbours.
        down: Distance to it in y, in [0, 1), or NaN.
        right: Distance to it in x, in [0, 1), or NaN.
        mask: Factors of the samples, or None for ones.
    """

    upper_left: Tensor
    down: Tensor
    right: Tensor
    mask: Tensor | None

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bilinear weights times the mask: upper left, upper right, lower left, lower right."""
        lower = self.down if self.mask is None else self.down * self.mask
        upper = (1 if self.mask is None else self.mask) - lower
        upper_right, lower_right = upper * self.right, lower * self.right
        return upper - upper_right, upper_right, lower - lower_right, lower_right

    def gradients(self, by_weight: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The chain rule through ``weights``.

        Args:
            by_weight: b, h, Wo, K, 4, gradients of the weights.

        Returns:
            Gradients of y, x and, where there is one, mask; b, h, Wo, K each.
        """
        upper_left, upper_right, lower_left, lower_right = by_weight.unbind(-1)
        left = 1 - self.right
        upper = upper_left * left + upper_right * self.right
        lower = lower_left * left + lower_right * self.right
        by_y = lower - upper
        by_x = torch.lerp(upper_right - upper_left, lower_right - lower_left, self.down)
        if self.mask is None:
            return by_y, by_x, None
        return by_y * self.mask, by_x * self.mask, torch.lerp(upper, lower, self.down)


class Sampler(NamedTuple):
    """What determines the sampling positions of any block.

    Attributes:
        offset: B, 2K, Ho, Wo in pixels, (y, x) pairs.
        mask: B, K, Ho, Wo, or None.
        map_shape: Of the input, B, C, H, W.
        kernel_width: Kernel width, in points.
        geometry: Where the points are before they are moved.
        dtype: Of positions and weights.
        index_dtype: int32 or int64.
    """

    offset: Tensor
    mask: Tensor | None
    map_shape: torch.Size
    kernel_width: int
    geometry: Geometry
    dtype: torch.dtype
    index_dtype: torch.dtype

    # Methods, because torch 2.4 cannot trace the properties of a tuple.

    def table_width(self) -> int:
        """Rows of the table from a pixel to the one below it."""
        return self.map_shape[3] + 2 * BORDER

    def table_rows(self) -> int:
        """Rows of the table for each image."""
        return (self.map_shape[2] + 2 * BORDER) * self.table_width()

    def samples(self, images: slice, rows: slice) -> Samples:
        """Places the samples of some output rows of some images.

        Args:
            images: Images, with start and stop.
            rows: Rows of ``offset``, with start and stop.
        """
        device, dtype, geometry = self.offset.device, self.dtype, self.geometry
        offset = self.offset[images, :, rows].permute(0, 2, 3, 1).unflatten(3, (-1, 2))  # b h Wo K 2
        mask = None if self.mask is None else self.mask[images, :, rows].permute(0, 2, 3, 1).to(dtype)
        first, width = geometry.first_row, self.kernel_width
        row = torch.arange(first + rows.start, first + rows.stop, device=device) * geometry.stride[0]  # h
        column = torch.arange(offset.shape[2], device=device) * geometry.stride[1]  # Wo
        point = torch.arange(offset.shape[3], device=device)  # K
        point_y = point // width * geometry.dilation[0] - geometry.padding[0]
        point_x = point % width * geometry.dilation[1] - geometry.padding[1]
        start_y = row[:, None, None] + point_y  # h 1 K
        start_x = column[:, None] + point_x  # Wo K
        top, down = self._neighbour(offset[..., 0].to(dtype) + start_y.to(dtype), self.map_shape[2])
        left, right = self._neighbour(offset[..., 1].to(dtype) + start_x.to(dtype), self.map_shape[3])
        image = torch.arange(images.start, images.stop, dtype=self.index_dtype, device=device) * self.table_rows()
        image = image + (BORDER * self.table_width() + BORDER)  # of the pixel 0, 0
        index = torch.add(left, top, alpha=self.table_width()) + image[:, None, None, None]
        return Samples(index, down, right, mask)

    def _neighbour(self, position: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The pixel before each position along an axis, and the distance to it.

        NaN stays in the distance. It is taken out of what becomes an integer, because that cast is undefined for NaN
        and for what is beyond the integers.
        """
        position = position.clamp(-BORDER, length)
        pixel = position.detach().floor()
        return pixel.nan_to_num(nan=-BORDER).to(self.index_dtype), position - pixel

    def neighbours(self, samples: Samples) -> Tensor:
        """Rows of the table that hold the four neighbours of each sample, in the order of the weights: S, 4."""
        step = torch.arange(2, dtype=self.index_dtype, device=samples.upper_left.device)
        steps = (step[:, None] * self.table_width() + step).flatten()  # 4
        return samples.upper_left.reshape(-1, 1) + steps
