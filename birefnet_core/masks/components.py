"""Connected components of a mask: islands, the largest component, holes.

Components of the subject are connected across corners (8 neighbours), its holes only across sides (4 neighbours), the
usual pair. A pixel belongs to a component if it is above a level; the level is low, because half-transparent hair
would otherwise fall into pieces and be taken for islands.

Shapes: masks B H W in [0, 1], R runs, E edges, N components of the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .windows import window_max

LEVEL = 0.05  # above the haze a network leaves on sure background, well below hair
RING = 4  # pixels around a removed component whose values below the level are removed, too


def label_components(inside: Tensor, connectivity: int) -> tuple[Tensor, int]:
    """Numbers the connected components of every image, with tensor operations only.

    Rows are cut into runs, and touching runs are joined.

    Args:
        inside: B, H, W bool.
        connectivity: 4 or 8 neighbours.

    Returns:
        Labels B, H, W int64: 0 outside, then 1 to N over the whole batch in the order in which reading
        (image, row, column) meets the components; and N. Peak memory about 40 bytes for a pixel.
    """
    if inside.device.type == "mps":  # has no scatter_reduce for integers
        labels, count = label_components(inside.cpu(), connectivity)
        return labels.to(inside.device), count
    before = F.pad(inside, (1, 0))[..., :-1]
    starts = inside & ~before
    runs = starts.flatten().cumsum(0).view(inside.shape) - 1  # B H W: the run of each inside pixel
    upper, lower = inside[:, :-1], inside[:, 1:]
    # Two runs overlap along a stretch; the pixel where the stretch begins stands for it.
    touch = upper & lower & (starts[:, :-1] | starts[:, 1:])
    edges = [torch.stack([runs[:, :-1][touch], runs[:, 1:][touch]])]
    if connectivity == 8:  # corners count where no side joins the two already
        falling = upper[..., :-1] & lower[..., 1:] & ~upper[..., 1:] & ~lower[..., :-1]
        rising = upper[..., 1:] & lower[..., :-1] & ~upper[..., :-1] & ~lower[..., 1:]
        edges.append(torch.stack([runs[:, :-1, :-1][falling], runs[:, 1:, 1:][falling]]))
        edges.append(torch.stack([runs[:, :-1, 1:][rising], runs[:, 1:, :-1][rising]]))
    count = int(starts.sum())
    roots = _join(torch.cat(edges, dim=1), count)
    first = roots == torch.arange(count, device=inside.device)
    number = first.cumsum(0)[roots]  # R
    numbers = torch.cat([number.new_zeros(1), number])  # pixels before the first run have index -1
    return torch.where(inside, numbers[runs + 1], 0), int(first.sum())


def remove_islands(masks: Tensor, min_area: float, level: float = LEVEL) -> Tensor:
    """Removes components of fewer than ``min_area`` pixels.

    Args:
        masks: B, H, W.
        min_area: Pixels above the level.
        level: Value above which a pixel belongs to a component.

    Returns:
        B, H, W; what stays is not changed.
    """
    inside = masks > level
    labels, count = label_components(inside, 8)
    keep = torch.bincount(labels.flatten(), minlength=count + 1) >= min_area
    return _drop(masks, inside, keep[labels])


def keep_largest(masks: Tensor, level: float = LEVEL) -> Tensor:
    """Keeps the component with the most pixels in each image, the first in reading order of equal ones.

    Args:
        masks: B, H, W.
        level: Value above which a pixel belongs to a component.

    Returns:
        B, H, W; what stays is not changed.
    """
    inside = masks > level
    labels, count = label_components(inside, 8)
    areas = torch.bincount(labels.flatten(), minlength=count + 1)
    areas[0] = 0
    keep = torch.zeros_like(areas, dtype=torch.bool)
    # Labels continue from image to image, so the largest label of an image is the last of its own.
    first = 1
    for end in labels.flatten(1).amax(dim=1).tolist():
        if end >= first:  # else the image is empty
            # argmax may return any of equal maxima: take the first by itself.
            own = areas[first : end + 1]
            keep[first + torch.nonzero(own == own.max())[0]] = True
            first = end + 1
    return _drop(masks, inside, keep[labels])


def keep_touched(masks: Tensor, marks: Tensor, level: float = LEVEL) -> Tensor:
    """Keeps the components in which there is a mark.

    Args:
        masks: B, H, W.
        marks: B, H, W bool; images without a mark keep nothing.
        level: Value above which a pixel belongs to a component.

    Returns:
        B, H, W; what stays is not changed, everything else is 0, faint values far from it included.
    """
    inside = masks > level
    labels, count = label_components(inside, 8)
    keep = torch.zeros(count + 1, dtype=torch.bool, device=masks.device)
    keep[labels[marks]] = True
    keep[0] = False
    kept = keep[labels]
    return masks.masked_fill(~kept & (inside | ~_widen(kept)), 0)


def fill_holes(masks: Tensor, max_area: float, level: float = LEVEL) -> Tensor:
    """Fills components of the background of at most ``max_area`` pixels that the subject encloses.

    Args:
        masks: B, H, W.
        max_area: Pixels below 1 - level. A component that touches the image's border is no hole.
        level: As for islands, counted from the white side.

    Returns:
        B, H, W; holes become 1, the rest is not changed.
    """
    background = 1 - masks
    inside = background > level
    labels, count = label_components(inside, 4)
    keep = torch.bincount(labels.flatten(), minlength=count + 1) > max_area
    rim = (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    keep[torch.cat([edge.flatten() for edge in rim])] = True
    filled = _drop(background, inside, keep[labels])
    return torch.where(filled == background, masks, 1 - filled)


def _drop(masks: Tensor, inside: Tensor, keep: Tensor) -> Tensor:
    """Sets the components that are not kept to 0, and the faint ring around them that is next to no other."""
    near = _widen(inside & ~keep) & ~_widen(inside & keep)
    return masks.masked_fill((inside & ~keep) | (near & ~inside), 0)


def _widen(inside: Tensor) -> Tensor:
    x = window_max(F.pad(inside.to(torch.uint8), (RING,) * 4), 2 * RING + 1, -1)
    return window_max(x, 2 * RING + 1, -2).bool()  # B H W


def _join(edges: Tensor, count: int) -> Tensor:
    """Smallest connected index of each of ``count`` items.

    Every round attaches each tree to the smallest tree it touches and flattens all trees. While an edge
    joins two trees at least one of them disappears, so ``count`` rounds are enough; in practice it takes a
    handful (O(log^2) in Liu and Tarjan, "Simple concurrent labeling algorithms for connected components").

    Args:
        edges: 2, E pairs of touching items.
        count: R items.

    Returns:
        R int64.
    """
    parent = torch.arange(count, device=edges.device)
    for _ in range(count):
        edges = parent[edges]
        edges = edges[:, edges[0] != edges[1]]
        if edges.shape[1] == 0:
            break
        parent.scatter_reduce_(0, edges.amax(dim=0), edges.amin(dim=0), "amin")
        while not torch.equal(shorter := parent[parent], parent):
            parent = shorter
    return parent
