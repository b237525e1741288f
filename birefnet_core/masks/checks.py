"""What every function of this package asks of its inputs, and the size and batch rules they share.

Shapes: B batch, H W picture. Images are B H W 3, masks B H W; 1 is foreground, 0 is background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageError

# Resizing overshoots [0, 1] by a tenth or so; values further out are bytes or logits, not shares.
LOWEST, HIGHEST = -1.0, 2.0


def check_images(images: Tensor, name: str = "images") -> Tensor:
    """Checks a batch of RGB images.

    Args:
        images: B, H, W, 3, floating point, in [0, 1].
        name: What the messages call it.

    Returns:
        The images in float32; a slight overshoot of [0, 1] is clamped.

    Raises:
        ImageError: Not a tensor of that shape and type, nothing in it, NaN or infinite values, or a range
            that is not [0, 1].
    """
    _check_tensor(images, name, "B, H, W, 3")
    if images.ndim != 4:
        hint = "add a batch dimension with images[None]" if images.ndim == 3 else "pass a batch of RGB images"
        raise ImageError(f"{name} has shape {_shape(images)}, expected B, H, W, 3: {hint}.")
    if images.shape[-1] != 3:
        hints = {4: "drop the alpha channel with images[..., :3]", 1: "repeat the grey channel three times"}
        hint = hints.get(images.shape[-1], "channels come last; permute channels-first images")
        raise ImageError(f"{name} has {images.shape[-1]} channels (shape {_shape(images)}), expected 3: {hint}.")
    return _check_values(images, name)


def check_masks(masks: Tensor, name: str = "masks") -> Tensor:
    """Checks a batch of masks.

    Args:
        masks: B, H, W, floating point, in [0, 1].
        name: What the messages call it.

    Returns:
        The masks in float32; a slight overshoot of [0, 1] is clamped.

    Raises:
        ImageError: As for ``check_images``.
    """
    _check_tensor(masks, name, "B, H, W")
    if masks.ndim != 3:
        hints = {2: "add a batch dimension with masks[None]", 4: "drop the channel dimension with masks[:, 0]"}
        hint = hints.get(masks.ndim, "pass a batch of masks")
        raise ImageError(f"{name} has shape {_shape(masks)}, expected B, H, W: {hint}.")
    return _check_values(masks, name)


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


def pair(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Checks images and masks, and fits the masks to the images in size and both to each other in number.

    Returns:
        Images B, H, W, 3 and masks B, H, W, float32; repeated frames are views.

    Raises:
        ImageError: As for ``check_images`` and ``pair_batches``, and for tensors on different devices.
    """
    images, masks = check_images(images), check_masks(masks)
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
    return _resize(masks[:, None], size)[:, 0]  # B h w


def resize_images(images: Tensor, size: Sequence[int]) -> Tensor:
    """``resize_masks`` for images B, H, W, C."""
    return _resize(images.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)  # B h w C


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    # Older torch has no antialiased bicubic resize on MPS.
    y = x.cpu() if x.device.type == "mps" else x
    for step in ((x.shape[-2], size[1]), tuple(size)):
        y = F.interpolate(y, size=step, mode="bicubic", align_corners=False, antialias=True).clamp_(0, 1)
    return y.to(x.device)  # B C h w


def _check_tensor(x: Tensor, name: str, expected: str) -> None:
    if not isinstance(x, Tensor):
        raise ImageError(f"{name} is {type(x).__name__}, expected a tensor {expected}: convert with torch.as_tensor.")
    if not x.is_floating_point():
        hint = "divide bytes by 255" if x.dtype == torch.uint8 else "convert with .float()"
        raise ImageError(f"{name} has type {x.dtype}, expected floating point in [0, 1]: {hint}.")


def _check_values(x: Tensor, name: str) -> Tensor:
    if x.shape[0] == 0:
        raise ImageError(f"{name} has 0 frames (shape {_shape(x)}), expected at least one: check what feeds it.")
    if x.numel() == 0:
        raise ImageError(f"{name} has no pixels (shape {_shape(x)}), expected at least 1 x 1: check what feeds it.")
    low, high = (v.item() for v in x.detach().aminmax())  # NaN anywhere makes both NaN
    if not (low >= LOWEST and high <= HIGHEST):
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ImageError(f"{name} contains NaN or infinite values, expected numbers in [0, 1]: check what made it.")
        raise ImageError(
            f"{name} has values from {low:.4g} to {high:.4g}, expected [0, 1]: "
            f"divide bytes by 255, pass logits through a sigmoid."
        )
    x = x.detach().to(torch.float32)
    return x.clamp(0, 1) if low < 0 or high > 1 else x


def _shape(x: Tensor) -> str:
    return " x ".join(str(n) for n in x.shape) or "()"
