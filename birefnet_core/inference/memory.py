"""Estimate of the memory a pass needs beside the weights, for callers that make room for it beforehand.

On a CPU: a + b * pixels, fitted per backbone to the peak of resident memory from 256 x 256 to 2048 x 2048, where freed
memory is returned at once (benchmarks/sizes.py, benchmarks/fit_memory.py); a process shows up to 160 MiB more, which
its allocator keeps.

On other devices: elements alive at the peak for each pixel, times their size. They were counted on tensors without
numbers (benchmarks/device_memory.py). On an H100, Swin-L and PVTv2-b2 took what was counted to within 1 % from
512 x 512 to 2048 x 2048, in batches of 1 and 4, in float32, float16 and bfloat16 (benchmarks/gpu.py).
"""

from __future__ import annotations

import torch

from ..ops.deform_backends import unavailable

MIB = 2**20

# Backbone -> a in MiB and b in bytes per pixel, on a CPU in float32 and bfloat16. Not measured, but taken from others:
# Swin-S (Swin-T has maps of the same size), VGG with norms (without), DINOv3 S+, H+, 7B (by the width of their maps),
# and EfficientNet-Lite 1 and 2 above 1024 x 1024 (0, which needs the same below that).
_CPU: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "swin_v1_t": ((31, 78), (46, 87)),
    "swin_v1_s": ((31, 78), (46, 87)),
    "swin_v1_b": ((33, 104), (32, 105)),
    "swin_v1_l": ((26, 162), (33, 161)),
    "pvt_v2_b0": ((35, 69), (40, 73)),
    "pvt_v2_b1": ((32, 89), (35, 90)),
    "pvt_v2_b2": ((32, 89), (37, 89)),
    "pvt_v2_b5": ((32, 89), (35, 90)),
    "dino_v3_s": ((29, 99), (31, 101)),
    "dino_v3_s_plus": ((29, 99), (31, 101)),
    "dino_v3_b": ((31, 206), (29, 209)),
    "dino_v3_l": ((42, 269), (38, 273)),
    "dino_v3_h_plus": ((42, 336), (38, 341)),
    "dino_v3_7b": ((42, 1076), (38, 1092)),
    "vgg16": ((6, 515), (6, 515)),
    "vgg16bn": ((6, 515), (6, 515)),
    "resnet10": ((30, 121), (29, 122)),
    "resnet50": ((32, 210), (32, 210)),
    "efficientnet_lite0": ((8, 227), (8, 227)),
    "efficientnet_lite1": ((8, 227), (8, 227)),
    "efficientnet_lite2": ((8, 227), (8, 227)),
}
# In float16 a CPU samples in float32, and the decoder's finest stage decides, whatever the encoder.
_CPU_HALF = (28, 112)

# Backbone -> elements alive at the peak for each pixel, on other devices.
_DEVICE_ELEMENTS = {
    "swin_v1_t": 69, "swin_v1_s": 69, "swin_v1_b": 91, "swin_v1_l": 135,
    "pvt_v2_b0": 47, "pvt_v2_b1": 91, "pvt_v2_b2": 91, "pvt_v2_b5": 59,
    "dino_v3_s": 86, "dino_v3_s_plus": 86, "dino_v3_b": 88, "dino_v3_l": 86, "dino_v3_h_plus": 119,
    "dino_v3_7b": 275, "vgg16": 131, "vgg16bn": 131, "resnet10": 35, "resnet50": 95,
    "efficientnet_lite0": 64, "efficientnet_lite1": 64, "efficientnet_lite2": 64,
}  # fmt: skip
# In bfloat16 the wide streams of these are copied for the layers that are in it.
_DEVICE_ELEMENTS_BFLOAT16 = {"dino_v3_l": 114, "dino_v3_h_plus": 142, "dino_v3_7b": 447}
# In half precision on CUDA convolutions of the image, which have channels of zeros there, decide for these.
_DEVICE_ELEMENTS_HALF = {"resnet10": 49}
# The same in chunks, for encoders that work in chunks: millions (2 ** 20) whatever the size, and for each pixel.
_DEVICE_ELEMENTS_LEAN = {
    "swin_v1_t": (30, 20), "swin_v1_s": (30, 20), "swin_v1_b": (39, 24), "swin_v1_l": (33, 34),
    "pvt_v2_b0": (34, 15), "pvt_v2_b1": (34, 23), "pvt_v2_b2": (34, 23), "pvt_v2_b5": (36, 23),
}  # fmt: skip
# MiB and bytes per pixel that deformable convolutions need at least without their Triton kernel, for columns.
_COLUMNS = (135, 80)


def memory_required(
    backbone: str,
    height: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 1,
    device: str | torch.device = "cpu",
    *,
    triton: bool | None = None,
    lean: bool = False,
) -> int:
    """Bytes a pass needs beside the weights.

    Args:
        backbone: One of ``config.BACKBONES``.
        height: Of the network's input, in pixels.
        width: Of the network's input, in pixels.
        dtype: The network's precision.
        batch_size: Images per pass.
        device: Where it runs.
        triton: Whether with Triton kernels; None for whether the device can run them, as far as is known here.
        lean: Whether in chunks, on devices other than a CPU, which always works in chunks.
    """
    device, pixels = torch.device(device), batch_size * height * width
    if device.type == "cpu":
        fixed, per_pixel = _CPU[backbone][dtype == torch.bfloat16]
        if dtype == torch.float16:
            fixed, per_pixel = _CPU_HALF[0], max(_CPU_HALF[1], per_pixel)
        return fixed * MIB + pixels * per_pixel
    elements = _DEVICE_ELEMENTS[backbone]
    if dtype == torch.bfloat16:
        elements = _DEVICE_ELEMENTS_BFLOAT16.get(backbone, elements)
    if device.type == "cuda" and _bytes_of_maps(dtype, device) == 2:
        elements = _DEVICE_ELEMENTS_HALF.get(backbone, elements)
    elements *= pixels
    if lean and backbone in _DEVICE_ELEMENTS_LEAN:
        fixed, per_pixel = _DEVICE_ELEMENTS_LEAN[backbone]
        elements = min(elements, fixed * MIB + pixels * per_pixel)
    required = elements * _bytes_of_maps(dtype, device)
    if not (_has_triton(device, dtype) if triton is None else triton):
        required = max(required, _COLUMNS[0] * MIB + pixels * _COLUMNS[1])
    return required


def _bytes_of_maps(dtype: torch.dtype, device: torch.device) -> int:
    """In bfloat16 the decoder and the encoder's finest levels are in float16 on CUDA, and in float32 elsewhere."""
    return 2 if dtype == torch.float16 or (dtype == torch.bfloat16 and device.type == "cuda") else 4


def _has_triton(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cuda" or not torch.cuda.is_available():
        return device.type == "cuda"
    return unavailable("triton", device, dtype) is None


def graph_buffers(height: int, width: int, dtype: torch.dtype, batch_size: int = 1) -> int:
    """Bytes of a CUDA graph's input and output, which it keeps beside its pool; for the arguments see above."""
    return batch_size * height * width * (3 + 1) * _bytes_of_maps(dtype, torch.device("cuda"))
