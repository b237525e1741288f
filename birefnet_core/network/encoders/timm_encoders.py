"""Encoders as timm builds them: DINOv3 and EfficientNet-Lite, and what all of timm's need."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...errors import ConfigError
from ..checkpointing import checkpoint


class _LinspaceOnCPU(TorchFunctionMode):
    """Has values where timm needs them while it builds a network, on the meta device too.

    Older timm (1.0.20 is one) makes plain numbers of a linspace: the probabilities of stochastic depth.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.linspace:
            kwargs = {**kwargs, "device": "cpu"}
        return func(*args, **kwargs)


def build_from_timm(name: str, **options: Any) -> nn.Module:
    """A network of timm's that returns its maps, without pretrained weights."""
    with _LinspaceOnCPU():
        return timm.create_model(name, features_only=True, pretrained=False, **options)


def build_dino_v3(timm_name: str, blocks: tuple[int, ...]) -> nn.Module:
    """A plain vision transformer read out after four blocks, all at stride 16, without a final norm.

    Raises:
        ConfigError: timm is too old.
    """
    if not timm.is_model(timm_name):
        raise ConfigError(
            f"this backbone needs timm's {timm_name!r}, which timm {timm.__version__} does not have: "
            "install timm 1.0.20 or newer."
        )
    return build_from_timm(timm_name, out_indices=blocks)


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite 0, 1 or 2 (Tan and Le, 2019, https://arxiv.org/abs/1905.11946), without its head.

    Its maps are those of the last blocks of the strides 4, 8, 16 and 32: the "bottlenecks", which have few channels.

    Attributes:
        grad_checkpointing: Whether to keep for the backward pass only what each stage reads.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        net: Any = build_from_timm(f"tf_efficientnet_lite{size}")
        self.conv_stem, self.bn1, self.blocks = net.conv_stem, net.bn1, net.blocks
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> list[Tensor]:
        """B, 3, H, W -> four maps at strides 4, 8, 16, 32."""
        x = self.bn1(self.conv_stem(x))
        maps = []
        for stage in self.blocks:
            # timm's own forward would update BatchNorm's statistics again where it recomputes.
            x = checkpoint(stage, stage, x) if self.grad_checkpointing else stage(x)
            maps.append(x)
        return [maps[i] for i in (1, 2, 4, 6)]
