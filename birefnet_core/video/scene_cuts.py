"""Where one scene of a clip ends and the next begins."""

from __future__ import annotations

import torch
from torch import Tensor

from ..image_ops import warp
from ..masks.windows import box_mean
from .motion import Motion, SmallFrame, trust

BINS = 32  # of a colour channel's histogram
WINDOW = 3  # radius of the patches whose structure is compared
NOISE = 1e-4  # variance of a patch that counts as noise: patches without structure say nothing

# Chosen on rendered clips and cuts between them; the table in benchmarks/video.md has what was measured.
SAME_STRUCTURE = 0.8  # correlation along the motion that no cut reaches
LEAST_TRUST, LEAST_TRUST_OTHER_COLOURS = 0.1, 0.3  # mean trust in the motion below which the scene is another
OTHER_COLOURS = 0.03  # distance of the histograms that camera and subject rarely make between two frames
NO_COLOUR_LEFT = 0.25  # distance that makes a cut even of flat frames, which show no motion


def is_cut(earlier: SmallFrame, later: SmallFrame, motion: Motion) -> bool:
    """Whether a new scene begins with the later of two consecutive frames.

    Two frames of one scene show the same structure along the motion even where the light changes. Between two scenes
    the flow finds nothing that leads there and back, and mostly the colours are others, too.
    """
    if structure_along(earlier, later, motion) >= SAME_STRUCTURE:
        return False
    distance = colour_distance(earlier, later)
    if distance > NO_COLOUR_LEFT:
        return True
    there, back = trust(earlier, later, motion), trust(later, earlier, motion.reversed())
    least = LEAST_TRUST_OTHER_COLOURS if distance > OTHER_COLOURS else LEAST_TRUST
    return max(float(there.mean()), float(back.mean())) < least


def structure_along(earlier: SmallFrame, later: SmallFrame, motion: Motion) -> float:
    """Correlation of the patches of two frames along the motion, in [-1, 1], weighted by their contrast.

    The better of the two ways counts: what a camera uncovers is seen in one frame only.
    """
    there = _structure(earlier.grey, later.grey, motion.forward)
    return max(there, _structure(later.grey, earlier.grey, motion.backward))


def _structure(first: Tensor, second: Tensor, flow: Tensor) -> float:
    second = warp(second, flow)
    mean_1, mean_2, square_1, square_2, product = box_mean(
        torch.cat([first, second, first * first, second * second, first * second], dim=1), WINDOW
    ).split(1, dim=1)
    variance_1, variance_2 = (square_1 - mean_1**2).clamp_(min=0), (square_2 - mean_2**2).clamp_(min=0)
    covariance = product - mean_1 * mean_2
    # Each patch weighs with its contrast, up to a limit: a few hard edges must not decide alone.
    weight = (variance_1 * variance_2).sqrt() / ((variance_1 * variance_2).sqrt() + 10 * NOISE)
    correlation = covariance / ((variance_1 + NOISE) * (variance_2 + NOISE)).sqrt()
    return float((correlation * weight).sum() / weight.sum().clamp(min=1e-6))


def colour_distance(earlier: SmallFrame, later: SmallFrame) -> float:
    """Earth mover's distance of the colour histograms, mean of the channels, in [0, 1]."""
    first, second = (_cumulative(frame.colours) for frame in (earlier, later))
    return float((first - second).abs().mean())


def _cumulative(colours: Tensor) -> Tensor:
    """Fraction of the pixels up to each level: 3, BINS."""
    values = colours[0].flatten(1)  # 3 pixels
    levels = torch.arange(1, BINS + 1, dtype=torch.float32, device=values.device) / BINS
    return torch.stack([(values <= level).float().mean(dim=1) for level in levels], dim=1)
