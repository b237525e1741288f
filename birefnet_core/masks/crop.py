"""Cropping to the subject.

Shapes: B batch, H W image, h w crop. Boxes B 4 are left, top, right, bottom, the last two exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_number, check_switch
from ..errors import ConfigError
from ..image_ops import check_masks, pair

THRESHOLD = 0.05  # faint haze does not widen the box, hair does


@torch.no_grad()
def subject_boxes(masks: Tensor, padding: int = 0, threshold: float = THRESHOLD) -> Tensor:
    """Bounding box of each frame's pixels above the threshold, with padding, cut at the image's border.

    Args:
        masks: B, H, W in [0, 1].
        padding: Pixels added on every side.
        threshold: Value above which a pixel belongs to the subject.

    Returns:
        B, 4 int64 on the masks' device; the whole image for a frame without subject.

    Raises:
        ConfigError: Negative padding.
        ImageError: Masks of the wrong shape, type or content.
    """
    return found_boxes(check_masks(masks), padding, threshold)[0]


@torch.no_grad()
def common_box(masks: Tensor, padding: int = 0, threshold: float = THRESHOLD) -> tuple[int, int, int, int]:
    """The box around the subjects of all frames; the whole image if no frame has one. As ``subject_boxes``."""
    boxes, found = found_boxes(check_masks(masks), padding, threshold)
    left, top, right, bottom = (box_around(boxes[found]) if found.any() else boxes[0]).tolist()
    return left, top, right, bottom


@torch.no_grad()
def crop_to_subject(
    images: Tensor, masks: Tensor, padding: int = 0, threshold: float = THRESHOLD, per_image: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Crops images and masks to the subject; all crops of a batch have the same size.

    Args:
        images: B, H, W, 3 in [0, 1].
        masks: B, H, W in [0, 1].
        padding: Pixels added on every side, cut at the image's border.
        threshold: Value above which a pixel belongs to the subject.
        per_image: False takes one box around the subjects of all frames, so that a video stays still.
            True follows each frame's subject with a window as large as the largest subject, centred on the
            subject as far as the border lets it.

    Returns:
        Images B, h, w, 3, masks B, h, w, both float32, and the boxes B, 4 they were cut from. Frames without
        subject do not count; if none has one, the whole image stays.

    Raises:
        ConfigError: Negative padding, or no switch.
        ImageError: Images or masks of the wrong shape, type or content, or that do not fit each other.
    """
    check_switch("per_image", per_image)
    images, masks = pair(images, masks)
    boxes, found = found_boxes(masks, padding, threshold)
    if found.any():
        known = boxes[found]
        common = box_around(known)
        boxes = torch.where(found[:, None], boxes, common)
        boxes = _same_size(boxes, known, masks.shape[1:3]) if per_image else common.expand_as(boxes)
    crops = [
        (image[top:bottom, left:right], mask[top:bottom, left:right])
        for image, mask, (left, top, right, bottom) in zip(images, masks, boxes.tolist(), strict=True)
    ]
    return torch.stack([c[0] for c in crops]), torch.stack([c[1] for c in crops]), boxes.clone()


def fade_window(box: Sequence[int], size: Sequence[int], reach: Sequence[int]) -> Tensor:
    """Weights of a crop that fall off towards its border as raised cosines, but not where the image ends.

    Args:
        box: Left, top, right, bottom of the crop.
        size: Height and width of the image.
        reach: Pixels over which the weights fall, vertically and horizontally; 0 keeps them at 1.

    Returns:
        h, w float32 on the CPU.
    """
    left, top, right, bottom = box
    rows = _ramps(top, bottom, size[0], reach[0])
    return rows[:, None] * _ramps(left, right, size[1], reach[1])


def _ramps(first: int, end: int, length: int, reach: int) -> Tensor:
    window = torch.ones(end - first, dtype=torch.float32, device="cpu")
    reach = min(reach, end - first)
    if reach < 1:
        return window
    ramp = torch.sin((torch.arange(reach, dtype=torch.float32, device="cpu") + 0.5) * (math.pi / 2 / reach)) ** 2
    if first > 0:
        window[:reach] *= ramp
    if end < length:
        window[-reach:] *= ramp.flip(0)
    return window


def box_around(boxes: Tensor) -> Tensor:
    """One box, 4, around boxes N, 4."""
    return torch.cat([boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)])


def found_boxes(masks: Tensor, padding: int, threshold: float) -> tuple[Tensor, Tensor]:
    """``subject_boxes`` of checked masks, and whether there is a subject, B."""
    check_number("padding", padding, whole=True)
    check_number("threshold", threshold)
    padding = min(padding, max(masks.shape[1:3]))  # the whole image, whatever the number
    if padding < 0:
        raise ConfigError(f"padding is {padding}, expected 0 pixels or more.")
    inside = masks > threshold
    height, width = masks.shape[1:3]
    left, right = _extent(inside.any(dim=1), padding)
    top, bottom = _extent(inside.any(dim=2), padding)
    found = inside.flatten(1).any(dim=1)
    whole = torch.tensor([0, 0, width, height], device=masks.device)
    return torch.where(found[:, None], torch.stack([left, top, right, bottom], dim=1), whole), found


def _extent(used: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """First used place and the one after the last, B each, of B, N."""
    length = used.shape[1]
    at = torch.arange(length, device=used.device)
    first = torch.where(used, at, length).amin(dim=1)
    end = torch.where(used, at + 1, 0).amax(dim=1)
    return (first - padding).clamp(min=0), (end + padding).clamp(max=length)


def _same_size(boxes: Tensor, known: Tensor, size: Sequence[int]) -> Tensor:
    """Windows of the largest known box's size around the boxes' centres, inside the image."""
    extent = (known[:, 2:] - known[:, :2]).amax(dim=0)  # width, height
    limit = torch.tensor([size[1], size[0]], device=boxes.device) - extent
    start = (boxes[:, :2] + boxes[:, 2:] - extent) // 2
    start = torch.minimum(start.clamp(min=0), limit)
    return torch.cat([start, start + extent], dim=1)
