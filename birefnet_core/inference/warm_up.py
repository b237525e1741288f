"""Compiling the Triton kernels of a network before its first image.

The first launch of a kernel compiles it, or reads it from Triton's cache on disk, and the first use of a GPU sets up
CUDA and its libraries. Both take longer than an image, so they begin when a network is made ready: in threads, because
most of a compilation runs outside of Python.
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
from ..out_of_memory import is_out_of_memory
from ..text import first_line

logger = logging.getLogger(__name__)

SIDES = (128, 32)  # of maps: kernels are compiled for maps of many and of few positions


class WarmUp:
    """Runs one layer of each kind on zeros, each in its own thread.

    Args:
        network: The fused network, on any device.
        device: Where it is going to run.
    """

    def __init__(self, network: BiRefNet, device: torch.device) -> None:
        self._threads: list[threading.Thread] = []
        if device.type != "cuda" or not torch.cuda.is_available():
            return
        layers = {_kind(module): module for module in network.modules() if isinstance(module, _KINDS)}
        try:
            copies = [(copy.deepcopy(layer), side, device) for layer in layers.values() for side in SIDES]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            logger.debug("no warm-up: %s", first_line(error))  # the first pass frees memory, or says what to do
            return
        for arguments in copies:
            self._threads.append(threading.Thread(target=_run, args=arguments, name="warm-up", daemon=True))
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Returns when it is done; at once where there was nothing to do."""
        for thread in self._threads:
            thread.join()
        self._threads = []


_KINDS = (DeformableConv2d, WindowAttention)


def _kind(module: nn.Module) -> tuple:
    """Layers of one kind share their kernels. Those of a deformable convolution serve all kernel sizes but 1 x 1."""
    dtype = next(module.parameters()).dtype
    return type(module), dtype, isinstance(module, DeformableConv2d) and module.kernel.kernel_size == (1, 1)


@torch.inference_mode()
def _run(layer: nn.Module, side: int, device: torch.device) -> None:
    try:
        _run_layer(layer.to(device), side, device)
        torch.cuda.synchronize(device)
    except Exception as error:  # the first pass raises it again, with an explanation
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
