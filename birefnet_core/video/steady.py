"""Masks that are steady over time: motion-compensated smoothing of a stream of masks.

Shapes: H W frame.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..errors import ConfigError, ImageError
from ..image_ops import resize
from ..masks.windows import box_mean
from .motion import SIDE, Motion, SmallFrame, carry, motion_between, small_copy, trust
from .scene_cuts import is_cut

# Mean over a window of the change that cancels out within it: above, it is detail that the flow has missed. Chosen on
# rendered clips, where it takes two thirds of the error away that smoothing makes in exact masks, and costs no flicker.
MOST_CANCELLED = 0.05
WINDOW = 2  # radius of that window, in pixels of the flow


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Frame:
    """What is kept of a frame.

    Attributes:
        small: Small copy.
        mask: 1, H, W.
        motion: From the frame before; None at the start of a scene.
    """

    small: SmallFrame
    mask: Tensor
    motion: Motion | None


class TemporalFilter:
    """Averages each mask with those of the frames around it, fetched along the motion.

    Optical flow between small copies of the frames says where a pixel is in the frames before and after. A neighbour
    counts as far as its motion can be trusted (``motion.trust``): not where the pixel is occluded there, leaves the
    frame or changes its colour, and never beyond a scene cut; nor where details of the masks do not meet. So flicker is
    averaged out, and edges and hairs of what moves stay sharp.

    Push frames and their masks in order; masks come out in the same order, ``radius`` frames later. At most
    2 ``radius`` + 1 masks and small copies are kept.

    Args:
        radius: Frames before and after that are averaged; 0 is off.
        strength: Weight of a neighbour beside the frame's own mask, 0 to 1.
        side: Longest side in pixels of the small copies.

    Attributes:
        cuts: Numbers of the frames a new scene began with, counted from 0.
    """

    def __init__(self, *, radius: int = 0, strength: float = 1.0, side: int = SIDE) -> None:
        if radius < 0:
            raise ConfigError(f"radius={radius!r}: expected 0 (off) or more frames.")
        if not 0 <= strength <= 1:
            raise ConfigError(f"strength={strength!r}: expected 0 to 1.")
        if side < 32:
            raise ConfigError(f"side={side!r}: expected at least 32 pixels.")
        self.radius, self.strength, self.side = radius, strength, side
        self.cuts: list[int] = []
        self._window: list[_Frame] = []  # the last frames, oldest first
        self._next = 0  # index in the window of the next mask to come out
        self._pushed = 0

    @torch.no_grad()
    def push(self, frame: Tensor, mask: Tensor) -> list[Tensor]:
        """Takes the next frame.

        Args:
            frame: 3, h, w float in [0, 1].
            mask: 1, H, W float in [0, 1], on the same device.

        Returns:
            Masks 1, H, W that are finished, in order; with a radius of 0 the mask itself.

        Raises:
            ImageError: Another shape, or a mask of another size than those before.
        """
        _check(frame, mask)
        if self.radius == 0:
            return [mask]
        if self._window and self._window[-1].mask.shape != mask.shape:
            before = " x ".join(str(n) for n in self._window[-1].mask.shape[1:])
            now = " x ".join(str(n) for n in mask.shape[1:])
            raise ImageError(f"a mask of {now} after masks of {before}: flush the filter before another clip.")
        self._window.append(self._frame(frame, mask))
        self._pushed += 1
        if len(self._window) - self._next <= self.radius:
            return []
        return [self._finish()]

    @torch.no_grad()
    def flush(self) -> list[Tensor]:
        """The masks that are left; a frame pushed afterwards begins a new scene."""
        masks = [self._finish() for _ in range(len(self._window) - self._next)]
        self._window, self._next = [], 0
        return masks

    def _frame(self, frame: Tensor, mask: Tensor) -> _Frame:
        small, motion = small_copy(frame, self.side), None
        if self._window:
            before = self._window[-1].small
            motion = motion_between(before, small)
            if is_cut(before, small, motion):
                self.cuts.append(self._pushed)
                motion = None
        return _Frame(small=small, mask=mask.float(), motion=motion)

    def _finish(self) -> Tensor:
        mask = self._smooth(self._next)
        if self._next == self.radius:
            del self._window[0]
        else:
            self._next += 1
        return mask

    def _smooth(self, index: int) -> Tensor:
        centre = self._window[index]
        size = centre.mask.shape[-2:]
        neighbours = self._neighbours(index)
        if not neighbours:
            return centre.mask.clone()
        small = SmallFrame(*map(torch.cat, zip(*(other.small for other, _ in neighbours), strict=True)))
        motions = Motion(*map(torch.cat, zip(*(motion for _, motion in neighbours), strict=True)))
        trusted = self.strength * trust(centre.small, small, motions)  # N 1 h w
        total, weights = torch.zeros_like(centre.mask), torch.ones_like(centre.mask)
        for n, (other, motion) in enumerate(neighbours):
            change = carry(other.mask, motion.forward) - centre.mask
            weight = trusted[n : n + 1] * _flicker_weight(change[None], trusted.shape[-2:])
            weight = resize(weight, size)[0]
            total.addcmul_(weight, change)
            weights.add_(weight)
        return total.div_(weights).add_(centre.mask).clamp_(0, 1)

    def _neighbours(self, index: int) -> list[tuple[_Frame, Motion]]:
        """The frames of the same scene within the radius, each with the motion from the frame at ``index`` to it."""
        found = []
        for direction in (1, -1):
            total: Motion | None = None
            for distance in range(1, self.radius + 1):
                other = index + direction * distance
                if not 0 <= other < len(self._window):
                    break
                step = self._window[max(other, other - direction)].motion
                if step is None:
                    break
                step = step if direction > 0 else step.reversed()
                total = step if total is None else total.then(step)
                found.append((self._window[other], total))
        return found


def _flicker_weight(change: Tensor, size: torch.Size) -> Tensor:
    """How far the change of a mask along the motion is flicker.

    Flicker raises or lowers the mask over some area. A detail that the flow has missed by a pixel, such as a hair, is
    gone from one place and new beside it: such changes cancel out within a window, and averaging would smear them.

    Args:
        change: 1, 1, H, W.
        size: h, w, the flow's.

    Returns:
        1, 1, h, w in [0, 1].
    """
    amount, sum_of_both = (box_mean(resize(x, size, antialias=True), WINDOW) for x in (change.abs(), change))
    return torch.exp(-(((amount - sum_of_both.abs()) / MOST_CANCELLED) ** 2))


def _check(frame: Tensor, mask: Tensor) -> None:
    if frame.ndim != 3 or frame.shape[0] != 3 or 0 in frame.shape:
        raise ImageError(f"a frame has shape {tuple(frame.shape)}, expected 3, H, W.")
    if mask.ndim != 3 or mask.shape[0] != 1 or 0 in mask.shape:
        raise ImageError(f"a mask has shape {tuple(mask.shape)}, expected 1, H, W.")
