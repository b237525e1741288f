"""DINOv3 as timm builds it."""

from __future__ import annotations

import timm
from torch import nn

from ...errors import ConfigError


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
