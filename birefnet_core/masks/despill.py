"""Despill: taking the colour of a screen, or of any background, out of a subject it shines on.

A colour is split into grey and chroma (what is left without its mean). The key's direction of chroma is u; a pixel's
chroma has the part a along u and the part q across it. Light of the key's hue, which is the key v without its own grey,
is subtracted until a is no more than the limit allows:

    spill = max(0, a - limit * |q|) / (v . u),   pixel - spill * v

For a green key this is what compositors know: with limit 0 the green is cut to the average of red and blue, with limit
1 / sqrt(3) to the larger of the two. The formula turns both to any hue.

Shapes: B batch, H W image. Images B H W 3, masks B H W.
"""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from ..autocast import without_autocast
from ..checks import check_choice, check_number
from ..errors import ConfigError, ImageError
from ..image_ops import check_images, check_masks, pair, pair_batches, resize_masks
from .compose import Color, parse_color
from .foreground import estimate_foreground
from .morphology import feather, grow
from .windows import Progress, frames_in_turn

logger = logging.getLogger(__name__)

# "average" takes out most, and turns blond hair orange beside a green screen; "maximum" leaves yellow and cyan alone,
# and green rims on them; "balanced" is half way.
LIMITS = {"balanced": 0.5 / math.sqrt(3), "average": 0.0, "maximum": 1 / math.sqrt(3)}
LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709
GREYEST = 0.02  # a key with less difference between its channels has no hue to speak of
BACKGROUND = 0.05  # masks up to this are background
SAMPLES = 1 << 20  # background pixels the median is taken of
LOOK = 512  # pixels of a side that are enough to tell a background from estimated colours
# Mean difference from colours estimated anew. On the photographs in examples/ it is up to .05 for cut-outs, and .18 and
# more for backgrounds.
CARRIED_ON = 0.08


@torch.no_grad()
@without_autocast
def remove_spill(
    images: Tensor,
    color: Color,
    *,
    limit: str = "balanced",
    strength: float = 1.0,
    keep_brightness: float = 0.0,
    masks: Tensor | None = None,
    edge_width: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Takes a colour's hue out of images.

    Args:
        images: B, H, W, 3 in [0, 1].
        color: The spilling colour, as for ``parse_color``. A grey has no hue to take out: the log says so.
        limit: Of ``LIMITS``: how much of the hue may stay, from "average" (least) over "balanced" to "maximum".
        strength: Fraction of the spill that is taken out.
        keep_brightness: Fraction of the luminance taken out that is given back as grey light.
        masks: B, H, W in [0, 1], needed by ``edge_width``.
        edge_width: Pixels inwards from the edge of the masks after which nothing is changed; 0 works everywhere.
        progress: Called with (frames done, frames in all). What it raises passes through.

    Returns:
        B, H, W, 3 float32; pixels without spill are not changed.

    Raises:
        ConfigError: No colour, or a value out of its range.
        ImageError: Images or masks of the wrong shape, type or content, or that do not fit each other.
    """
    check_number("edge_width", edge_width, whole=True)
    for name, value in (("strength", strength), ("keep_brightness", keep_brightness)):
        check_number(name, value)
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value}, expected 0 to 1.")
    check_choice("limit", limit, LIMITS)
    if edge_width < 0:
        raise ConfigError(f"edge_width is {edge_width}, expected 0 (everywhere) or more pixels.")
    if edge_width and masks is None:
        raise ImageError("masks is missing, expected the subject's masks: edge_width is measured from their edges.")
    images = check_images(images)
    key = _key(color).to(images.device)
    if masks is not None:
        images, masks = pair(images, masks)
    result = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for n in frames_in_turn(len(images), progress):  # so that a video needs no memory beyond the result
        image = images[n]
        spill = _spill(image, key, LIMITS[limit]) * strength  # H W
        if masks is not None and edge_width:
            spill *= _near_edge(masks[n], edge_width)
        light = spill[..., None] * key
        luma = (light @ light.new_tensor(LUMA))[..., None] * keep_brightness
        result[n] = (image - light + luma).clamp_(0, 1)
    return result


@torch.no_grad()
def background_color(images: Tensor, masks: Tensor) -> tuple[float, float, float]:
    """The background's colour: the median of each channel over the pixels that the masks leave out.

    Args:
        images: B, H, W, 3 in [0, 1].
        masks: B, H, W in [0, 1].

    Raises:
        ImageError: As for ``remove_spill``, or masks without background.
    """
    images, masks = check_images(images), check_masks(masks)
    images, masks = pair_batches(images, resize_masks(masks, images.shape[1:3]))
    step = max(1, math.isqrt(masks.numel() // SAMPLES))
    pixels = images[:, ::step, ::step][masks[:, ::step, ::step] <= BACKGROUND]  # N 3
    if not len(pixels):
        raise ImageError("the mask has no background, expected one whose colour can be measured: choose the colour.")
    red, green, blue = pixels.median(dim=0).values.tolist()
    return red, green, blue


@torch.no_grad()
def shows_background(images: Tensor, masks: Tensor) -> bool:
    """Whether there is a background where the masks are 0, and not the subject's colours, estimated and carried on.

    Cut-outs have such colours there, see ``estimate_foreground``; the first with a subject is looked at.

    Args:
        images: B, H, W, 3 in [0, 1].
        masks: B, H, W in [0, 1].

    Raises:
        ImageError: As for ``remove_spill``.
    """
    images, masks = pair(images, masks)
    step = max(1, max(masks.shape[1:]) // LOOK)
    for image, mask in zip(images[:, None, ::step, ::step], masks[:, None, ::step, ::step], strict=True):
        outside = mask <= BACKGROUND
        if outside.any() and (mask >= 1 - BACKGROUND).any():
            difference = (estimate_foreground(image, mask) - image).abs()[outside].mean()
            return difference.item() > CARRIED_ON
    return True


def _key(color: Color) -> Tensor:
    """The colour without its grey, its largest channel 1; all 0 for a grey."""
    key = torch.tensor(parse_color(color), dtype=torch.float32, device="cpu")
    key = key - key.min()
    if key.max() < GREYEST:
        logger.warning("Despill changes nothing: the color %s is grey, and spill is taken out by hue.", color)
        return torch.zeros_like(key)
    return key / key.max()


def _spill(image: Tensor, key: Tensor, limit: float) -> Tensor:
    """How much of the key, H, W, is in an image H, W, 3 beyond the limit."""
    if not key.any():
        return image.new_zeros(image.shape[:2])
    direction = key - key.mean()
    direction = direction / direction.norm()
    chroma = image - image.mean(dim=-1, keepdim=True)
    along = chroma @ direction
    across = (chroma - along[..., None] * direction).norm(dim=-1)
    return ((along - limit * across) / (key @ direction)).clamp_(min=0)


def _near_edge(mask: Tensor, width: int) -> Tensor:
    """Weights H, W: 1 outside and at the edge of a mask, falling to 0 at ``width`` pixels within."""
    core = feather(grow((mask >= 1 - BACKGROUND).float()[None], -math.ceil(width / 2)), width / 6)[0]
    return 1 - core
