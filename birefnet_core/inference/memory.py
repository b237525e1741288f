"""How much memory a pass takes beside the weights, for those who must make room for it beforehand.

Measured on the CPU (peak resident size above that after loading, torch 2.14; benchmarks/sizes.md); on other devices it
is an estimate. In bfloat16 the decoder and the encoder's finest levels stay in float32, and with them the peak. In
float16 a CPU samples and adds up in float32; a GPU should need less than this says.
"""

from __future__ import annotations

import torch

MIB = 2**20

# Backbone -> MiB whatever the size, bytes for each pixel of the network's input.
_MEASURED: dict[str, tuple[int, int]] = {
    "swin_v1_t": (85, 165),
    "swin_v1_s": (85, 165),
    "swin_v1_b": (12, 231),
    "swin_v1_l": (100, 250),
    "pvt_v2_b0": (5, 299),
    "pvt_v2_b1": (0, 600),
    "pvt_v2_b2": (0, 600),
    "pvt_v2_b5": (33, 315),
    "dino_v3_s": (0, 380),
    "resnet50": (0, 278),
    "resnet10": (30, 160),
    "vgg16": (0, 768),
    "vgg16bn": (0, 768),
}

# Share of what float32 takes.
_PRECISION = {torch.float32: 1.0, torch.bfloat16: 1.1, torch.float16: 0.85}

# Not measured: wider DINOv3 encoders, whose maps grow with their width over that of the small one.
_DINO_WIDTHS = {"dino_v3_s_plus": 384, "dino_v3_b": 768, "dino_v3_l": 1024, "dino_v3_h_plus": 1280, "dino_v3_7b": 4096}


def memory_required(backbone: str, height: int, width: int, dtype: torch.dtype = torch.float32, batch: int = 1) -> int:
    """Bytes a pass needs beside the weights.

    Args:
        backbone: One of ``config.BACKBONES``.
        height: Of the network's input, in pixels.
        width: Of the network's input, in pixels.
        dtype: The network's precision.
        batch: Images at a time.
    """
    if backbone in _MEASURED:
        fixed, per_pixel = _MEASURED[backbone]
    else:
        fixed, per_pixel = 0, round(_MEASURED["dino_v3_s"][1] * _DINO_WIDTHS[backbone] / 384)
    return round((fixed * MIB + batch * height * width * per_pixel) * _PRECISION.get(dtype, dtype.itemsize / 4))
