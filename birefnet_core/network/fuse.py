"""A network made ready for inference: the same masks with less work and less memory."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import ConfigError
from .birefnet import BiRefNet, check_network

PACKAGE = __name__.partition(".network")[0]  # timm's modules may have a method of that name for other purposes


def fuse_for_inference(model: BiRefNet) -> BiRefNet:
    """A network whose modules are fused: those that have something to fold or to drop have a method ``fuse``.

    Norms of the decoder are folded into the convolutions before them, the two convolutions that predict a deformable
    convolution's samples become one, Swin's relative position biases are gathered once, and heads that only training
    reads are dropped.

    Args:
        model: The network, on any device and in any dtype; unchanged.

    Returns:
        A network in eval mode that cannot be trained (``fused`` is True); ``model`` itself where it is fused already.
        All parameters that nothing is folded into, such as the encoder's, share memory with those of ``model``, so
        that training ``model`` further makes this one useless.

    Raises:
        ConfigError: Not a network, or one whose weights other tensors are computed into before each pass.
    """
    check_network(model)
    if model.fused:
        return model
    _check_weights(model)
    fused = copy.deepcopy(model, _shared_tensors(model))
    modules = list(fused.named_modules())
    for _, module in modules:
        if parametrize.is_parametrized(module):
            _merge_parametrization(module)
    for _, module in modules:
        if hasattr(module, "fuse") and type(module).__module__.startswith(PACKAGE):
            module.fuse()
    fused.fused = True
    return fused.requires_grad_(False).eval()


def _check_weights(model: BiRefNet) -> None:
    """Refuses weights that hooks compute anew before each pass, over what is folded into them."""
    for name, module in model.named_modules():
        plain = "weight" in module._parameters or parametrize.is_parametrized(module, "weight")
        if isinstance(module, nn.Conv2d | nn.Linear) and not plain:
            found = ", ".join(part for part, _ in module.named_parameters(recurse=False))
            raise ConfigError(
                f"{name} has no weight of its own but {found or 'none'}, as torch.nn.utils.prune, weight_norm and "
                "spectral_norm leave it. Make it one: prune.remove, remove_weight_norm or remove_spectral_norm."
            )
        several = [part for part in getattr(module, "parametrizations", ()) if part != "weight"]
        if several or (parametrize.is_parametrized(module) and not hasattr(module.parametrizations.weight, "original")):
            raise ConfigError(
                f"{name} has parametrizations that cannot be merged. Remove them: "
                "torch.nn.utils.parametrize.remove_parametrizations."
            )


def _merge_parametrization(module: nn.Module) -> None:
    """Merges a low-rank adapter into the weight.

    ``parametrize.remove_parametrizations`` would change the class of the module, which ``deepcopy`` shares with the
    module that was copied.
    """
    weight = module.get_parameter("parametrizations.weight.original")
    with torch.no_grad():
        merged = nn.Parameter(cast("Tensor", module.weight).to(weight.dtype))
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    module.register_parameter("weight", merged)


def _shared_tensors(model: nn.Module) -> dict[int, Any]:
    """A memo with which ``deepcopy`` copies modules and shares the memory of their tensors."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    memo.update((id(p), nn.Parameter(p.detach(), requires_grad=False)) for p in model.parameters())
    return memo
