"""Crop around the subject, work on the crop, and stitch it back: inpainting at full detail.

Outside the crop the stitched image is the original bit for bit, and so is a crop that nobody changed.

Shapes: B batch, H W image, C 1, 3 or 4 channels, h w crop in the image, k l crop as it is worked on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..autocast import without_autocast
from ..checks import check_kind, check_number, check_switch
from ..errors import ConfigError, ImageError
from ..image_ops import (
    check_masks,
    check_same_device,
    pair_batches,
    resize_images,
    resize_masks,
    validate_images,
)
from .crop import THRESHOLD, box_around, fade_window, found_boxes
from .morphology import GAUSSIAN_REACH, feather, grow
from .windows import Progress, frames_in_turn

CHANNELS = (1, 3, 4)
Box = tuple[int, int, int, int]  # left, top, right, bottom, the last two exclusive


@dataclass(frozen=True, kw_only=True)
class CropOptions:
    """How ``crop_for_inpainting`` crops.

    Attributes:
        padding: Added around the subject on every side, as a fraction of its longer side.
        square: Whether crops are square, as far as the image is large enough.
        size: Longer side in pixels that crops are resized to; 0 keeps the pixels as they are.
        multiple: Both sides of a crop are multiples of this; crops grow a little for it. Where the image has no room,
            they are resized.
        follow: Whether each image is cropped around its own subject, with windows of one size; otherwise one box
            around all subjects, so that a video stays still.

    Raises:
        ConfigError: A value out of its range.
    """

    padding: float = 0.25
    square: bool = False
    size: int = 0
    multiple: int = 8
    follow: bool = False

    def __post_init__(self) -> None:
        check_number("padding", self.padding)
        for name in ("size", "multiple"):
            check_number(name, getattr(self, name), whole=True)
        for name in ("square", "follow"):
            check_switch(name, getattr(self, name))
        if not 0 <= self.padding < math.inf:
            raise ConfigError(f"padding is {self.padding}, expected 0 or more, such as 0.25 of the subject.")
        if self.size < 0:
            raise ConfigError(f"size is {self.size}, expected 0 (as it is) or a number of pixels.")
        if self.multiple < 1:
            raise ConfigError(f"multiple is {self.multiple}, expected 1 or more.")


@dataclass(frozen=True, kw_only=True)
class CropRecord:
    """What it takes to stitch crops back.

    Attributes:
        images: B, H, W, C, the originals, as they were given.
        boxes: Where each crop lies.
        size: Height and width of the crops as they were made, k l; None if that is not known.
        masks: What the crops were made around, as it was given, of any size; None if that is not known.
    """

    images: Tensor
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    masks: Tensor | None = None


@torch.no_grad()
def crop_for_inpainting(
    images: Tensor, masks: Tensor, options: CropOptions | None = None, progress: Progress | None = None
) -> tuple[Tensor, Tensor, CropRecord]:
    """Crops images and masks to the surroundings of the subject.

    Args:
        images: B, H, W, C in [0, 1].
        masks: B, H, W in [0, 1], 1 on the subject; resized to the images if sizes differ. One image may go with many
            masks and the reverse.
        options: How; by default as ``CropOptions`` says.
        progress: Called with (frames done, frames in all). What it raises passes through.

    Returns:
        Crops B, k, l, C and their masks B, k, l, float32, and what ``stitch_back`` needs. An image without subject
        takes the box of the others; without any subject, the whole image is cropped.

    Raises:
        ImageError: Images or masks of the wrong shape, type or content, or that do not fit each other.
    """
    options = CropOptions() if options is None else options
    check_kind("options", options, CropOptions)
    validate_images(images, channels=CHANNELS)
    given, masks = masks, check_masks(masks)
    check_same_device(images, masks)
    images, masks = pair_batches(images, resize_masks(masks, images.shape[1:3]))
    boxes = _boxes(masks, options)
    left, top, right, bottom = boxes[0]
    size = _size_of_crop(bottom - top, right - left, options)
    crops = torch.empty(len(images), *size, images.shape[-1], dtype=torch.float32, device=images.device)
    crop_masks = torch.empty(len(images), *size, dtype=torch.float32, device=images.device)
    for n in frames_in_turn(len(boxes), progress):
        crops[n] = resize_images(_cut(images[n], boxes[n]).float().clamp(0, 1)[None], size)[0]
        crop_masks[n] = resize_masks(_cut(masks[n], boxes[n])[None], size)[0]
    return crops, crop_masks, CropRecord(images=images, boxes=tuple(boxes), size=size, masks=given)


@torch.no_grad()
@without_autocast
def stitch_back(
    record: CropRecord, crops: Tensor, masks: Tensor | None = None, blend: int = 0, progress: Progress | None = None
) -> Tensor:
    """Puts crops back to where they were cut.

    Args:
        record: From ``crop_for_inpainting``.
        crops: B, k, l, C in [0, 1], of any size; where they have alpha, the original shows through. Many may go with
            one original.
        masks: B or 1, k, l in [0, 1], of any size: only what they mark is taken from the crops. None takes everything.
            Masks of the whole images are cut as the crops were: those the crops were made around, and others of the
            images' size where the crops have another.
        blend: Pixels of the original over which a crop fades in: inwards from its border where that is not the image's,
            and outwards from what the masks mark.
        progress: Called with (images done, images in all). What it raises passes through.

    Returns:
        B, H, W, C of the original's type, C as in the originals, or 3 for originals of 1 channel. What no crop covers
        is as it was, to the bit.

    Raises:
        ConfigError: A blend that is no number of pixels, or a record of another kind.
        ImageError: Crops or masks of the wrong shape, type or content, or numbers of them that do not fit.
    """
    check_kind("record", record, CropRecord)
    check_number("blend", blend, whole=True)
    if blend < 0:
        raise ConfigError(f"blend is {blend}, expected 0 (hard edges) or more pixels.")
    validate_images(crops, "crops", channels=CHANNELS)
    images = record.images
    check_same_device(images, crops, ("images", "crops"))
    images, crops = pair_batches(images, crops, ("images", "crops"))
    if masks is not None:
        masks = check_masks(masks)
        check_same_device(images, masks)
        if len(masks) not in (1, len(crops)):
            raise ImageError(f"there are {len(masks)} masks for {len(crops)} crops: pass one for each, or one for all.")
        if _of_whole_images(masks, record, crops):
            masks = resize_masks(masks, images.shape[1:3])
            cuts = [_cut(masks[n % len(masks)], record.boxes[n % len(record.boxes)]) for n in range(len(crops))]
            masks = torch.stack(cuts)
    stitched = images.expand(*images.shape[:3], max(3, images.shape[-1])).clone()
    for n in frames_in_turn(len(crops), progress):
        box = record.boxes[n % len(record.boxes)]
        mask = None if masks is None else masks[n % len(masks)]
        target = _cut(stitched[n], box)
        new, weight = _new_pixels(crops[n], mask, box, images.shape[1:3], blend)
        part = target[..., : new.shape[-1]]  # alpha stays if the crop has none
        part.copy_(torch.lerp(part.float(), new, weight))
    return stitched


def _of_whole_images(masks: Tensor, record: CropRecord, crops: Tensor) -> bool:
    """Whether masks are of the images rather than of their crops."""
    if record.masks is not None and torch.equal(masks, check_masks(record.masks)):
        return True
    of_crops = {tuple(crops.shape[1:3]), record.size}
    return tuple(masks.shape[1:]) == tuple(record.images.shape[1:3]) and tuple(masks.shape[1:]) not in of_crops


def _new_pixels(crop: Tensor, mask: Tensor | None, box: Box, size: Sequence[int], blend: int) -> tuple[Tensor, Tensor]:
    """A crop at the size of its box, h w 3, and how much of it is taken, h w 1."""
    left, top, right, bottom = box
    here = bottom - top, right - left
    new = resize_images(crop.float().clamp(0, 1)[None], here)[0]  # h w C
    weight = fade_window(box, size, (blend, blend)).to(new.device)
    if mask is not None:
        mask = resize_masks(mask[None], here)
        if blend:  # 1 on everything that is marked, 0 from this many pixels on
            mask = feather(grow(mask, blend // 2, "square"), (blend - blend // 2) / GAUSSIAN_REACH)
        weight = weight * mask[0]
    if new.shape[-1] == 4:
        weight = weight * new[..., 3]
    return new[..., :3].expand(*here, 3), weight[..., None]


def _cut(image: Tensor, box: Box) -> Tensor:
    left, top, right, bottom = box
    return image[top:bottom, left:right]


def _boxes(masks: Tensor, options: CropOptions) -> list[Box]:
    """The crop of each image, all of one size."""
    height, width = masks.shape[1:3]
    boxes, found = found_boxes(masks, 0, THRESHOLD)
    known = boxes[found] if found.any() else boxes[:1]
    around = box_around(known)
    if not options.follow:
        boxes, known = around.expand_as(boxes), around[None]
    own = torch.where(found[:, None], boxes, around)
    subject = (known[:, 2:] - known[:, :2]).amax(dim=0).tolist()  # width, height of the largest
    padding = 2 * math.ceil(min(options.padding * max(subject), max(height, width)))
    wanted = [side + padding for side in subject]
    if options.square:
        wanted = [max(wanted)] * 2
    w, h = (_side(*sides, options.multiple) for sides in zip(wanted, subject, (width, height), strict=True))
    result = []
    for left, top, right, bottom in own.tolist():
        x = min(max((left + right - w) // 2, 0), width - w)
        y = min(max((top + bottom - h) // 2, 0), height - h)
        result.append((x, y, x + w, y + h))
    return result


def _side(wanted: int, subject: int, limit: int, multiple: int) -> int:
    """Side of a crop in the image: a multiple if there is room for one around the subject, else the image's side."""
    side = math.ceil(wanted / multiple) * multiple
    if side > limit:
        side = limit // multiple * multiple
    return side if side >= subject and side > 0 else limit


def _size_of_crop(height: int, width: int, options: CropOptions) -> tuple[int, int]:
    """Size a crop is worked on at."""
    scale = options.size / max(height, width) if options.size else 1
    h, w = (max(1, round(side * scale / options.multiple)) * options.multiple for side in (height, width))
    return h, w
