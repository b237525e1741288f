"""Patch order of a checkpoint: reading it from the weights, and changing it.

Two generations of published code stack the image patches of the inward reference differently (see
``config.PatchOrder``). Names and shapes of the weights are the same, so nothing fails when the wrong
one is assumed: only fine detail gets lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from einops import rearrange
from torch import Tensor
from torch.nn.functional import normalize

from ..checkpoint_info import PatchOrderEvidence
from ..config import PatchOrder

# The input channels of a patch convolution, as einops patterns: c colours, i rows and j columns of patches.
_LAYOUTS = {PatchOrder.CHANNELS_FIRST: "c i j", PatchOrder.COLUMNS_FIRST: "j i c"}

# Difference of the z-scores from which on an order is certain. Weights without any order differ by less than five
# once in a million files.
_DECISIVE_LEAD = 7.0


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
        kernels = weight.detach().float().cpu()
        kernels = kernels - kernels.mean(dim=1, keepdim=True)  # what all patches have in common says nothing
        unit = normalize(rearrange(kernels, "o patch y x -> patch (o y x)"), dim=-1)
        for order, layout in _LAYOUTS.items():
            placed = rearrange(unit, f"({layout}) weights -> c i j weights", c=3, i=grid, j=grid)
            totals[order] += _neighbour_correlation_z(placed)
    scores = {order: total / math.sqrt(max(count, 1)) for order, total in totals.items()}
    best, other = sorted(PatchOrder, key=lambda order: -scores[order])
    decided = scores[best] - scores[other] > _DECISIVE_LEAD and scores[best] > _DECISIVE_LEAD / 2
    return PatchOrderEvidence(order=best if decided else None, scores=scores)


def _neighbour_correlation_z(unit: Tensor) -> float:
    """z-score of the mean cosine similarity of neighbouring kernels.

    Args:
        unit: 3, g, g, weights of one kernel, of length 1: colour, row, column.
    """
    neighbours = (
        (unit, unit.roll(1, dims=0)),  # colours of one patch
        (unit[:, 1:], unit[:, :-1]),  # patches above each other
        (unit[:, :, 1:], unit[:, :, :-1]),  # patches side by side
    )
    expected = -1 / (unit.shape[:3].numel() - 1)  # cosine of unrelated vectors around their common mean
    total = 0.0
    for a, b in neighbours:
        cosines = (a * b).sum(-1)
        total += (float(cosines.mean()) - expected) * math.sqrt(cosines.numel() * unit.shape[-1])
    return total / math.sqrt(len(neighbours))
