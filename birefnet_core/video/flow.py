"""Dense optical flow of small frames, in plain tensor operations on any device.

Block matching at the coarsest level of a pyramid finds fast motion; Lucas-Kanade steps at every level refine it
(B. D. Lucas, T. Kanade, IJCAI 1981; template gradients as in S. Baker, I. Matthews, "Lucas-Kanade 20 Years On", IJCV
2004), with the smoothness of A. Bruhn et al., "Lucas/Kanade Meets Horn/Schunck", IJCV 2005, where there is no texture.
After each level a pixel may take over a neighbour's motion where that fits better, as in PatchMatch (C. Barnes et al.,
SIGGRAPH 2009), which keeps the borders between motions sharp.

Shapes: B pairs of frames, H W pixels, h w pixels of one level. A flow is B, 2, H, W: x and y in pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image_ops import resize, warp
from ..masks.windows import box_mean

# Chosen by hand on rendered clips of 256 pixels (benchmarks/video.md); grey values are in [0, 1].
COARSEST = 14  # pixels; the pyramid ends where the shorter side would fall below
REACH = 5  # pixels of the coarsest level that blocks are searched in
WINDOW = 3  # radius: windows of 7 x 7 for the steps
PATCH = 1  # radius: patches of 3 x 3 when motions are compared
STEPS = 3  # of Lucas-Kanade for each level
SMOOTHNESS = 1e-2  # squared gradient below which a window follows the motion around it
STILL_COST = 5e-4  # grey levels per pixel of motion in block matching: of equal blocks the nearer one is right


def optical_flow(first: Tensor, second: Tensor) -> Tensor:
    """Motion of every pixel: ``second`` at x + flow(x) shows what ``first`` shows at x.

    Args:
        first: B, 1, H, W grey in [0, 1].
        second: B, 1, H, W.

    Returns:
        B, 2, H, W.
    """
    levels = [(first, second)]
    while min(first.shape[-2:]) >= 2 * COARSEST:
        first, second = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (first, second))
        levels.append((first, second))
    flow = _match_blocks(first, second)
    for first, second in reversed(levels):
        flow = scale_flow(flow, first.shape[-2:])
        flow = _lucas_kanade(first, second, flow)
        flow = box_mean(_median(_take_over(first, second, flow)), 1)
    return flow


def compose(flow: Tensor, further: Tensor) -> Tensor:
    """The flow from a first frame to a third: from the first to the second, then from the second to the third."""
    return flow + warp(further, flow)


def scale_flow(flow: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resizes a flow, and its vectors with it."""
    height, width = flow.shape[-2:]
    if (height, width) == tuple(size):
        return flow
    factors = flow.new_tensor([size[1] / width, size[0] / height]).view(1, 2, 1, 1)
    return resize(flow, size) * factors


def _match_blocks(first: Tensor, second: Tensor) -> Tensor:
    """The displacement in whole pixels, up to REACH, under which the windows around a pixel are most alike."""
    height, width = first.shape[-2:]
    side = 2 * REACH + 1
    padded = F.pad(second, (REACH,) * 4, mode="replicate")
    shifted = F.unfold(padded, (height, width)).view(len(first), height, width, side, side)  # B h w dy dx
    shifted = shifted.flatten(3).permute(0, 3, 1, 2)  # B side*side h w
    at = torch.arange(-REACH, REACH + 1, device=first.device, dtype=first.dtype)
    dy, dx = (x.flatten() for x in torch.meshgrid(at, at, indexing="ij"))
    cost = box_mean((shifted - first).abs(), WINDOW) + STILL_COST * torch.hypot(dx, dy).view(1, -1, 1, 1)
    best = cost.argmin(dim=1)  # B h w
    return torch.stack([dx[best], dy[best]], dim=1)


def _lucas_kanade(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    gradients = torch.cat(_gradients(first), dim=1)  # B 2 h w
    gx, gy = gradients.split(1, dim=1)
    xx, xy, yy = box_mean(torch.cat([gx * gx, gx * gy, gy * gy], dim=1), WINDOW).split(1, dim=1)
    xx, yy = xx + SMOOTHNESS, yy + SMOOTHNESS
    determinant = xx * yy - xy * xy
    for _ in range(STEPS):
        change = warp(second, flow) - first
        around, descent = box_mean(torch.cat([flow, gradients * change], dim=1), WINDOW).split(2, dim=1)
        px, py = (SMOOTHNESS * (around - flow) - descent).split(1, dim=1)
        step = torch.cat([yy * px - xy * py, xx * py - xy * px], dim=1) / determinant
        flow = flow + step.clamp_(-1, 1)  # linearised gradients say nothing about longer steps
    return flow


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across, down = padded[..., 1:-1, :], padded[..., :, 1:-1]
    return (across[..., 2:] - across[..., :-2]) / 2, (down[..., 2:, :] - down[..., :-2, :]) / 2


def _take_over(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    """Gives each pixel the motion among its own, those of four neighbours and none that fits its patch best."""
    shifted = [_moved(flow, shift, dim) for shift in (-WINDOW, WINDOW) for dim in (-2, -1)]
    candidates = torch.stack([flow, torch.zeros_like(flow), *shifted])  # N B 2 h w
    count = len(candidates)
    first, second = (frame.repeat(count, 1, 1, 1) for frame in (first, second))
    errors = patch_error(first, second, candidates.flatten(0, 1)).unflatten(0, (count, -1))  # N B 1 h w
    best = errors.argmin(dim=0, keepdim=True).expand(-1, -1, 2, -1, -1)
    return candidates.gather(0, best)[0]


def patch_error(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    """Mean absolute difference of the patches around each pixel, along the flow: B, 1, H, W."""
    difference = (warp(second, flow) - first).abs().mean(dim=1, keepdim=True)
    return box_mean(difference, PATCH)


def _median(x: Tensor) -> Tensor:
    """Median of three along the rows, then along the columns: takes single pixels away that took over noise."""
    for dim in (-1, -2):
        before, after = _moved(x, -1, dim), _moved(x, 1, dim)
        x = torch.maximum(torch.minimum(before, after), torch.minimum(torch.maximum(before, after), x))
    return x


def _moved(x: Tensor, shift: int, dim: int) -> Tensor:
    """Shifts a map; what comes in repeats the border."""
    length = x.shape[dim]
    at = (torch.arange(length, device=x.device) + shift).clamp_(0, length - 1)
    return x.index_select(dim, at)
