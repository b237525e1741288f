"""Sums and maxima over sliding windows, and how large images are cut into bands and groups.

A window of k pixels is put together from windows of 1, 2, 4, ... pixels, so it costs about log2(k) passes
whatever its size. Nothing is subtracted, so float32 keeps its full relative precision where a running sum
would lose it, and every step is an ordinary tensor operation on any device.

Shapes: ... any leading dimensions, H W image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Progress = Callable[[int, int], object]  # called with (frames done, frames in all); what it raises passes through

# Pixels of one piece: on a CPU what stays in the cache, yet not so few that threads wait for each other more
# than they work; elsewhere what keeps the device busy.
CPU_PIECE, DEVICE_PIECE = 1 << 19, 1 << 20
FRAME_PIECE = 1 << 22  # pixels of the frames handled together: one frame of 2048 x 2048


def window_sum(x: Tensor, size: int, dim: int) -> Tensor:
    """Sum of every ``size`` neighbours along ``dim``; the result is ``size`` - 1 shorter."""
    length = x.shape[dim] - size + 1
    doubled, width, offset = x, 1, 0
    total: Tensor | None = None
    while width <= size:
        if size & width:
            part = doubled.narrow(dim, offset, length)
            total = part if total is None else total + part
            offset += width
        if 2 * width <= size:
            span = doubled.shape[dim] - width
            doubled = doubled.narrow(dim, 0, span) + doubled.narrow(dim, width, span)
        width *= 2
    assert total is not None  # the highest bit of the size is always set
    return total


def window_max(x: Tensor, size: int, dim: int) -> Tensor:
    """Maximum of every ``size`` neighbours along ``dim``; the result is ``size`` - 1 shorter."""
    doubled, width = x, 1
    while 2 * width <= size:
        doubled, width = double_max(doubled, width, dim), 2 * width
    length = x.shape[dim] - size + 1
    return torch.maximum(doubled.narrow(dim, 0, length), doubled.narrow(dim, size - width, length))


def double_max(maxima: Tensor, width: int, dim: int) -> Tensor:
    """Maxima over windows of 2 ``width`` from those over ``width``."""
    span = maxima.shape[dim] - width
    return torch.maximum(maxima.narrow(dim, 0, span), maxima.narrow(dim, width, span))


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over the square of 2 ``radius`` + 1 pixels around each pixel, of those inside the image.

    Args:
        x: ..., H, W.

    Returns:
        ..., H, W.
    """
    for dim in (-2, -1):
        length = x.shape[dim]
        at = torch.arange(length, device=x.device)
        count = (at + radius).clamp(max=length - 1) - (at - radius).clamp(min=0) + 1
        reach = min(radius, length - 1)
        shape = list(x.shape)
        shape[dim] = reach
        zeros = x.new_zeros(shape)
        x = window_sum(torch.cat([zeros, x, zeros], dim), 2 * reach + 1, dim)
        x = x.div_(count[:, None] if dim == -2 else count)  # cat and sum made it ours
    return x


def strips(height: int, row_pixels: int, device: torch.device, least: int = 2) -> list[tuple[int, int]]:
    """Cuts an image into bands of rows, each an even number high but the last.

    Args:
        height: Rows of the image.
        row_pixels: Pixels of one row, over all frames handled together.
        least: Rows a band has at least.

    Returns:
        First row and row after the last of each band.
    """
    piece = CPU_PIECE if device.type == "cpu" else DEVICE_PIECE
    rows = max(least, piece // row_pixels, 2)
    rows += rows % 2
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def frame_groups(frames: int, frame_pixels: int) -> list[slice]:
    """Cuts a batch into groups of frames, so that working memory does not grow with the batch."""
    count = max(1, FRAME_PIECE // frame_pixels)
    return [slice(first, min(first + count, frames)) for first in range(0, frames, count)]


def groups_in_turn(frames: int, frame_pixels: int, progress: Progress | None) -> Iterator[slice]:
    """The groups of ``frame_groups``, with a call of ``progress`` before each and at the end."""
    for group in frame_groups(frames, frame_pixels):
        if progress:
            progress(group.start, frames)
        yield group
    if progress:
        progress(frames, frames)


def frames_in_turn(frames: int, progress: Progress | None) -> Iterator[int]:
    """``groups_in_turn`` of one frame each: the numbers of the frames."""
    return (group.start for group in groups_in_turn(frames, FRAME_PIECE, progress))
