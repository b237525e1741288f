"""Networks in half precision for inference.

float16 keeps 11 bits of a number, and all of a network can be in it. bfloat16 keeps 8: with all of a network in it,
masks change by up to 0.02. Most of that comes from few places: the head (a bias of 6 is rounded to a multiple of 1/32),
the residual stream and its norms, the finest stages of the encoder, and the decoder. They hold a small part of the
weights and stay in float32; only the linear layers and convolutions of the encoder's coarse stages, nearly
all weights, are cast. ``BackboneSpec`` says which.

On a GPU float32 would take twice the time of half precision. There all but the coarsest stage is best in float16, which
is as fast as bfloat16 and more exact. Largest change of Swin-L's masks at 1024 x 1024, with random weights: 0.0064 with
bfloat16 in the coarse stages and float16 elsewhere, 0.0033 with bfloat16 in the coarsest alone, and with float16 only.

Weights that norms are to be folded into should be rounded after that, once: see ``fused`` of ``load_model``.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .birefnet import BiRefNet
from .encoders.registry import backbone_spec
from .layers import BATCH_NORMS


def cast_for_inference(network: BiRefNet, dtype: torch.dtype, *, fine_dtype: torch.dtype = torch.float32) -> BiRefNet:
    """Casts a network to a dtype, as ``network.to(dtype)`` does, but to bfloat16 only what does not change its masks.

    Where a network is in two dtypes, forward pre-hooks cast what its layers read to the dtype of their weights.

    Args:
        network: The network, fused or not; changed in place.
        dtype: float32, float16 or bfloat16.
        fine_dtype: Of what bfloat16 would change too much: float32, or float16 for the speed of a GPU.

    Returns:
        The network.
    """
    if dtype != torch.bfloat16:
        return network.to(dtype)
    dtypes = state_dtypes(network, dtype, fine_dtype=fine_dtype)
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            parameter.data = parameter.data.to(dtypes[name])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(dtypes[f"{prefix}.{name}"]))
        cast_already = _cast_to_weight in module._forward_pre_hooks.values()
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.LayerNorm, *BATCH_NORMS)) and not cast_already:
            module.register_forward_pre_hook(_cast_to_weight)
    return network


def state_dtypes(
    network: BiRefNet, dtype: torch.dtype, *, fine_dtype: torch.dtype = torch.float32
) -> dict[str, torch.dtype]:
    """The dtype of each parameter and buffer of a network after ``cast_for_inference``, whose arguments these are."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    in_bfloat16: set[int] = set()
    if dtype == torch.bfloat16:
        dtype = fine_dtype
        layers = _layers_in_bfloat16(network, only_coarsest=fine_dtype == torch.float16)
        in_bfloat16 = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return {
        name: torch.bfloat16 if id(tensor) in in_bfloat16 else dtype if tensor.is_floating_point() else tensor.dtype
        for name, tensor in tensors.items()
    }


def _layers_in_bfloat16(network: BiRefNet, only_coarsest: bool) -> list[nn.Module]:
    """Linear layers and convolutions of the encoder that are cast to bfloat16."""
    backbone, spec = network.localization.encoder.backbone, backbone_spec(network.config.backbone)
    parts = [backbone.get_submodule(name) for name in (spec.coarsest if only_coarsest else spec.fine)]
    named = {module for part in parts for module in part.modules()}
    layers = [module for module in backbone.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    return [layer for layer in layers if (layer in named) == only_coarsest]


def dtype_of(network: nn.Module) -> torch.dtype:
    """The dtype a network was cast to: bfloat16 where any of its parameters is."""
    dtypes = {parameter.dtype for parameter in network.parameters()}
    return torch.bfloat16 if torch.bfloat16 in dtypes else next(network.parameters()).dtype


def _cast_to_weight(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    dtype = cast("Tensor", module.weight).dtype
    return tuple(x.to(dtype) if isinstance(x, Tensor) else x for x in inputs)
