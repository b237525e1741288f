"""Cut-outs in one call: the subject's own colours, then transparency or something behind, then cropping.

Shapes: B batch, H W image, h w crop. Images B H W 3, masks B H W, 1 on the subject.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_choice, check_kind, check_number
from ..errors import ConfigError, ImageError
from ..image_ops import check_images, check_same_device, flatten_alpha, pair, pair_batches
from .compose import (
    FITS,
    Color,
    fit_images,
    over_checkerboard,
    over_color,
    over_image,
    parse_color,
    premultiplied_rgba,
    straight_rgba,
)
from .crop import common_box
from .foreground import METHODS, estimate_foreground
from .windows import Progress, frames_in_turn

OUTPUTS = ("rgba", "premultiplied", "color", "image", "checkerboard")


@dataclass(frozen=True, kw_only=True)
class CutoutOptions:
    """What ``cut_out`` makes.

    Attributes:
        output: "rgba" (straight), "premultiplied", or RGB over a "color", an "image" or a "checkerboard".
        colors: Method of ``estimate_foreground``; None keeps the image's colours.
        color: Behind the subject with output "color", and the bars of fit "fit"; as for ``parse_color``.
        fit: How the background lies behind the subject; see ``over_image``.
        crop_padding: Pixels around the subject to crop to; None does not crop.

    Raises:
        ConfigError: A value out of its range.
    """

    output: str = "rgba"
    colors: str | None = METHODS[0]
    color: Color = "#ffffff"
    fit: str = FITS[0]
    crop_padding: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("output", OUTPUTS), ("colors", (*METHODS, None)), ("fit", FITS)):
            check_choice(name, getattr(self, name), known)
        if self.output in ("color", "image"):
            parse_color(self.color)
        if self.crop_padding is not None:
            check_number("crop_padding", self.crop_padding, whole=True)
        if self.crop_padding is not None and self.crop_padding < 0:
            raise ConfigError(f"crop_padding is {self.crop_padding}, expected 0 pixels or more, or None.")


@torch.no_grad()
def cut_out(
    images: Tensor,
    masks: Tensor,
    options: CutoutOptions,
    backgrounds: Tensor | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Cuts subjects out.

    Args:
        images: B, H, W, 3 in [0, 1], or B, H, W, 4 with straight alpha: what alpha hides stays hidden, whatever the
            mask is there.
        masks: B, H, W in [0, 1]; resized to the images if sizes differ. One may go with many and the reverse.
        options: What to make.
        backgrounds: For output "image": B or 1 images of any size; where they are transparent, ``color`` shows.
        progress: Called with (frames done, frames in all). What it raises passes through.

    Returns:
        B, h, w, 4 or B, h, w, 3 float32, and the masks B, h, w that belong to it; h w is H W without cropping.
        Cropping takes one box around the subjects of all frames, see ``common_box``.

    Raises:
        ImageError: As for ``straight_rgba``, or no background for output "image".
    """
    check_kind("options", options, CutoutOptions)
    images, masks = pair(images, masks, channels=(3, 4))
    if images.shape[-1] == 4:
        masks = torch.minimum(masks, images[..., 3])  # not a product: masks of such images are limited already
    behind = _behind(images, options, backgrounds)
    only = len(images) == 1  # its colours are estimated once, however many backgrounds there are
    if behind is not None:
        images, behind = pair_batches(images, behind, ("images", "backgrounds"))
        masks = masks.expand(len(images), -1, -1)
    height, width = masks.shape[1:]
    box = (0, 0, width, height) if options.crop_padding is None else common_box(masks, options.crop_padding)
    part = slice(box[1], box[3]), slice(box[0], box[2])
    channels = 4 if options.output in ("rgba", "premultiplied") else 3
    size = len(images), box[3] - box[1], box[2] - box[0], channels
    result = torch.empty(size, dtype=torch.float32, device=images.device)
    front = images[:1, ..., :3]
    for n in frames_in_turn(len(images), progress):  # so that a video needs no memory beyond the result
        if n == 0 or not only:
            front = images[n : n + 1, ..., :3]
            if options.colors is not None:
                front = estimate_foreground(flatten_alpha(images[n : n + 1]), masks[n : n + 1], options.colors)
        composed = _compose(front, masks[n : n + 1], options, None if behind is None else behind[n : n + 1])
        result[n] = composed[0][part]
    return result, masks[(slice(None), *part)].contiguous()


def _behind(images: Tensor, options: CutoutOptions, backgrounds: Tensor | None) -> Tensor | None:
    """Backgrounds for output "image", a single one brought to the images' size; None for other outputs."""
    if options.output != "image":
        return None
    if backgrounds is None:
        raise ImageError(
            "backgrounds is missing, expected an image to put behind the subject: pass one, or choose another output."
        )
    backgrounds = check_images(backgrounds, "backgrounds", channels=(3, 4))
    if backgrounds.shape[-1] == 4:
        backgrounds = over_color(backgrounds[..., :3], backgrounds[..., 3], options.color)
    check_same_device(images, backgrounds, ("images", "backgrounds"))
    if len(backgrounds) > 1:
        return backgrounds
    return fit_images(backgrounds, images.shape[1:3], options.fit, options.color)


def _compose(front: Tensor, mask: Tensor, options: CutoutOptions, behind: Tensor | None) -> Tensor:
    """One frame of the result, before cropping."""
    if behind is not None:
        return over_image(front, mask, behind, options.fit, options.color)
    if options.output == "color":
        return over_color(front, mask, options.color)
    if options.output == "checkerboard":
        return over_checkerboard(front, mask)
    return (straight_rgba if options.output == "rgba" else premultiplied_rgba)(front, mask)
