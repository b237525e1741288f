"""Putting the subject on something: transparent, a colour, an image, a checkerboard.

Masks are 1 on the subject and 0 on the background, as everywhere in this package; alpha is the mask
itself. (ComfyUI's LoadImage and JoinImageWithAlpha use the opposite, 1 - alpha.)

Colours of the subject are taken as they are: pass what ``estimate_foreground`` gives, or the old background
shines through at soft edges.

Shapes: B batch, H W image. Images B H W 3, masks B H W; one image may go with many masks and the reverse,
and masks of another size are resized to the images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_choice, check_number
from ..errors import ConfigError
from ..image_ops import check_images, check_same_device, pair, pair_batches, resize_images

Color = str | Sequence[int] | Sequence[float]

FITS = ("fill", "fit", "stretch")
# Two middle greys, on which black, white and coloured subjects all show.
CHECKER_CELL, CHECKER_DARK, CHECKER_LIGHT = 16, 0.4, 0.6


@torch.no_grad()
def straight_rgba(images: Tensor, masks: Tensor) -> Tensor:
    """Image and mask as one: colours untouched, what PNG files and ComfyUI's SaveImage expect.

    Args:
        images: B, H, W, 3 in [0, 1].
        masks: B, H, W in [0, 1].

    Returns:
        B, H, W, 4 float32.

    Raises:
        ImageError: Images or masks of the wrong shape, type or content, or that do not fit each other.
    """
    images, masks = pair(images, masks)
    return torch.cat([images, masks[..., None]], dim=-1)


@torch.no_grad()
def premultiplied_rgba(images: Tensor, masks: Tensor) -> Tensor:
    """``straight_rgba`` with the colours times alpha, what compositing programs expect."""
    images, masks = pair(images, masks)
    alpha = masks[..., None]
    return torch.cat([images * alpha, alpha], dim=-1)


@torch.no_grad()
def over_color(images: Tensor, masks: Tensor, color: Color) -> Tensor:
    """The subject over a plain colour.

    Args:
        images: B, H, W, 3 in [0, 1].
        masks: B, H, W in [0, 1].
        color: As for ``parse_color``.

    Returns:
        B, H, W, 3 float32.

    Raises:
        ConfigError: No colour.
        ImageError: As for ``straight_rgba``.
    """
    shade = parse_color(color)
    images, masks = pair(images, masks)
    return torch.lerp(images.new_tensor(shade), images, masks[..., None])


@torch.no_grad()
def over_image(
    images: Tensor, masks: Tensor, backgrounds: Tensor, fit: str = "fill", bars: Color = "#000000"
) -> Tensor:
    """The subject over another image.

    Args:
        images: B, H, W, 3 in [0, 1].
        masks: B, H, W in [0, 1].
        backgrounds: B or 1 images of any size, in [0, 1].
        fit: "fill" covers the frame and cuts off what stands out, "fit" shows the whole background between
            bars, both centred; "stretch" changes its proportions.
        bars: Color of the bars, as for ``parse_color``.

    Returns:
        B, H, W, 3 float32.

    Raises:
        ConfigError: Unknown fit, or no colour.
        ImageError: As for ``straight_rgba``, for any of the three.
    """
    images, masks = pair(images, masks)
    backgrounds = check_images(backgrounds, "backgrounds")
    check_same_device(images, backgrounds, ("images", "backgrounds"))
    backgrounds = fit_images(backgrounds, images.shape[1:3], fit, bars)
    images, backgrounds = pair_batches(images, backgrounds, ("images", "backgrounds"))
    masks = masks.expand(images.shape[0], -1, -1)
    return torch.lerp(backgrounds, images, masks[..., None])


@torch.no_grad()
def over_checkerboard(images: Tensor, masks: Tensor, cell: int = CHECKER_CELL) -> Tensor:
    """The subject over the grey checkerboard that editors show for "transparent", in cells of some pixels."""
    check_number("cell", cell, whole=True)
    if cell < 1:
        raise ConfigError(f"cell is {cell}, expected 1 pixel or more.")
    images, masks = pair(images, masks)
    height, width = images.shape[1:3]
    cell = min(cell, max(height, width))
    rows, columns = (torch.arange(n, device=images.device) // cell for n in (height, width))
    is_light = ((rows[:, None] + columns) % 2 == 0)[..., None]  # H W 1
    light, dark = images.new_tensor([CHECKER_LIGHT, CHECKER_DARK])
    board = torch.where(is_light, light, dark)
    return torch.lerp(board, images, masks[..., None])


def fit_images(images: Tensor, size: Sequence[int], fit: str, bars: Color = "#000000") -> Tensor:
    """Brings images to a size; see ``over_image``.

    Args:
        images: B, h, w, 3.
        size: Height and width.
        fit: "fill", "fit" or "stretch".
        bars: Color of what "fit" leaves free.

    Returns:
        B, height, width, 3.

    Raises:
        ConfigError: Unknown fit, or no colour.
    """
    check_choice("fit", fit, FITS)
    shade = parse_color(bars)
    height, width = size
    if fit == "stretch":
        return resize_images(images, size)
    h, w = images.shape[1:3]
    scales = height / h, width / w
    if fit == "fill":  # cut before resizing, so that a long strip does not become a huge image
        kept_h, kept_w = (max(1, round(n / max(scales))) for n in size)
        top, left = (h - kept_h) // 2, (w - kept_w) // 2
        return resize_images(images[:, top : top + kept_h, left : left + kept_w], size)
    h, w = (max(1, round(n * min(scales))) for n in (h, w))
    top, left = (height - h) // 2, (width - w) // 2
    canvas = torch.tensor(shade, dtype=images.dtype, device=images.device).repeat(images.shape[0], height, width, 1)
    canvas[:, top : top + h, left : left + w] = resize_images(images, (h, w))
    return canvas


def parse_color(value: Color) -> tuple[float, float, float]:
    """Reads a colour.

    Args:
        value: "#rrggbb" or "#rgb" (the # may be left out), "r,g,b", or three numbers. Whole numbers are
            bytes 0 to 255; if any number has a decimal point (is a float) all are fractions 0 to 1.

    Returns:
        Red, green and blue in [0, 1].

    Raises:
        ConfigError: Anything else.
    """
    expected = 'expected a color such as "#ff8800", "255,136,0", "1.0,0.53,0.0" or (255, 136, 0)'
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})", text):
            digits = text.lstrip("#")
            pairs = [d * 2 for d in digits] if len(digits) == 3 else re.findall("..", digits)
            red, green, blue = (int(p, 16) / 255 for p in pairs)
            return red, green, blue
        try:
            numbers: list[float] = [float(part) if "." in part else int(part) for part in text.split(",")]
        except ValueError:
            raise ConfigError(f"color is {value!r}, {expected}.") from None
    elif isinstance(value, Sequence) and not isinstance(value, bytes) and all(type(n) in (int, float) for n in value):
        numbers = [n for n in value if not isinstance(n, str)]  # none is; this tells the type checker
    else:
        raise ConfigError(f"color is {value!r}, {expected}.")
    if len(numbers) != 3:
        raise ConfigError(f"color {value!r} has {len(numbers)} parts, {expected}.")
    top = 1 if any(isinstance(n, float) for n in numbers) else 255
    if not all(0 <= n <= top for n in numbers):
        raise ConfigError(f"color {value!r} has a part outside 0 to {top}, {expected}.")
    red, green, blue = (n / top for n in numbers)
    return red, green, blue
