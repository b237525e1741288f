"""Motion between the frames of a clip, found on small copies of them, and how far it can be trusted.

Shapes: B frames, mostly one; H W frame, h w small copy.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..image_ops import resize, warp
from .flow import compose, optical_flow, patch_error, scale_flow

SIDE = 256  # pixels, longest side of a small copy: what flow costs does not depend on the clip
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

# How the trust in a motion decreases; chosen by hand on rendered clips (benchmarks/video.md).
COLOUR_TOLERANCE = 0.04  # mean difference of patches along the motion; noise of 0.03 in the small copies costs half
# N. Sundaram, T. Brox, K. Keutzer, "Dense Point Trajectories by GPU-accelerated Large Displacement Optical Flow",
# ECCV 2010, Eq. 5: forth and back must return within this many squared pixels, plus a part of the squared motions.
LOOP_TOLERANCE, LOOP_PART = 0.5, 0.01
MOST_GAIN = 2.0  # between two frames of a scene


class SmallFrame(NamedTuple):
    """A small copy of a frame.

    Attributes:
        colours: 1, 3, h, w in [0, 1].
        grey: 1, 1, h, w.
    """

    colours: Tensor
    grey: Tensor


class Motion(NamedTuple):
    """Flows between an earlier and a later frame, 1, 2, h, w each."""

    forward: Tensor  # at the earlier frame's pixels: where they went
    backward: Tensor  # at the later frame's pixels: where they came from

    def then(self, later: Motion) -> Motion:
        """From this motion's earlier frame to the other one's later frame."""
        return Motion(compose(self.forward, later.forward), compose(later.backward, self.backward))

    def reversed(self) -> Motion:
        """The same two frames in the other order."""
        return Motion(self.backward, self.forward)


def small_copy(frame: Tensor, side: int = SIDE) -> SmallFrame:
    """Shrinks a frame 3, H, W in [0, 1] to at most ``side`` pixels."""
    height, width = frame.shape[-2:]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    colours = resize(frame[None].float(), size, antialias=True)
    weights = colours.new_tensor(LUMA).view(1, 3, 1, 1)
    return SmallFrame(colours, (colours * weights).sum(dim=1, keepdim=True))


def motion_between(earlier: SmallFrame, later: SmallFrame) -> Motion:
    """Flows of two consecutive frames, both ways."""
    pair = torch.cat([earlier.grey, in_light_of(later.grey, earlier.grey)])
    forward, backward = optical_flow(pair, pair.flip(0)).split(1)
    return Motion(forward, backward)


def trust(first: SmallFrame, second: SmallFrame, motion: Motion) -> Tensor:
    """How far the motion that leads from the first frame's pixels into the second can be trusted.

    Low where colours along it differ, where the way back leads elsewhere (the pixel is occluded in the second frame),
    and outside the second frame.

    Args:
        first: Its attributes may be 1, C, h, w where the others are B, C, h, w.
        second: One frame, or B.
        motion: B flows.

    Returns:
        B, 1, h, w in [0, 1].
    """
    forward, backward = motion
    error = patch_error(first.colours, in_light_of(second.colours, first.colours), forward)
    back = warp(backward, forward)
    loop = (forward + back).square().sum(dim=1, keepdim=True)
    allowed = LOOP_TOLERANCE + LOOP_PART * (forward.square() + back.square()).sum(dim=1, keepdim=True)
    return torch.exp(-((error / COLOUR_TOLERANCE) ** 2) - loop / allowed) * _inside(forward)


def in_light_of(x: Tensor, other: Tensor) -> Tensor:
    """Frames with the mean and the contrast of others, so that a flash or a fade is no motion: 1, C, h, w each."""
    mean, contrast = (f(x, dim=(2, 3), keepdim=True) for f in (torch.mean, torch.std))
    wanted_mean, wanted_contrast = (f(other, dim=(2, 3), keepdim=True) for f in (torch.mean, torch.std))
    gain = (wanted_contrast / contrast.clamp(min=1e-6)).clamp(1 / MOST_GAIN, MOST_GAIN)
    return (x - mean) * gain + wanted_mean


def carry(mask: Tensor, flow: Tensor) -> Tensor:
    """Fetches a mask 1, H, W along a flow of small frames, to the flow's own frame."""
    # Bilinear samples between pixels would soften edges with every frame that is averaged.
    mode = "bilinear" if mask.device.type == "mps" else "bicubic"  # which MPS has not
    return warp(mask[None], scale_flow(flow, mask.shape[-2:]), mode)[0].clamp_(0, 1)


def _inside(flow: Tensor) -> Tensor:
    """1 where the flow ends inside the frame, to half a pixel: 1, 1, h, w."""
    height, width = flow.shape[-2:]
    x = flow[:, :1] + torch.arange(width, device=flow.device)
    y = flow[:, 1:] + torch.arange(height, device=flow.device)[:, None]
    return ((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)).to(flow.dtype)
