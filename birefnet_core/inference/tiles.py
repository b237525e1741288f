"""Tiled refinement: detail at native resolution where the global mask is uncertain.

The global pass sees the whole image resized to the network's size: it has the context, and loses what is thinner than
its pixels. A tile at native resolution has the detail and no context. They are merged as follows:

* Where the global mask is certain (all values of a cell below 0.02, or all above 0.98), it is kept bit for bit. The
  other cells, dilated by one cell, are the band in which tiles change the mask. Outside the band their changes fade out
  over at least 72 pixels, so that a change of a quarter, the largest that is fully trusted, ends in steps below 1/255.
  A cell is 4 global pixels wide, about the support of an upsampled edge.
* In the band the mask changes by (tile mask - global mask), weighted by how well the two agree when blurred over 3
  cells (12 global pixels). The global pass resolves structure of that size; a tile that disagrees about it lacks
  context, and takes background for an object or the inside of an object for background. Below that size only the tile
  can tell: a wire of 3 pixels in 48 hardly changes the blurred values. The weight falls smoothly from 1 at a difference
  of 0.25 to 0 at 0.5, and is the least of a cell's neighbourhood.
* Thin structures may leave the band. It is extended along connected cells in which tiles that were run change the mask,
  and the tiles it newly touches are run in turn, each once.

Tiles overlap by a quarter and are blended with raised-cosine windows, divided by their sum. Tiles outside the band are
not run.

Shapes: H W image, h w tile, R Q rows and columns of cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..masks.crop import fade_window
from .batching import Passes
from .crops import Box

OVERLAP = 0.25  # of a tile's side
CELL = 4  # global pixels
UNCERTAIN = 0.02  # distance from 0 and 1, about 5 of 255 grey levels: the least a viewer may notice
AGREES, DISAGREES = 0.25, 0.5  # differences of blurred masks; from 0.5 on one is foreground, the other background
FADE = 72  # pixels, above 255 x AGREES
TRACED = 0.25  # change of the mask along which the band is extended


def tile_boxes(height: int, width: int, tile: tuple[int, int]) -> list[Box]:
    """Evenly spread tiles that cover an image and overlap by at least a quarter.

    Args:
        height: H.
        width: W.
        tile: h and w, at most the image's.
    """
    h, w = tile
    return [Box(x, y, x + w, y + h) for y in _starts(height, h) for x in _starts(width, w)]


def _starts(length: int, tile: int) -> list[int]:
    if tile >= length:
        return [0]
    overlap = round(OVERLAP * tile)
    steps = max(1, math.ceil((length - tile) / max(1, tile - overlap)))
    return [i * (length - tile) // steps for i in range(steps + 1)]


def refine(
    image: Tensor,
    mask: Tensor,
    global_size: tuple[int, int],
    tiles: Sequence[Box],
    tile_size: tuple[int, int],
    passes: Passes,
) -> None:
    """Adds detail to a mask in place.

    Args:
        image: H, W, C in [0, 1].
        mask: H, W of the global pass.
        global_size: Height and width the image had in the global pass.
        tiles: From ``tile_boxes``.
        tile_size: Network size of one tile.
        passes: Runs the tiles.
    """
    height, width = mask.shape
    cell = round(CELL * max(height / global_size[0], width / global_size[1], 1))
    band = _dilated(_uncertain_cells(mask, cell))  # R Q
    waiting = list(tiles)
    change, weight = torch.zeros_like(mask), torch.zeros_like(mask)  # H W
    while True:
        taken = _spread(_faded(band, cell), cell, height, width).to(mask.device)  # H W
        due = [box for box in waiting if box.cut(taken).any()]
        if not due:
            break
        waiting = [box for box in waiting if box not in due]
        for box, found in zip(due, passes.run([box.cut(image) for box in due], tile_size), strict=True):
            window = _window(box, height, width).to(mask.device)
            difference = found.to(mask.device) - box.cut(mask)
            box.cut(change).add_(_trust(difference, cell).mul_(difference).mul_(window))
            box.cut(weight).add_(window)
        band = _traced(band, change, weight, cell)
    passes.skip(len(waiting))
    change = change.div_(weight.clamp_(min=torch.finfo(weight.dtype).tiny)).mul_(taken).add_(mask).clamp_(0, 1)
    mask.copy_(torch.where(taken > 0, change, mask))


def _uncertain_cells(mask: Tensor, cell: int) -> Tensor:
    """Cells R, Q that, with the pixels around them, are neither all background nor all foreground; 1 or 0."""
    height, width = mask.shape
    padded = F.pad(mask[None, None], (1, 1 + -width % cell, 1, 1 + -height % cell), mode="replicate")
    high = F.max_pool2d(padded, cell + 2, cell)
    low = -F.max_pool2d(-padded, cell + 2, cell)
    return ((high > UNCERTAIN) & (low < 1 - UNCERTAIN))[0, 0].float().cpu()


def _dilated(cells: Tensor, reach: int = 1) -> Tensor:
    return F.max_pool2d(cells[None], 2 * reach + 1, 1, reach)[0]


def _faded(band: Tensor, cell: int) -> Tensor:
    """Fraction of the tiles' change that is taken in each cell: 1 in the band, falling linearly to 0 around it."""
    reach = max(1, math.ceil((FADE / cell - 1) / 2))  # the mean of 2 reach + 1 cells falls over as many
    return F.avg_pool2d(_dilated(band, reach)[None], 2 * reach + 1, 1, reach, count_include_pad=False)[0]


def _spread(cells: Tensor, cell: int, height: int, width: int) -> Tensor:
    """R, Q -> H, W, bilinear between the middles of the cells."""
    size = cells.shape[0] * cell, cells.shape[1] * cell
    return F.interpolate(cells[None, None], size=size, mode="bilinear", align_corners=False)[0, 0, :height, :width]


def _window(box: Box, height: int, width: int) -> Tensor:
    """Weights h, w that fall off within the overlaps, and stay 1 at the image's border."""
    reach = (max(1, round(OVERLAP * side)) for side in (box.height, box.width))
    return fade_window(box, (height, width), tuple(reach))


def _trust(difference: Tensor, cell: int) -> Tensor:
    """Weight h, w of a tile's change: 1 where tile and global mask agree when blurred, 0 where they contradict."""
    coarse = F.avg_pool2d(difference[None, None], cell, cell, ceil_mode=True)
    coarse = F.avg_pool2d(coarse, 3, 1, 1, count_include_pad=False)[0, 0].abs()
    doubt = _dilated(((coarse - AGREES) / (DISAGREES - AGREES)).clamp(0, 1))  # neighbours of a wrong cell are wrong too
    return _spread(1 - doubt**2 * (3 - 2 * doubt), cell, *difference.shape)


def _traced(band: Tensor, change: Tensor, weight: Tensor, cell: int) -> Tensor:
    """The band extended along the connected cells, R, Q, in which tiles change the mask."""
    changed = change.abs() > TRACED * weight
    changed = F.max_pool2d(changed[None].float(), cell, cell, ceil_mode=True)[0].cpu()  # R Q
    reached = band
    while True:
        grown = torch.maximum(reached, _dilated(reached) * changed)
        if torch.equal(grown, reached):
            break
        reached = grown
    return torch.maximum(band, _dilated(reached * changed))
