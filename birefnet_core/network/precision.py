"""Networks in bfloat16: the many weights are rounded, the few that would change masks stay in float32.

bfloat16 keeps 8 bits of a number. With everything rounded to it, masks move by 0.006 on average. Most of that
comes from a few places: the head (a bias of 6 is rounded to a multiple of 1/32), the residual stream and its
norms, the finest stages of the encoder, and the maps of the decoder. Those hold a small part of the weights, and
stay in float32. What is rounded are the linear layers and convolutions of the encoder's coarse stages, where
nearly all weights are. float16 keeps 11 bits and needs no exceptions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .localization import ImagePyramidEncoder

# Layers of an encoder that stay in float32, in the names of all families of backbones: those of the
# finest two levels, and what makes the stream of a new level.
_FINE = re.compile(r"(^|\.)(patch_embed|stages[._][01]|parts\.[01]|downsample)\.")


class MixedPrecision(nn.Module):
    """A network that stays in float32, when brought to bfloat16, wherever rounding would change its masks."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What to(), bfloat16(), cuda() and the like go through."""
        rounded = {id(tensor) for layer in _coarse_layers(self) for tensor in _tensors(layer)}

        def convert(tensor: Tensor) -> Tensor:
            converted = fn(tensor)
            if converted.dtype == torch.bfloat16 and id(tensor) not in rounded:
                return tensor.to(converted.device, torch.float32)
            return converted

        super()._apply(convert, recurse)
        join_precisions(self)
        return self


def rounded_names(network: nn.Module) -> set[str]:
    """Names of the parameters that are rounded when a network is in bfloat16."""
    rounded = {id(tensor) for layer in _coarse_layers(network) for tensor in _tensors(layer)}
    return {name for name, parameter in network.named_parameters() if id(parameter) in rounded}


def precision_of(network: nn.Module) -> torch.dtype:
    """The precision a network is in: bfloat16 where some of it is."""
    types = {parameter.dtype for parameter in network.parameters()}
    return torch.bfloat16 if torch.bfloat16 in types else next(network.parameters()).dtype


def join_precisions(network: nn.Module) -> None:
    """Where a network is in two precisions, lets each layer take what the layer before it gives."""
    if len({parameter.dtype for parameter in network.parameters()}) < 2:
        return
    for module in network.modules():
        joined = _in_own_precision in module._forward_pre_hooks.values()
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.BatchNorm2d)) and not joined:
            module.register_forward_pre_hook(_in_own_precision)


def _in_own_precision(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.to(module.weight.dtype) for x in inputs)


def _coarse_layers(network: nn.Module) -> Iterator[nn.Module]:
    for encoder in network.modules():
        if isinstance(encoder, ImagePyramidEncoder):
            for name, layer in encoder.named_modules():
                if isinstance(layer, (nn.Linear, nn.Conv2d)) and not _FINE.search(f"{name}."):
                    yield layer


def _tensors(layer: nn.Module) -> Iterator[Tensor]:
    for parameter in layer.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
