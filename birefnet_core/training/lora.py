"""Low-rank adapters (Hu et al., "LoRA", 2021): the network's own weights are frozen.

The factors are parametrizations of the weights, the same for linear layers, convolutions and deformable convolutions.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..checkpoints import Adapter
from ..network import BiRefNet


class LowRank(nn.Module):
    """W -> W + scale * up @ down, for the weight as a matrix O, I.

    ``up`` is initialised to zero, so that nothing changes at first, ``down`` as a linear layer's weight.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        inputs = weight[0].numel()
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.down = nn.Parameter(weight.new_empty(rank, inputs))
        self.scale = scale
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.scale * (self.up @ self.down)).view_as(weight).to(weight.dtype)


def add_adapters(model: BiRefNet, rank: int, alpha: float) -> int:
    """Freezes a network and adds adapters to its large weights.

    The class head, which is for training only, learns as a whole and is in no adapter: it may be new, and the network
    that an adapter is for has none.

    Args:
        model: The network.
        rank: Of the factors.
        alpha: Scale of the change, divided by the rank.

    Returns:
        Number of weights with adapters: those of linear layers and convolutions whose matrix has more than ``rank``
        rows and columns.
    """
    model.requires_grad_(False)
    head = model.localization.classifier
    others = set(head.requires_grad_(True).modules()) if head is not None else set()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.groups == 1)]
    layers = [layer for layer in layers if layer not in others]
    layers = [layer for layer in layers if min(layer.weight.shape[0], layer.weight[0].numel()) > rank]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, alpha / rank))
        layer.get_parameter("parametrizations.weight.original").requires_grad_(False)
    return len(layers)


def extract_adapter(model: BiRefNet, training_size: tuple[int, int] | None = None) -> Adapter:
    """The adapter of a network with adapters, which was trained at that width and height."""
    factors, scale = {}, 1.0
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            low_rank = module.parametrizations.weight[0]
            factors[f"{name}.weight"] = (low_rank.up.detach().clone(), low_rank.down.detach().clone())
            scale = low_rank.scale
    return Adapter(factors=factors, scale=scale, config=model.config, training_size=training_size)


@torch.no_grad()
def merged(model: BiRefNet) -> BiRefNet:
    """The network with its adapters merged: a new one on the same device where it has any, itself otherwise."""
    if not any(parametrize.is_parametrized(module) for module in model.modules()):
        return model
    plain = BiRefNet(model.config).to(next(model.parameters()).device)
    values = dict(model.state_dict())
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            values[f"{name}.weight"] = module.weight
    plain.load_state_dict({name: copy.copy(values[name]) for name in plain.state_dict()})
    plain.checkpoint = model.checkpoint
    return plain.eval()
