"""Cut-outs in one call: the subject's own colours, then transparency or something behind, then cropping.

Shapes: B batch, H W picture, h w crop. Images B H W 3, masks B H W, 1 on the subject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError, ImageError
from .checks import pair
from .compose import (
    FITS,
    Color,
    over_checkerboard,
    over_color,
    over_image,
    parse_color,
    premultiplied_rgba,
    straight_rgba,
)
from .crop import crop_to_subject
from .foreground import METHODS, estimate_foreground

OUTPUTS = ("rgba", "premultiplied", "color", "image", "checkerboard")
Progress = Callable[[int, int], object]


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
            if getattr(self, name) not in known:
                listed = ", ".join(map(str, known))
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected one of {listed}.")
        if self.output in ("color", "image"):
            parse_color(self.color)
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
        images: B, H, W, 3 in [0, 1].
        masks: B, H, W in [0, 1]; resized to the images if sizes differ. One may go with many and the reverse.
        options: What to make.
        backgrounds: For output "image": B or 1 pictures of any size.
        progress: Called with (frames done, frames in all). What it raises passes through.

    Returns:
        B, h, w, 4 or B, h, w, 3 float32, and the masks B, h, w that belong to it; h w is H W without cropping.

    Raises:
        ImageError: As for ``straight_rgba``, or no background for output "image".
    """
    behind = backgrounds if options.output == "image" else None
    if options.output == "image" and behind is None:
        raise ImageError("backgrounds is missing, expected a picture to put behind the subject.")
    images, masks = pair(images, masks)
    colours = images if options.colors is None else torch.empty(images.shape, device=images.device)
    for n in range(len(images)):
        if progress:
            progress(n, len(images))
        if options.colors is not None:
            colours[n : n + 1] = estimate_foreground(images[n : n + 1], masks[n : n + 1], options.colors)
    if options.output == "color":
        colours = over_color(colours, masks, options.color)
    elif behind is not None:
        colours = over_image(colours, masks, behind, options.fit, options.color)
        masks = masks.expand(len(colours), -1, -1)
    elif options.output == "checkerboard":
        colours = over_checkerboard(colours, masks)
    if options.crop_padding is not None:
        colours, masks, _ = crop_to_subject(colours, masks, options.crop_padding)
    if options.output in ("rgba", "premultiplied"):
        colours = (straight_rgba if options.output == "rgba" else premultiplied_rgba)(colours, masks)
    if progress:
        progress(len(images), len(images))
    return colours.contiguous(), masks.contiguous()
