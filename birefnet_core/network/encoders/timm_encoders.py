"""DINOv3 and EfficientNet-Lite as timm builds them."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from ...errors import ConfigError
from ..checkpointing import checkpoint


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
    return timm.create_model(timm_name, features_only=True, pretrained=False, out_indices=blocks)


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite 0, 1 or 2 (Tan and Le, 2019, https://arxiv.org/abs/1905.11946), without its head.

    Its maps are those of the last blocks of the strides 4, 8, 16 and 32: the "bottlenecks", which have few channels.

    Attributes:
        grad_checkpointing: Whether to keep for the backward pass only what each stage reads.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        net: Any = timm.create_model(f"tf_efficientnet_lite{size}", features_only=True, pretrained=False)
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
