"""Encoders by name: what each one is, and four feature maps from each of them.

An encoder is a module that turns B, 3, H, W into a list of four maps B, C_i, H_i, W_i. Swin is
our own (see swin.py for why); PVTv2, DINOv3 and EfficientNet-Lite are timm's, bit-equal to the published ones; VGG
and ResNet are torchvision's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from torch import nn

from ...errors import ConfigError
from .pvt import build_pvt_v2
from .swin import SwinConfig, SwinTransformer
from .timm_encoders import EfficientNetLite, build_dino_v3
from .torchvision_encoders import build_resnet, build_vgg16

PYRAMID = (4, 8, 16, 32)
Four = tuple[int, int, int, int]  # one for each level, fine to coarse


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """What the rest of the network needs to know about an encoder.

    Attributes:
        channels: Channels of the four maps, fine to coarse.
        build: Makes the encoder.
        fine: Names of its modules that bfloat16 would change too much (see ``cast``): those of the finest two levels,
            what makes the stream of a new level, and the first block of a long stage.
        coarsest: Names of its modules in which bfloat16 is as good as float16.
        strides: Input pixels per cell of the four maps.
        min_side: Shortest input side the encoder can take, in pixels.
    """

    channels: Four
    build: Callable[[], nn.Module]
    fine: tuple[str, ...]
    coarsest: tuple[str, ...]
    strides: Four = PYRAMID
    min_side: int = 32

    @property
    def single_stride(self) -> bool:
        """True for plain vision transformers, whose maps need a pyramid neck."""
        return self.strides != PYRAMID


def _swin(embed_dim: int, depths: Four, num_heads: Four, window_size: int) -> BackboneSpec:
    config = SwinConfig(embed_dim=embed_dim, depths=depths, num_heads=num_heads, window_size=window_size)
    fine = ["patch_embed", "stages.0", "stages.1", "stages.2.downsample", "stages.3.downsample"]
    if depths[2] > 6:
        # Errors of a long stage's first block go through all others: in bfloat16 it takes the largest change of
        # Swin-L's masks from 0.0040 to 0.0052 (eleven images of 256 x 256).
        fine.append("stages.2.blocks.0")
    return BackboneSpec(
        channels=tuple(embed_dim * 2**i for i in range(4)),
        build=lambda: SwinTransformer(config),
        fine=tuple(fine),
        coarsest=("stages.3.blocks",),
    )


def _pvt_v2(size: str, channels: Four) -> BackboneSpec:
    return BackboneSpec(
        channels=channels,
        build=functools.partial(build_pvt_v2, size),
        fine=("patch_embed", "stages_0", "stages_1", "stages_2.downsample", "stages_3.downsample"),
        coarsest=("stages_3.blocks",),
        min_side=64,  # the 8 x 8 spatial reduction of stage 1 must fit the stride-4 map of the half-size image
    )


def _dino_v3(timm_name: str, channels: int, blocks: Four) -> BackboneSpec:
    return BackboneSpec(
        channels=(channels,) * 4,
        build=functools.partial(build_dino_v3, timm_name, blocks),
        fine=("model.patch_embed",),
        coarsest=tuple(f"model.blocks.{i}" for i in range(blocks[2] + 1, blocks[3] + 1)),
        strides=(16,) * 4,
    )


def _vgg16(normed: bool) -> BackboneSpec:
    return BackboneSpec(
        channels=(128, 256, 512, 512),
        build=functools.partial(build_vgg16, normed),
        fine=("parts.0", "parts.1"),
        coarsest=("parts.3",),
    )


def _resnet(block: str, depths: Four, channels: Four) -> BackboneSpec:
    return BackboneSpec(
        channels=channels,
        build=functools.partial(build_resnet, block, depths),
        fine=("parts.0", "parts.1", "parts.2.0.downsample", "parts.3.0.downsample"),
        coarsest=("parts.3",),
    )


def _efficientnet_lite(size: int, channels: Four, depth: int) -> BackboneSpec:
    return BackboneSpec(
        channels=channels,
        build=functools.partial(EfficientNetLite, size),
        fine=("conv_stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3.0", "blocks.5.0"),
        coarsest=(*(f"blocks.5.{i}" for i in range(1, depth)), "blocks.6"),  # blocks.5.0 halves the map
    )


BACKBONE_SPECS: dict[str, BackboneSpec] = {
    "swin_v1_t": _swin(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7),
    "swin_v1_s": _swin(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24), window_size=7),
    "swin_v1_b": _swin(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=12),
    "swin_v1_l": _swin(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=12),
    "pvt_v2_b0": _pvt_v2("b0", (32, 64, 160, 256)),
    "pvt_v2_b1": _pvt_v2("b1", (64, 128, 320, 512)),
    "pvt_v2_b2": _pvt_v2("b2", (64, 128, 320, 512)),
    "pvt_v2_b5": _pvt_v2("b5", (64, 128, 320, 512)),
    "dino_v3_s": _dino_v3("vit_small_patch16_dinov3", 384, (3, 5, 7, 11)),
    "dino_v3_s_plus": _dino_v3("vit_small_plus_patch16_dinov3", 384, (3, 5, 7, 11)),
    "dino_v3_b": _dino_v3("vit_base_patch16_dinov3", 768, (3, 5, 7, 11)),
    "dino_v3_l": _dino_v3("vit_large_patch16_dinov3", 1024, (5, 11, 17, 23)),
    "dino_v3_h_plus": _dino_v3("vit_huge_plus_patch16_dinov3", 1280, (7, 15, 23, 31)),
    "dino_v3_7b": _dino_v3("vit_7b_patch16_dinov3", 4096, (9, 19, 29, 39)),
    "vgg16": _vgg16(normed=False),
    "vgg16bn": _vgg16(normed=True),
    "resnet50": _resnet("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048)),
    # Not among the published networks: the small encoders of the checkpoints that the pack has carried.
    "resnet10": _resnet("basic", (1, 1, 1, 1), (64, 128, 256, 512)),
    "efficientnet_lite0": _efficientnet_lite(0, (24, 40, 112, 320), 4),
    "efficientnet_lite1": _efficientnet_lite(1, (24, 40, 112, 320), 5),
    "efficientnet_lite2": _efficientnet_lite(2, (24, 48, 120, 352), 5),
}  # fmt: skip


def backbone_spec(name: str) -> BackboneSpec:
    """The row of a backbone.

    Raises:
        ConfigError: No such backbone.
    """
    try:
        return BACKBONE_SPECS[name]
    except KeyError:
        raise ConfigError(f"backbone {name!r} is not known; choose one of {', '.join(BACKBONE_SPECS)}.") from None
