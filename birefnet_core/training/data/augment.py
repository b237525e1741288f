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

from ...errors import ConfigError
from ...image_ops import resize

_LONG = 4  # times as long as needed, a background is cut before it is scaled
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Probability of each transform, and how strong it is.

    Attributes:
        flip: Horizontal flip; the paper's only transform.
        crop: Random crop.
        crop_least: Least side of the crop, as a fraction of the image's.
        rotate: Rotation.
        rotate_degrees: Greatest angle.
        colour: Change of brightness, contrast, saturation and sharpness.
        colour_strength: Greatest relative change.
        pepper: Salt and pepper noise.
        pepper_share: Fraction of the pixels that become black or white.
        plain_background: Background replaced by one colour.
        composite_background: Background replaced by an image, where background images are given.

    Raises:
        ConfigError: A probability outside [0, 1], or a strength out of range.
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
            raise ConfigError("augment.crop_least=0: a crop needs pixels.")


NO_AUGMENTATION = Augmentation(flip=0.0)


class SampleRng:
    """Random numbers of one sample; a seed gives the same numbers on every machine and in every process."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def bernoulli(self, probability: float) -> bool:
        """True with that probability. Always draws one number, so that the numbers after it do not depend on it."""
        return torch.rand((), generator=self.generator).item() < probability

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def randint(self, count: int) -> int:
        """One of 0 ... count - 1."""
        return int(torch.randint(count, (), generator=self.generator).item())


def augment(pixels: Tensor, size: tuple[int, int], options: Augmentation, rng: SampleRng) -> Tensor:
    """Crops, resizes, rotates and flips colours and mask, then changes the colours.

    Args:
        pixels: 4, H, W.
        size: Height and width of the result.
        options: Which transforms, and how strong.
        rng: Random numbers of the sample.

    Returns:
        4, height, width.
    """
    if rng.bernoulli(options.crop):
        pixels = random_crop(pixels, options.crop_least, rng)
    pixels = resize(pixels[None], size, antialias=True)[0]  # 4 h w
    if rng.bernoulli(options.rotate):
        pixels = rotate(pixels, rng.uniform(-options.rotate_degrees, options.rotate_degrees))
    if rng.bernoulli(options.flip):
        pixels = pixels.flip(-1)
    colours, mask = pixels[:3], pixels[3:]
    if rng.bernoulli(options.colour):
        colours = change_colours(colours, options.colour_strength, rng)
    if rng.bernoulli(options.pepper):
        colours = add_pepper(colours, options.pepper_share, rng)
    return torch.cat([colours, mask]).clamp(0, 1)


def random_crop(pixels: Tensor, least: float, rng: SampleRng) -> Tensor:
    """Crops C, H, W to a window whose sides are at least that fraction of the image's."""
    height, width = pixels.shape[1:]
    crop = [max(1, round(side * rng.uniform(least, 1))) for side in (height, width)]
    top, left = (rng.randint(side - cut + 1) for side, cut in zip((height, width), crop, strict=True))
    return pixels[:, top : top + crop[0], left : left + crop[1]]


def rotate(pixels: Tensor, degrees: float) -> Tensor:
    """Rotates C, H, W about its centre, with reflection padding."""
    height, width = pixels.shape[1:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]])
    grid = F.affine_grid(matrix, [1, 1, height, width], align_corners=False)  # 1 H W 2
    return F.grid_sample(pixels[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]


def change_colours(colours: Tensor, strength: float, rng: SampleRng) -> Tensor:
    """Changes brightness, contrast, saturation and sharpness of 3, H, W by random factors."""
    weight = colours.new_tensor(GREY).view(3, 1, 1)

    def factor() -> float:
        return rng.uniform(1 - strength, 1 + strength)

    colours = (colours * factor()).clamp(0, 1)  # brightness
    mean = (colours * weight).sum(0).mean()
    colours = (mean + (colours - mean) * factor()).clamp(0, 1)  # contrast
    grey = (colours * weight).sum(0, keepdim=True)
    colours = (grey + (colours - grey) * factor()).clamp(0, 1)  # saturation
    blurred = F.avg_pool2d(colours[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    return (blurred + (colours - blurred) * factor()).clamp(0, 1)  # sharpness


def add_pepper(colours: Tensor, fraction: float, rng: SampleRng) -> Tensor:
    """Makes that fraction of the pixels of 3, H, W black or white."""
    noise = torch.rand(colours.shape[1:], generator=rng.generator)
    white = (noise < fraction / 2).to(colours.dtype)
    return torch.where(noise < fraction, white, colours)


def replace_background(pixels: Tensor, background: Tensor) -> Tensor:
    """Puts the subject of 4, H, W on a background 3, H, W: a c + (1 - a) b with the mask as a."""
    alpha = pixels[3:]
    return torch.cat([alpha * pixels[:3] + (1 - alpha) * background, alpha])


def cover(background: Tensor, size: tuple[int, int], rng: SampleRng) -> Tensor:
    """Scales 3, H, W until it covers a height and width, and takes a random crop of just that size."""
    sides = list(zip(size, background.shape[1:], strict=True))
    scale = max(side / found for side, found in sides)
    for axis, (side, found) in enumerate(sides, start=1):
        if found * scale > _LONG * side:  # cut before it is scaled, for a panorama behind a tall image has gigabytes
            length = math.ceil(side / scale)
            background = background.narrow(axis, rng.randint(found - length + 1), length)
    sides = list(zip(size, background.shape[1:], strict=True))
    scaled = [max(side, round(found * scale)) for side, found in sides]
    background = resize(background[None], scaled, antialias=True)[0]  # 3 h w
    top, left = (rng.randint(found - side + 1) for side, found in zip(size, scaled, strict=True))
    return background[:, top : top + size[0], left : left + size[1]]
