"""Compiling the Triton kernels of a network while its weights are still on their way to the GPU.

The first launch of a kernel compiles it, or reads it from Triton's cache on disk, and the first use of a GPU sets up
CUDA. Both take longer than an image, so they begin when a network is made ready, in a thread beside the loading.
"""

from __future__ import annotations

import copy
import logging
import threading

import torch
from torch import Tensor, nn

from ..network import BiRefNet
from ..network.deformable_conv import DeformableConv2d
from ..network.encoders.swin import WindowAttention
from ..text import first_line

logger = logging.getLogger(__name__)

SIDES = (128, 32)  # of maps: kernels are compiled for maps of many and of few positions


class WarmUp:
    """Runs one layer of each kind on zeros, in a thread of its own.

    Args:
        network: The fused network, on any device.
        device: Where it is going to run.
    """

    def __init__(self, network: BiRefNet, device: torch.device) -> None:
        self._thread: threading.Thread | None = None
        layers = {_kind(module): module for module in network.modules() if isinstance(module, _KINDS)}
        if device.type == "cuda" and torch.cuda.is_available() and layers:
            copies = [copy.deepcopy(layer) for layer in layers.values()]
            self._thread = threading.Thread(target=_run, args=(copies, device), name="BiRefNet warm-up", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Returns when it is done; at once where there was nothing to do."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None


_KINDS = (DeformableConv2d, WindowAttention)


def _kind(module: nn.Module) -> tuple:
    dtype = next(module.parameters()).dtype
    if isinstance(module, DeformableConv2d):
        return DeformableConv2d, dtype, module.kernel.weight.shape
    return type(module), dtype


@torch.inference_mode()
def _run(layers: list[nn.Module], device: torch.device) -> None:
    try:
        for layer in layers:
            layer.to(device)
            for side in SIDES:
                _run_layer(layer, side, device)
        torch.cuda.synchronize(device)
    except Exception as error:  # the first pass meets it again, and says what it means
        logger.debug("warm-up ended early: %s", first_line(error), exc_info=True)


def _run_layer(layer: nn.Module, side: int, device: torch.device) -> None:
    dtype = next(layer.parameters()).dtype

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    if isinstance(layer, DeformableConv2d):
        channels, outputs = layer.kernel.in_channels, layer.kernel.out_channels
        x = zeros(1, channels, side, side).contiguous(memory_format=torch.channels_last)
        total = torch.zeros_like(x, dtype=torch.promote_types(dtype, torch.float32))
        layer.add_to(total, x, zeros(channels, outputs))
    elif isinstance(layer, WindowAttention):
        layer(zeros(1, side, side, layer.qkv.in_features))
