"""Samples of frames: arrays of the decoder, tensors on the device, floats, and back.

torch has hardly any arithmetic on unsigned 16-bit integers, and some devices do not have the type. On the device they
are signed, less 32768.

Shapes: H W frame, C colours and alpha.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MIDDLE = 0x8000


def to_tensor(pixels: np.ndarray) -> Tensor:
    """H, W, C uint8 or uint16 -> uint8, or int16 less 32768."""
    if pixels.dtype == np.uint16:
        return torch.from_numpy((pixels ^ np.uint16(MIDDLE)).view(np.int16))
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"]))


def to_array(samples: Tensor) -> np.ndarray:
    """The inverse of ``to_tensor``; floats stay floats."""
    pixels = samples.cpu().numpy()
    return pixels.view(np.uint16) ^ np.uint16(MIDDLE) if pixels.dtype == np.int16 else pixels


def as_float(samples: Tensor) -> Tensor:
    """Samples -> float32 in [0, 1]."""
    if samples.dtype == torch.uint8:
        return samples.float().div_(255)
    return samples.float().add_(MIDDLE).div_(65535)


def quantize(values: Tensor, bits: int) -> Tensor:
    """Floats -> samples of 8 or 16 bits; 32 leaves them."""
    if bits == 32:
        return values
    if bits == 8:
        return values.clamp(0, 1).mul_(255).round_().to(torch.uint8)
    return values.clamp(0, 1).mul_(65535).round_().sub_(MIDDLE).to(torch.int16)
