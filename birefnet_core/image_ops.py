"""Validation, resizing and batch pairing of images and masks: the only place for each.

Shapes: B batch, C channels, H W image. Images are B, H, W, C, masks B, H, W; 1 is foreground, 0 is background.
Network maps are B, C, H, W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import ImageError

# Sharpening and bicubic resizing overshoot [0, 1] a little; values further out are bytes or logits.
LOWEST, HIGHEST = -1.0, 2.0
# Overshoot reaches far below 0 in few pixels. Images in [-1, 1], as other networks take them, have more of it: what is
# below 0, averaged over all pixels, is about .25 for photographs.
FAR_BELOW, MOST_BELOW = -0.5, 0.05
# What shows behind transparent pixels: middle grey, on which neither black nor white subjects disappear.
BACKDROP = 0.5


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool = False, antialias: bool = False) -> Tensor:
    """Bilinear resize.

    Args:
        x: B, C, H, W floating point.
        size: Height and width of the result, in pixels.
        align_corners: Whether the centres of the corner pixels stay where they are, as everywhere in the published
            network and its losses; otherwise the edges do, as in images.
        antialias: Whether to widen the filter where the map shrinks, as for images.

    Returns:
        B, C, height, width; ``x`` itself where the size fits already.
    """
    height, width = size
    if tuple(x.shape[-2:]) == (height, width):
        return x
    antialias = antialias and (height < x.shape[-2] or width < x.shape[-1])
    return _interpolate(x, (height, width), mode="bilinear", align_corners=align_corners, antialias=antialias)


def warp(x: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Samples ``x`` at each pixel plus its flow; outside, the border goes on.

    Args:
        x: B, C, H, W.
        flow: B, 2, h, w: x and y in pixels of ``x``, which has the same pixels as the flow.
        mode: "bilinear", "bicubic" or "nearest".

    Returns:
        B, C, h, w.
    """
    height, width = x.shape[-2:]
    columns, rows = (torch.arange(n, device=x.device, dtype=flow.dtype) for n in flow.shape[:1:-1])
    # Of older torch's devices, not all know grid_sample's own padding with the border.
    across = ((columns + flow[:, 0]) * (2 / max(width - 1, 1)) - 1).clamp_(-1, 1)
    down = ((rows[:, None] + flow[:, 1]) * (2 / max(height - 1, 1)) - 1).clamp_(-1, 1)
    grid = torch.stack([across, down], dim=-1)  # B h w 2
    return F.grid_sample(x, grid, mode=mode, padding_mode="zeros", align_corners=True)


def check_images(images: Tensor, name: str = "images", *, channels: Sequence[int] = (3,)) -> Tensor:
    """Checks a batch of images.

    Args:
        images: B, H, W, C, floating point, in [0, 1].
        name: What the messages call it.
        channels: The values of C that are accepted.

    Returns:
        The images in float32; a slight overshoot of [0, 1] is clamped.

    Raises:
        ImageError: Not a tensor of that shape and type, nothing in it, NaN or infinite values, or a range
            that is not [0, 1].
    """
    validate_images(images, name, channels=channels)
    return _clamped(images)


def validate_images(images: Tensor, name: str = "images", *, channels: Sequence[int] = (3,)) -> None:
    """``check_images`` without a result: a long video is checked frame by frame and never copied."""
    wanted = " or ".join(str(c) for c in channels)
    _check_tensor(images, name, f"B, H, W, {wanted}")
    if images.ndim != 4:
        hint = "add a batch dimension with images[None]" if images.ndim == 3 else "pass a batch of images"
        if images.ndim == 3 and images.shape[0] in channels and images.shape[-1] not in channels:
            hint = "channels come last: use images.permute(1, 2, 0)[None]"
        raise ImageError(f"{name} has shape {_shape(images)}, expected B, H, W, {wanted}: {hint}.")
    if images.shape[-1] not in channels and 0 not in images.shape:
        hints = {4: "drop the alpha channel with images[..., :3]", 1: "repeat the grey channel three times"}
        hint = "channels come last: use images.permute(0, 2, 3, 1)"
        hint = hint if images.shape[1] in channels else hints.get(images.shape[-1], hint)
        raise ImageError(
            f"{name} has {images.shape[-1]} channels (shape {_shape(images)}), expected {wanted} channels: {hint}."
        )
    _check_values(images, name)


def flatten_alpha(images: Tensor) -> Tensor:
    """Images as they are seen: transparent pixels over middle grey, whatever colours their alpha hides.

    Args:
        images: ..., C with C = 1, 3 or 4 (straight alpha), floating point in [0, 1].

    Returns:
        ..., 3; where alpha is 1 the colours are not changed.
    """
    if images.shape[-1] == 4:
        return torch.lerp(images.new_tensor(BACKDROP), images[..., :3], images[..., 3:])
    return images.expand(*images.shape[:-1], 3)


def check_masks(masks: Tensor, name: str = "masks") -> Tensor:
    """Checks a batch of masks.

    Args:
        masks: B, H, W, as ``mask_batch`` takes them; bool, or floating point in [0, 1].
        name: What the messages call it.

    Returns:
        The masks B, H, W in float32; a slight overshoot of [0, 1] is clamped.

    Raises:
        ImageError: As for ``check_images``.
    """
    masks = mask_batch(masks, name)
    _check_tensor(masks, name, "B, H, W")
    _check_values(masks, name)
    return _clamped(masks)


def mask_batch(masks: Tensor, name: str = "masks") -> Tensor:
    """Masks of the shapes and types that other programs give, as B, H, W; their values are not checked.

    Args:
        masks: B, H, W; or H, W; or with one channel, B, 1, H, W or B, H, W, 1. Bool becomes float32.
        name: What the messages call it.

    Raises:
        ImageError: A tensor of another shape.
    """
    if not isinstance(masks, Tensor):
        return masks
    check_dense(masks, name)
    shape = _shape(masks)
    if masks.ndim == 2:
        masks = masks[None]
    elif masks.ndim == 4 and 1 in (masks.shape[1], masks.shape[3]):
        masks = masks[:, 0] if masks.shape[1] == 1 else masks[..., 0]
    if masks.ndim != 3:
        raise ImageError(f"{name} has shape {shape}, expected masks B, H, W: of several channels, pass one.")
    return masks.float() if masks.dtype == torch.bool else masks


def check_dense(x: Tensor, name: str) -> None:
    """Raises an ImageError for a tensor without values, or whose values are no plain ones, each in its place."""
    sparse = x.layout is not torch.strided
    kinds = {"meta": x.is_meta, "nested": x.is_nested, "sparse": sparse, "complex": x.is_complex()}
    kind = next((kind for kind, found in kinds.items() if found), None)
    if kind:
        raise ImageError(f"{name} is a {kind} tensor, expected a dense one of plain numbers: check what feeds it.")


def pair_batches(first: Tensor, second: Tensor, names: tuple[str, str] = ("images", "masks")) -> tuple[Tensor, Tensor]:
    """Repeats a batch of one to the length of the other, without copying.

    Raises:
        ImageError: The lengths differ and neither is 1.
    """
    a, b = first.shape[0], second.shape[0]
    if a != b and 1 not in (a, b):
        raise ImageError(
            f"{names[0]} has {a} frames and {names[1]} has {b}, expected the same number, or one of them alone: "
            f"pass {a} {names[1]} or a single one."
        )
    length = max(a, b)
    return first.expand(length, *first.shape[1:]), second.expand(length, *second.shape[1:])


def pair(images: Tensor, masks: Tensor, *, channels: Sequence[int] = (3,)) -> tuple[Tensor, Tensor]:
    """Checks images and masks, and fits the masks to the images in size and both to each other in number.

    Returns:
        Images B, H, W, C and masks B, H, W, float32; repeated frames are views.

    Raises:
        ImageError: As for ``check_images`` and ``pair_batches``, and for tensors on different devices.
    """
    images, masks = check_images(images, channels=channels), check_masks(masks)
    check_same_device(images, masks)
    return pair_batches(images, resize_masks(masks, images.shape[1:3]))


def check_same_device(first: Tensor, second: Tensor, names: tuple[str, str] = ("images", "masks")) -> None:
    """Raises an ImageError if the two tensors are on different devices."""
    if first.device != second.device:
        raise ImageError(
            f"{names[0]} is on {first.device} and {names[1]} on {second.device}, expected one device: "
            f"move one of them with .to()."
        )


def resize_masks(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes as PIL's bicubic does, within the rounding of bytes.

    Kernel parameter -0.5, antialiased when shrinking; width first, then height, each kept in [0, 1].

    Args:
        masks: B, H, W float32.
        size: New height and width.

    Returns:
        B, height, width; the same tensor if the size already fits.
    """
    return _resize_bicubic(masks[:, None], size)[:, 0]  # B h w


def resize_images(images: Tensor, size: Sequence[int]) -> Tensor:
    """``resize_masks`` for images B, H, W, C."""
    return _resize_bicubic(images.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)  # B h w C


def _resize_bicubic(x: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    # Older torch has no antialiased bicubic resize on MPS.
    y = x.cpu() if x.device.type == "mps" else x
    for step in ((x.shape[-2], size[1]), tuple(size)):
        y = _interpolate(y, step, mode="bicubic", align_corners=False, antialias=True).clamp_(0, 1)
    return y.to(x.device)  # B C h w


def _interpolate(x: Tensor, size: Sequence[int], **options: Any) -> Tensor:
    """torch's own, but for antialiased results one pixel wide: those it mixes up on CPUs, and not those one high."""
    if size[1] == 1 and options["antialias"]:
        turned = F.interpolate(x.transpose(-2, -1).contiguous(), size=(1, size[0]), **options)
        return turned.transpose(-2, -1).contiguous()
    return F.interpolate(x, size=tuple(size), **options)


def _check_tensor(x: Tensor, name: str, expected: str) -> None:
    if not isinstance(x, Tensor):
        raise ImageError(f"{name} is {type(x).__name__}, expected a tensor {expected}: convert with torch.as_tensor.")
    check_dense(x, name)
    if not x.is_floating_point() or x.dtype.itemsize == 1:  # torch computes nothing in float8
        hint = "divide bytes by 255" if x.dtype == torch.uint8 else "convert with .float()"
        raise ImageError(f"{name} has type {x.dtype}, expected floating point in [0, 1]: {hint}.")


def _check_values(x: Tensor, name: str) -> None:
    if x.shape[0] == 0:
        raise ImageError(f"{name} has 0 frames (shape {_shape(x)}), expected at least one image: check what feeds it.")
    if x.numel() == 0:
        raise ImageError(f"{name} has no pixels (shape {_shape(x)}), expected at least one pixel: check what feeds it.")
    for index, one in enumerate(x):  # frame by frame, so that checking a long video takes no memory
        low, high = (v.item() for v in one.detach().aminmax())  # NaN anywhere makes both NaN
        if low >= LOWEST and high <= HIGHEST and not (low < FAR_BELOW and _below(one) > MOST_BELOW):
            continue
        where = name if len(x) == 1 else f"{name}[{index}]"
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ImageError(f"{where} has NaN or infinite values, expected numbers in [0, 1]: check what made it.")
        hint = "divide bytes by 255, pass logits through a sigmoid"
        hint = "add 1 and halve where -1 is black" if low >= -1 and high <= 1 else hint
        raise ImageError(f"{where} has values from {low:.4g} to {high:.4g}, expected [0, 1]: {hint}.")


def _below(x: Tensor) -> float:
    """Mean of what is below 0."""
    return x.detach().float().clamp(max=0).mean().neg().item()


def _clamped(x: Tensor) -> Tensor:
    x = x.detach().to(torch.float32)
    low, high = (v.item() for v in x.aminmax())
    return x.clamp(0, 1) if low < 0 or high > 1 else x


def _shape(x: Tensor) -> str:
    return " x ".join(str(n) for n in x.shape) or "()"
