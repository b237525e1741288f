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

_CHUNK = 2**15  # numbers that stay in a processor's cache, and that torch does not share out to threads


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
    inputs = weight.shape[1]
    pairs = {order: _neighbours(order, grid) for order in PatchOrder}
    wanted = torch.zeros(inputs, dtype=torch.bool, device="cpu")
    for a, b in (pair for kinds in pairs.values() for pair in kinds):
        wanted[(a - b).abs()] = True
    wanted[0] = True
    row = wanted.cumsum(0) - 1  # of the products, by distance
    products = _products(weight, wanted.nonzero().flatten().tolist())
    inverse = products[0].clamp(min=1e-24).rsqrt()  # of the lengths; kernels of zeros are similar to none
    expected = -1 / (inputs - 1)  # cosine of unrelated vectors around their common mean
    scores = {}
    for order, kinds in pairs.items():
        score = 0.0
        for a, b in kinds:
            product = products[row[(a - b).abs()], torch.minimum(a, b)]
            cosines = (product * (inverse[a] * inverse[b])).nan_to_num(0.0)  # too large for float32
            score += (float(cosines.mean()) - expected) * math.sqrt(cosines.numel() * weight[:, 0].numel())
        scores[order] = score / math.sqrt(len(kinds))
    return scores


def _neighbours(order: PatchOrder, grid: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """The input channels of neighbouring kernels, kind by kind."""
    channels = torch.arange(3 * grid * grid, device="cpu")
    placed = rearrange(channels, f"({_LAYOUTS[order]}) -> c i j", c=3, i=grid, j=grid)
    return (
        (placed, placed.roll(1, dims=0)),  # colours of one patch
        (placed[:, 1:], placed[:, :-1]),  # patches above each other
        (placed[:, :, 1:], placed[:, :, :-1]),  # patches side by side
    )


def _products(weight: Tensor, distances: list[int]) -> Tensor:
    """Scalar products of the kernels of input channels so far from each other, without what all have in common.

    Args:
        weight: O, I, k, k.
        distances: D numbers of channels.

    Returns:
        D, I float32; of the lower channels, and without meaning where there is no upper one.
    """
    outputs, inputs, size = weight.shape[0], weight.shape[1], weight[0, 0].numel()
    rows = max(1, _CHUNK // (inputs * size))
    sums = torch.zeros(len(distances), min(rows, outputs), inputs * size, dtype=torch.float32, device="cpu")
    for part in weight.cpu().reshape(outputs, inputs, size).split(rows):
        kernels = part.float()
        kernels = (kernels - kernels.mean(dim=1, keepdim=True)).flatten(1)  # I k k
        for total, distance in zip(sums, distances, strict=True):
            end = (inputs - distance) * size
            total[: len(part), :end].addcmul_(kernels[:, distance * size :], kernels[:, :end])
    return sums.unflatten(-1, (inputs, size)).sum((1, 3))
