"""Foreground colours on many levels (Germer et al., "Fast Multi-Level Foreground Estimation", arXiv 2006.14970).

Foreground F and background B minimise, over all pixels i and neighbours j,

    sum_i c_i (a_i F_i + (1 - a_i) B_i - I_i)^2 + sum_ij (r + g |a_i - a_j|) [(F_i - F_j)^2 + (B_i - B_j)^2]

from an image of one pixel up to the full size, each level starting from the one below. Departures from
the paper; the constants and the first two were chosen on composites with known colours and exact, noisy,
blurred and coarse masks:

- Going down, the sums over a's products are averaged, not the pixels picked: a coarse cell that covers
  an opaque and an empty pixel still knows both colours exactly.
- The data term of mixed pixels has less weight, c = m + (1 - m)(1 - 2a)^2. Real masks are wrong there
  first, and colours known from pure pixels then win.
- All pixels of a level are solved at once (Jacobi) instead of in turn.
- The finest level takes the interpolated colours and only restores the image's detail, the least change
  with which a F + (1 - a) B = I. It runs in bands, so no full-size working copies are held.

Shapes: B batch, H W image, h w level or band, S sums.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .windows import strips

EVEN_SMOOTHNESS = 5e-4  # r: lets colours flow where the mask is flat
EDGE_SMOOTHNESS = 0.05  # g: joins colours across the mask's edges, where one of the two is unknown
MIXED_WEIGHT = 0.1  # m: weight of the data term at a = 0.5
SMALL_LEVEL, SMALL_ROUNDS, ROUNDS = 32, 10, 3  # rounds cost nothing up to 32 pixels; more than 3 above gain little
TINY = 1e-5  # pull towards the mean colour where an image has no foreground, or no background

# Layout of the sums: the mask, c a^2, c a (1 - a), c (1 - a)^2, then c a I and c (1 - a) I with 3 channels each.
SUMS = 10


def multilevel(image: Tensor, alpha: Tensor) -> Tensor:
    """Estimates foreground colours.

    Args:
        image: B, 3, H, W.
        alpha: B, 1, H, W.

    Returns:
        B, 3, H, W in [0, 1]. Opaque pixels keep their own colour exactly. Peak memory about 35 bytes for each
        pixel, and the result.
    """
    levels = [_first_sums(image, alpha)]
    while max(levels[-1].shape[-2:]) > 1:
        levels.append(_halve(levels[-1]))
    mean = image.mean(dim=(2, 3), keepdim=True)[:, None]  # B 1 3 1 1
    colours = _solve_top(levels.pop(), mean)
    while levels:
        sums = levels.pop()
        height, width = sums.shape[-2:]
        rounds = SMALL_ROUNDS if max(height, width) <= SMALL_LEVEL else ROUNDS
        colours = _relax(_double(colours)[..., :height, :width], sums, rounds)
    return _restore_detail(image, alpha, colours)


def _first_sums(image: Tensor, alpha: Tensor) -> Tensor:
    """The sums of the first level below the image, B, S, ceil(H / 2), ceil(W / 2)."""
    frames, _, height, width = image.shape
    out = image.new_empty(frames, SUMS, (height + 1) // 2, (width + 1) // 2)
    for top, bottom in strips(height, frames * width, image.device):
        a, colour = alpha[:, :, top:bottom], image[:, :, top:bottom]
        rest = 1 - a
        trust = (1 - 2 * a).square_().mul_(1 - MIXED_WEIGHT).add_(MIXED_WEIGHT)
        front, back = trust * a, trust * rest
        sums = torch.cat([a, front * a, front * rest, back * rest, front * colour, back * colour], dim=1)
        out[:, :, top // 2 : (bottom + 1) // 2] = _halve(sums)
    return out


def _halve(sums: Tensor) -> Tensor:
    # The last cell of an odd side averages the pixels it has.
    return F.avg_pool2d(sums, 2, ceil_mode=True, count_include_pad=False)


def _double(colours: Tensor) -> Tensor:
    x = F.interpolate(colours.flatten(1, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    return x.unflatten(1, (2, 3))  # B 2 3 2h 2w


def _solve_top(sums: Tensor, mean: Tensor) -> Tensor:
    """Colours B, 2, 3, 1, 1 of the one-pixel level: weighted means of the image, foreground first."""
    front = sums[:, 1:2] + sums[:, 2:3]  # sum of c a
    back = sums[:, 2:3] + sums[:, 3:4]
    weights = torch.stack([front, back], dim=1)  # B 2 1 1 1
    totals = sums[:, 4:].unflatten(1, (2, 3))
    return (totals + TINY * mean) / (weights + TINY)


def _relax(colours: Tensor, sums: Tensor, rounds: int) -> Tensor:
    """Jacobi rounds on one level.

    Args:
        colours: B, 2, 3, h, w, foreground first.
        sums: B, S, h, w.
        rounds: How many.

    Returns:
        B, 2, 3, h, w in [0, 1].
    """
    alpha, front, mixed, back = (sums[:, n : n + 1, None] for n in range(4))  # B 1 1 h w
    data = sums[:, 4:].unflatten(1, (2, 3))
    across = (alpha[..., 1:] - alpha[..., :-1]).abs_().mul_(EDGE_SMOOTHNESS).add_(EVEN_SMOOTHNESS)
    down = (alpha[..., 1:, :] - alpha[..., :-1, :]).abs_().mul_(EDGE_SMOOTHNESS).add_(EVEN_SMOOTHNESS)
    smoothness = torch.zeros_like(alpha)
    smoothness[..., 1:] += across
    smoothness[..., :-1] += across
    smoothness[..., 1:, :] += down
    smoothness[..., :-1, :] += down
    # Inverse of the pixel's 2 x 2 system [[front + s, mixed], [mixed, back + s]].
    front, back = front + smoothness, back + smoothness
    scale = (front * back).addcmul_(mixed, mixed, value=-1).reciprocal_()
    own, other = torch.cat([back * scale, front * scale], dim=1), mixed * scale
    for _ in range(rounds):
        right = data.clone()
        right[..., :-1].addcmul_(across, colours[..., 1:])
        right[..., 1:].addcmul_(across, colours[..., :-1])
        right[..., :-1, :].addcmul_(down, colours[..., 1:, :])
        right[..., 1:, :].addcmul_(down, colours[..., :-1, :])
        colours = own * right
        colours[:, 0].addcmul_(other[:, 0], right[:, 1], value=-1)
        colours[:, 1].addcmul_(other[:, 0], right[:, 0], value=-1)
        colours.clamp_(0, 1)
    return colours


def _restore_detail(image: Tensor, alpha: Tensor, colours: Tensor) -> Tensor:
    """Full-size foreground colours from those of half the size: interpolated, then moved onto a F + (1 - a) B = I."""
    frames, _, height, width = image.shape
    foreground = torch.empty_like(image)
    for top, bottom in strips(height, frames * width, image.device):
        first, last = max(top // 2 - 1, 0), min((bottom + 1) // 2 + 1, colours.shape[-2])
        doubled = _double(colours[..., first:last, :])[..., top - 2 * first : bottom - 2 * first, :width]
        front, back = doubled[:, 0], doubled[:, 1]  # B 3 h W
        a, target = alpha[:, :, top:bottom], image[:, :, top:bottom]
        rest = 1 - a
        residual = (target - back).sub_((front - back).mul_(a))
        step = (a * a).addcmul_(rest, rest).reciprocal_().mul_(a)
        moved = torch.addcmul(front, residual, step).clamp_(0, 1)
        foreground[:, :, top:bottom] = torch.where(a >= 1, target, moved)
    return foreground
