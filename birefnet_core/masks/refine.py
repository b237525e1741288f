"""Refining masks: every operation of the package in one fixed order.

1. smooth over time      before anything is decided, so that later decisions do not flicker
2. black and white point, then threshold
3. keep the largest part, or remove islands; then fill holes
4. grow or shrink
5. smooth the edge
6. guided filter         follows edges of the image, so after the outline is where it should be
7. feather
8. invert                so every number above speaks of the subject

Shapes: B batch, H W image. Masks are 1 on the subject.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..autocast import without_autocast
from ..checks import check_choice, check_kind, check_number, check_switch
from ..errors import ConfigError, ImageError
from ..image_ops import check_images, check_masks, check_same_device, flatten_alpha, pair_batches, resize_images
from .components import LEVEL, fill_holes, keep_largest, remove_islands
from .guided_filter import guided_filter
from .levels import binarize, stretch_levels
from .morphology import ELEMENTS, feather, grow, smooth_edge
from .temporal import smooth_over_time
from .windows import Progress, groups_in_turn

_WHOLE_NUMBERS = ("temporal_radius", "grow", "guided_radius")
_NUMBERS = (
    *_WHOLE_NUMBERS, "black_point", "white_point", "min_island_area", "max_hole_area", "part_level", "smooth_edge",
    "guided_epsilon", "feather",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """What ``refine_mask`` does; by default nothing.

    Attributes:
        temporal_radius: Frames before and after that are averaged where nothing moves; 0 is off.
        black_point: Values up to this become 0; 0 is off.
        white_point: Values from this become 1; 1 is off.
        threshold: Values above this become 1, others 0; None is off.
        keep_largest: Keep only the largest part of each frame.
        min_island_area: Remove parts of fewer pixels; 0 is off.
        max_hole_area: Fill enclosed holes of at most so many pixels; 0 is off.
        part_level: Value above which a pixel belongs to a part (a hole: below 1 minus it).
        grow: Pixels by which the subject grows, negative shrinks it; 0 is off.
        grow_element: "circle" or "square".
        smooth_edge: Pixels over which a hard outline is rounded off; 0 is off.
        guided_radius: Pixels from which the guided filter learns each colour fit; 0 is off.
        guided_epsilon: Squared colour difference the guided filter takes for flat.
        feather: Standard deviation of the final blur in pixels; 0 is off.
        invert: Make the background 1.

    Raises:
        ConfigError: A value out of its range.
    """

    temporal_radius: int = 0
    black_point: float = 0.0
    white_point: float = 1.0
    threshold: float | None = None
    keep_largest: bool = False
    min_island_area: float = 0
    max_hole_area: float = 0
    part_level: float = LEVEL
    grow: int = 0
    grow_element: str = "circle"
    smooth_edge: float = 0.0
    guided_radius: int = 0
    guided_epsilon: float = 1e-4
    feather: float = 0.0
    invert: bool = False

    def __post_init__(self) -> None:
        for name in ("keep_largest", "invert"):
            check_switch(name, getattr(self, name))
        for name in _NUMBERS:
            check_number(name, getattr(self, name), whole=name in _WHOLE_NUMBERS)
        if self.threshold is not None:
            check_number("threshold", self.threshold)
        for name in ("temporal_radius", "guided_radius", "min_island_area", "max_hole_area", "smooth_edge", "feather"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 (off) or more.")
        for name in ("smooth_edge", "feather"):
            if math.isinf(getattr(self, name)):
                raise ConfigError(f"{name} is infinite, expected a number of pixels.")
        if not 0 <= self.black_point < self.white_point <= 1:
            raise ConfigError(
                f"black_point is {self.black_point} and white_point {self.white_point}, "
                f"expected 0 <= black_point < white_point <= 1."
            )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}, expected 0 to 1, or None for no threshold.")
        if not 0 <= self.part_level < 1:
            raise ConfigError(f"part_level is {self.part_level}, expected 0 or more and below 1.")
        check_choice("grow_element", self.grow_element, ELEMENTS)
        if not 0 < self.guided_epsilon < math.inf:
            raise ConfigError(f"guided_epsilon is {self.guided_epsilon}, expected more than 0, such as 1e-4.")


@torch.no_grad()
@without_autocast
def refine_mask(
    masks: Tensor, options: RefineOptions, images: Tensor | None = None, progress: Progress | None = None
) -> Tensor:
    """Refines masks by the operations that are on, in the order given at the head of this file.

    Args:
        masks: B, H, W in [0, 1], floating point, any device.
        options: What to do.
        images: B, H, W, 3 or 4 (alpha) in [0, 1]: the guide of the guided filter, and what temporal smoothing sees
            motion by. Resized to the masks if sizes differ; one image may go with many masks and the reverse.
        progress: Called with (frames done, frames in all); with temporal smoothing, frames count twice. What it raises
            passes through.

    Returns:
        B, H, W float32 on the masks' device; never the tensor passed in. Frames are handled a few at a
        time: peak memory is the result (twice with temporal smoothing) and up to about 100 bytes for each
        pixel of those frames, 400 MB at 2048 x 2048; a guided filter of a wide radius takes more.

    Raises:
        ImageError: Masks or images that are not as above, numbers of frames that do not fit, or a guided
            filter without images.
        ConfigError: Not ``RefineOptions``.
    """
    check_kind("options", options, RefineOptions)
    masks = check_masks(masks)
    if options.guided_radius and images is None:
        raise ImageError("images is missing, expected the images the masks belong to: the guided filter needs them.")
    if images is not None:
        images = flatten_alpha(check_images(images, channels=(3, 4)))
        check_same_device(images, masks)
        images, masks = pair_batches(images, masks)
    frames, smoothed = len(masks), len(masks) if options.temporal_radius else 0

    def report(done: int, before: int) -> None:
        if progress:
            progress(before + done, smoothed + frames)

    if options.temporal_radius:
        guides = None if images is None else _fit(images, masks)
        masks = smooth_over_time(masks, options.temporal_radius, guides, lambda done, _: report(done, 0))
    out = torch.empty(masks.shape, dtype=torch.float32, device=masks.device)
    for group in groups_in_turn(frames, masks.shape[1] * masks.shape[2], lambda done, _: report(done, smoothed)):
        guide = images[group] if images is not None and options.guided_radius else None
        out[group] = _refine_frames(masks[group], options, guide)
    return out


def _refine_frames(masks: Tensor, options: RefineOptions, images: Tensor | None) -> Tensor:
    if (options.black_point, options.white_point) != (0, 1):
        masks = stretch_levels(masks, options.black_point, options.white_point)
    if options.threshold is not None:
        masks = binarize(masks, options.threshold)
    if options.keep_largest:
        masks = keep_largest(masks, options.part_level)
    if options.min_island_area:
        masks = remove_islands(masks, options.min_island_area, options.part_level)
    if options.max_hole_area:
        masks = fill_holes(masks, options.max_hole_area, options.part_level)
    masks = grow(masks, options.grow, options.grow_element)
    masks = smooth_edge(masks, options.smooth_edge)
    if images is not None:
        masks = guided_filter(masks, _fit(images, masks), options.guided_radius, options.guided_epsilon)
    masks = feather(masks, options.feather)
    return 1 - masks if options.invert else masks


def _fit(images: Tensor, masks: Tensor) -> Tensor:
    return resize_images(images, masks.shape[1:3])
