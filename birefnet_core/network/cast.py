"""Networks in half precision for inference.

float16 keeps 11 bits of a number, and all of a network can be in it. bfloat16 keeps 8: with everything rounded to it,
masks change by 0.006 on average. Most of that comes from few places: the head (a bias of 6 is rounded to a multiple of
1/32), the residual stream and its norms, the finest stages of the encoder, and the maps of the decoder. They hold a
small part of the weights and stay finer; the linear layers and convolutions of the encoder's coarse stages, nearly
all weights, are rounded. Finer is float32, or float16 on GPUs, which compute in it as fast as in bfloat16: masks of
Swin-T then change by 0.0006 on average, and by 0.003 with everything in bfloat16.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .birefnet import BiRefNet
from .encoders.registry import backbone_spec


def fine_dtype(device: torch.device) -> torch.dtype:
    """The dtype of what bfloat16 is too coarse for."""
    return torch.float16 if device.type == "cuda" else torch.float32


def cast_for_inference(network: BiRefNet, dtype: torch.dtype, fine: torch.dtype = torch.float32) -> BiRefNet:
    """Casts a network to a dtype, as ``network.to(dtype)`` does, but bfloat16 only where that keeps its masks.

    Where a network is in two dtypes, forward pre-hooks cast what its layers read to the dtype of their weights.

    Args:
        network: The network, fused or not; changed in place.
        dtype: float32, float16 or bfloat16.
        fine: What bfloat16 is too coarse for is in this dtype, see ``fine_dtype``. float16 is for fused networks:
            variances of a norm may be beyond its range.

    Returns:
        The network.
    """
    if dtype != torch.bfloat16:
        return network.to(dtype)
    dtypes = state_dtypes(network, dtype, fine)
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            parameter.data = parameter.data.to(dtypes[name])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(dtypes[f"{prefix}.{name}"]))
        cast_already = _cast_to_weight in module._forward_pre_hooks.values()
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.BatchNorm2d)) and not cast_already:
            module.register_forward_pre_hook(_cast_to_weight)
    return network


def state_dtypes(
    network: BiRefNet, dtype: torch.dtype, fine: torch.dtype = torch.float32
) -> dict[str, torch.dtype]:
    """The dtype of each parameter and buffer of a network after ``cast_for_inference`` with the same arguments.

    Args:
        network: The network.
        dtype: float32, float16 or bfloat16.
        fine: See ``cast_for_inference``.
    """
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    dtypes = {name: dtype if tensor.is_floating_point() else tensor.dtype for name, tensor in tensors.items()}
    if dtype != torch.bfloat16:
        return dtypes
    backbone = network.localization.encoder.backbone
    parts = [backbone.get_submodule(name) for name in backbone_spec(network.config.backbone).fine]
    kept = {module for part in parts for module in part.modules()}
    layers = [m for m in backbone.modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and m not in kept]
    rounded = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return {
        name: fine if tensor.is_floating_point() and id(tensor) not in rounded else dtypes[name]
        for name, tensor in tensors.items()
    }


def dtype_of(network: nn.Module) -> torch.dtype:
    """The dtype a network was cast to: bfloat16 where any of its parameters is."""
    dtypes = {parameter.dtype for parameter in network.parameters()}
    return torch.bfloat16 if torch.bfloat16 in dtypes else next(network.parameters()).dtype


def _cast_to_weight(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    dtype = cast("Tensor", module.weight).dtype
    return tuple(x.to(dtype) if isinstance(x, Tensor) else x for x in inputs)
