"""Patch order of a checkpoint: reading it from the weights, and changing it.

Two generations of published code stack the image patches of the inward reference differently (see
``config.PatchOrder``). Names and shapes of the weights are the same, so nothing fails when the wrong
one is assumed: only fine detail gets lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from einops import rearrange
from torch import Tensor

from ..checkpoint_info import PatchOrderEvidence
from ..config import PatchOrder

# The input channels of a patch convolution, as einops patterns: c colours, i rows and j columns of patches.
_LAYOUTS = {PatchOrder.CHANNELS_FIRST: "c i j", PatchOrder.COLUMNS_FIRST: "j i c"}

# Difference of the z-scores from which on an order is certain. Weights without any order differ by less than five
# once in a million files.
_DECISIVE_LEAD = 7.0

_CHUNK = 2**17  # numbers that stay in a processor's cache


def change_patch_order(weight: Tensor, source: PatchOrder, target: PatchOrder) -> Tensor:
    """Moves the input channels of a patch convolution from one order to another.

    Args:
        weight: O, 3 * g * g, kernel height, kernel width, for a grid of g x g patches.
        source: The order it is in.
        target: The order it is wanted in.

    Returns:
        The same weights, bit for bit, in the target order.
    """
    if source is target:
        return weight
    grid = math.isqrt(weight.shape[1] // 3)
    pattern = f"o ({_LAYOUTS[source]}) y x -> o ({_LAYOUTS[target]}) y x"
    return rearrange(weight, pattern, c=3, i=grid, j=grid).contiguous()


def read_patch_order(weights: Iterable[Tensor]) -> PatchOrderEvidence:
    """Reads the patch order from trained patch convolutions.

    The three colours of one patch are nearly the same image, and adjacent patches are similar ones, so training gives
    them similar kernels. Which input channels those are differs between the orders: in the right one, neighbouring
    kernels are more similar. Colours alone would not do: in the wrong order, what seems to be three colours can be
    three patches in a row.

    Args:
        weights: Patch convolutions, O, 3 * g * g, k, k each; a grid of one patch says nothing.
    """
    totals = dict.fromkeys(PatchOrder, 0.0)
    count = 0
    for weight in weights:
        grid = math.isqrt(weight.shape[1] // 3)
        if grid < 2:
            continue
        count += 1
        for order, score in _neighbour_correlation_z(weight.detach(), grid).items():
            totals[order] += score
    scores = {order: total / math.sqrt(max(count, 1)) for order, total in totals.items()}
    best, other = sorted(PatchOrder, key=lambda order: -scores[order])
    decided = scores[best] - scores[other] > _DECISIVE_LEAD and scores[best] > _DECISIVE_LEAD / 2
    return PatchOrderEvidence(order=best if decided else None, scores=scores)


def _neighbour_correlation_z(weight: Tensor, grid: int) -> dict[PatchOrder, float]:
    """z-score of the mean cosine similarity of neighbouring kernels, in each order."""
    squares = torch.zeros(weight.shape[1], dtype=torch.float32, device="cpu")
    products = {order: [squares.new_zeros(())] * 3 for order in PatchOrder}
    for part in weight.split(max(1, _CHUNK // weight[0].numel())):
        kernels = part.float().cpu()
        kernels = kernels - kernels.mean(dim=1, keepdim=True)  # what all patches have in common says nothing
        kernels = rearrange(kernels, "o patch y x -> patch (o y x)")
        squares += kernels.square().sum(-1)
        for order, sums in products.items():
            pairs = _neighbours(_place(kernels, order, grid))
            products[order] = [total + (a * b).sum(-1) for total, (a, b) in zip(sums, pairs, strict=True)]
    inverse = squares.clamp(min=1e-24).rsqrt()[:, None]  # of the lengths; kernels of zeros are similar to none
    expected = -1 / (weight.shape[1] - 1)  # cosine of unrelated vectors around their common mean
    scores = {}
    for order, sums in products.items():
        score = 0.0
        for product, (a, b) in zip(sums, _neighbours(_place(inverse, order, grid)), strict=True):
            cosines = (product * (a * b).squeeze(-1)).nan_to_num(0.0)  # too large for float32
            score += (float(cosines.mean()) - expected) * math.sqrt(cosines.numel() * weight[:, 0].numel())
        scores[order] = score / math.sqrt(len(sums))
    return scores


def _place(values: Tensor, order: PatchOrder, grid: int) -> Tensor:
    """What belongs to the input channels, 3 * g * g, n -> 3, g, g, n: colour, row and column of patches."""
    return rearrange(values, f"({_LAYOUTS[order]}) n -> c i j n", c=3, i=grid, j=grid)


def _neighbours(placed: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """What belongs to neighbouring kernels."""
    return (
        (placed, placed.roll(1, dims=0)),  # colours of one patch
        (placed[:, 1:], placed[:, :-1]),  # patches above each other
        (placed[:, :, 1:], placed[:, :, :-1]),  # patches side by side
    )
