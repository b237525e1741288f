"""How much memory a pass takes beside the weights, for those who must make room for it beforehand.

Memory is a line over the size: MiB whatever the size, and bytes for each pixel of the network's input. The lines are
laid through what was found from 256 x 256 to 2048 x 2048 (benchmarks/fit_memory.py). On the CPU that was measured: the
peak of resident memory where freed memory is given back at once (benchmarks/sizes.md); a process shows up to 160 MiB
more by what its allocator keeps for later. For other devices the bytes of tensors alive at once were counted without
one (benchmarks/device_memory.md); their libraries may want working memory of their own.
"""

from __future__ import annotations

import torch

MIB = 2**20

# Backbone -> on the CPU in float32 and bfloat16; on other devices in float32, bfloat16 and float16. In bfloat16 the
# decoder and the encoder's finest levels stay in float32, and with them the peak. Rows not measured on the CPU: Swin-S
# (as Swin-T, the maps are the same), VGG with norms (as without), DINOv3 S+, H+ and 7B (by the width of their maps).
_LINES: dict[str, tuple[tuple[int, int], ...]] = {
    "swin_v1_t": ((31, 78), (46, 87), (124, 155), (124, 155), (126, 132)),
    "swin_v1_s": ((31, 78), (46, 87), (124, 155), (124, 155), (126, 132)),
    "swin_v1_b": ((33, 104), (32, 105), (124, 165), (124, 165), (126, 132)),
    "swin_v1_l": ((26, 162), (33, 161), (123, 216), (123, 216), (126, 132)),
    "pvt_v2_b0": ((35, 69), (40, 73), (124, 155), (124, 155), (126, 132)),
    "pvt_v2_b1": ((32, 89), (35, 90), (124, 155), (124, 155), (126, 132)),
    "pvt_v2_b2": ((32, 89), (37, 89), (124, 155), (124, 155), (126, 132)),
    "pvt_v2_b5": ((32, 89), (35, 90), (124, 155), (124, 155), (126, 132)),
    "dino_v3_s": ((29, 99), (31, 101), (124, 155), (124, 155), (126, 132)),
    "dino_v3_s_plus": ((29, 99), (31, 101), (124, 155), (124, 155), (126, 132)),
    "dino_v3_b": ((31, 206), (29, 209), (121, 163), (121, 163), (126, 132)),
    "dino_v3_l": ((42, 269), (38, 273), (102, 217), (102, 217), (126, 132)),
    "dino_v3_h_plus": ((42, 336), (38, 341), (88, 427), (94, 286), (104, 179)),
    "dino_v3_7b": ((42, 1076), (38, 1092), (54, 934), (54, 934), (84, 450)),
    "vgg16": ((6, 515), (6, 515), (83, 463), (83, 463), (101, 205)),
    "vgg16bn": ((6, 515), (6, 515), (83, 463), (83, 463), (101, 205)),
    "resnet10": ((30, 121), (29, 122), (124, 155), (124, 155), (126, 132)),
    "resnet50": ((32, 210), (32, 210), (95, 265), (95, 265), (126, 132)),
}
# In float16 a CPU samples in float32, and the decoder's finest stage decides, whatever the encoder.
_CPU_HALF = (28, 112)


def memory_required(
    backbone: str,
    height: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    device: str | torch.device = "cpu",
) -> int:
    """Bytes a pass needs beside the weights.

    Args:
        backbone: One of ``config.BACKBONES``.
        height: Of the network's input, in pixels.
        width: Of the network's input, in pixels.
        dtype: The network's precision.
        batch: Images at a time.
        device: Where it runs.
    """
    lines = _LINES[backbone]
    kind = {torch.bfloat16: 1, torch.float16: 2}.get(dtype, 0)
    if torch.device(device).type != "cpu":
        fixed, per_pixel = lines[2 + kind]
    elif kind == 2:
        fixed, per_pixel = _CPU_HALF[0], max(_CPU_HALF[1], lines[0][1])
    else:
        fixed, per_pixel = lines[kind]
    return fixed * MIB + batch * height * width * per_pixel
