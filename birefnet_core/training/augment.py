"""Augmentation: an image and its mask, changed together.

The mask is the fourth channel of one map, so that no geometric change can reach one without the other.

Shapes: 4 colours and mask, H W pixels; floats in [0, 1].
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Shares in [0, 1] of the images each change is made to, and how strong it is.

    Attributes:
        flip: Mirrored left to right; the paper's only change.
        crop: Cut to a window.
        crop_least: Least side of the window, as a share of the image's.
        rotate: Rotated.
        rotate_degrees: Greatest angle.
        colour: Brightness, contrast, saturation and sharpness changed.
        colour_strength: Greatest relative change.
        pepper: Black and white grains.
        pepper_share: Share of pixels that become grains.
        plain_background: Background replaced by one colour.
        composite_background: Background replaced by an image, where background images are given.

    Raises:
        ConfigError: A share outside [0, 1], or a strength out of range.
    """

    flip: float = 0.5
    crop: float = 0.0
    crop_least: float = 0.7
    rotate: float = 0.0
    rotate_degrees: float = 15.0
    colour: float = 0.0
    colour_strength: float = 0.3
    pepper: float = 0.0
    pepper_share: float = 0.0015
    plain_background: float = 0.0
    composite_background: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            top = 180 if field.name == "rotate_degrees" else 1
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= top:
                raise ConfigError(f"augment.{field.name}={value!r}: expected a number in 0 ... {top}.")
            object.__setattr__(self, field.name, float(value))
        if self.crop_least == 0:
            raise ConfigError("augment.crop_least=0: a window needs pixels.")


NO_AUGMENTATION = Augmentation(flip=0.0)


class Chance:
    """Random numbers of one sample; the same seed gives the same numbers on every machine and in every process."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def happens(self, share: float) -> bool:
        """True for that share of the samples. Draws a number in any case, so that shares do not disturb each other."""
        return torch.rand((), generator=self.generator).item() < share

    def between(self, low: float, high: float) -> float:
        """A number between two."""
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def whole(self, count: int) -> int:
        """One of 0 ... count - 1."""
        return int(torch.randint(count, (), generator=self.generator).item())


def augment(pixels: Tensor, size: tuple[int, int], options: Augmentation, chance: Chance) -> Tensor:
    """Crops, resizes, rotates and mirrors colours and mask, then changes the colours.

    Args:
        pixels: 4, H, W.
        size: Width and height of the result.
        options: What is done and how often.
        chance: Random numbers of the sample.

    Returns:
        4, height, width.
    """
    if chance.happens(options.crop):
        pixels = random_window(pixels, options.crop_least, chance)
    pixels = resize(pixels, size)
    if chance.happens(options.rotate):
        pixels = rotate(pixels, chance.between(-options.rotate_degrees, options.rotate_degrees))
    if chance.happens(options.flip):
        pixels = pixels.flip(-1)
    colours, mask = pixels[:3], pixels[3:]
    if chance.happens(options.colour):
        colours = change_colours(colours, options.colour_strength, chance)
    if chance.happens(options.pepper):
        colours = add_pepper(colours, options.pepper_share, chance)
    return torch.cat([colours, mask]).clamp(0, 1)


def resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Stretches C, H, W to width and height, antialiased where it shrinks, as inference does."""
    width, height = size
    if pixels.shape[1:] == (height, width):
        return pixels
    shrinks = height < pixels.shape[1] or width < pixels.shape[2]
    return F.interpolate(pixels[None], (height, width), mode="bilinear", align_corners=False, antialias=shrinks)[0]


def random_window(pixels: Tensor, least: float, chance: Chance) -> Tensor:
    """Cuts C, H, W to a window whose sides are at least that share of the image's."""
    height, width = pixels.shape[1:]
    window = [max(1, round(side * chance.between(least, 1))) for side in (height, width)]
    top, left = (chance.whole(side - cut + 1) for side, cut in zip((height, width), window, strict=True))
    return pixels[:, top : top + window[0], left : left + window[1]]


def rotate(pixels: Tensor, degrees: float) -> Tensor:
    """Rotates C, H, W about its middle; what comes in from outside is mirrored, colours and mask alike."""
    height, width = pixels.shape[1:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]])
    grid = F.affine_grid(matrix, [1, 1, height, width], align_corners=False)  # 1 H W 2
    return F.grid_sample(pixels[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]


def change_colours(colours: Tensor, strength: float, chance: Chance) -> Tensor:
    """Blends 3, H, W with black, its mean, its grey and its blurred self, in or out, by random amounts."""
    weight = colours.new_tensor(GREY).view(3, 1, 1)

    def factor() -> float:
        return chance.between(1 - strength, 1 + strength)

    colours = (colours * factor()).clamp(0, 1)  # brightness
    mean = (colours * weight).sum(0).mean()
    colours = (mean + (colours - mean) * factor()).clamp(0, 1)  # contrast
    grey = (colours * weight).sum(0, keepdim=True)
    colours = (grey + (colours - grey) * factor()).clamp(0, 1)  # saturation
    blurred = F.avg_pool2d(colours[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    return (blurred + (colours - blurred) * factor()).clamp(0, 1)  # sharpness


def add_pepper(colours: Tensor, share: float, chance: Chance) -> Tensor:
    """Turns that share of the pixels of 3, H, W black or white."""
    noise = torch.rand(colours.shape[1:], generator=chance.generator)
    grain = (noise < share / 2).to(colours.dtype)  # white
    return torch.where(noise < share, grain, colours)


def replace_background(pixels: Tensor, background: Tensor) -> Tensor:
    """Puts the subject of 4, H, W on a background 3, H, W: a c + (1 - a) b with the mask as a."""
    alpha = pixels[3:]
    return torch.cat([alpha * pixels[:3] + (1 - alpha) * background, alpha])


def cover(background: Tensor, size: tuple[int, int], chance: Chance) -> Tensor:
    """Scales 3, H, W until it covers width and height, and cuts a random part of just that size out of it."""
    width, height = size
    scale = max(height / background.shape[1], width / background.shape[2])
    sides = zip((height, width), background.shape[1:], strict=True)
    scaled = [max(side, round(found * scale)) for side, found in sides]
    background = resize(background, (scaled[1], scaled[0]))
    top, left = chance.whole(scaled[0] - height + 1), chance.whole(scaled[1] - width + 1)
    return background[:, top : top + height, left : left + width]
