"""Encoders by name: what each one is, and four feature maps from each of them.

An encoder is a module that turns B, 3, H, W into a list of four maps B, C_i, H_i, W_i. Swin is
our own (see swin.py for why); PVTv2 and DINOv3 are timm's, bit-equal to the published ones; VGG and
ResNet are torchvision's.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import timm
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ..errors import ConfigError
from .pvt import build_pvt_v2
from .swin import SwinConfig, SwinTransformer

PYRAMID = (4, 8, 16, 32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """What the rest of the network needs to know about an encoder.

    Attributes:
        channels: Channels of the four maps, fine to coarse.
        build: Makes the encoder.
        strides: Input pixels per cell of the four maps.
        min_side: Shortest input side the encoder can take, in pixels.
    """

    channels: tuple[int, int, int, int]
    build: Callable[[], nn.Module]
    strides: tuple[int, int, int, int] = PYRAMID
    min_side: int = 32

    @property
    def single_stride(self) -> bool:
        """True for plain vision transformers, whose maps need a pyramid neck."""
        return self.strides != PYRAMID


def _swin(config: SwinConfig) -> BackboneSpec:
    channels = tuple(config.embed_dim * 2**i for i in range(4))
    return BackboneSpec(channels=channels, build=lambda: SwinTransformer(config))


def _pvt_v2(size: str, channels: tuple[int, int, int, int]) -> BackboneSpec:
    # The 8 x 8 spatial reduction of stage 1 must fit the stride-4 map of the half-size image.
    return BackboneSpec(channels=channels, build=lambda: build_pvt_v2(size), min_side=64)


def _dino_v3(timm_name: str, channels: int, blocks: tuple[int, int, int, int]) -> BackboneSpec:
    """A plain vision transformer read out after four blocks, all at stride 16, without a final norm."""

    def build() -> nn.Module:
        if not timm.is_model(timm_name):
            raise ConfigError(
                f"this backbone needs timm's {timm_name!r}, which timm {timm.__version__} does not have: "
                "install timm 1.0.20 or newer."
            )
        return timm.create_model(timm_name, features_only=True, pretrained=False, out_indices=blocks)

    return BackboneSpec(channels=(channels,) * 4, build=build, strides=(16,) * 4)


class Stages(nn.Module):
    """A convolutional network cut into four consecutive parts."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for part in self.parts:
            x = part(x)
            maps.append(x)
        return maps


def _vgg16(normed: bool) -> BackboneSpec:
    # Cut after the 2nd to 5th max-pooling layer.
    cuts = (0, 14, 24, 34, 44) if normed else (0, 10, 17, 24, 31)

    def build() -> nn.Module:
        model = torchvision.models.vgg16_bn if normed else torchvision.models.vgg16
        layers = model(weights=None, init_weights=False).features
        return Stages([layers[a:b] for a, b in itertools.pairwise(cuts)])

    return BackboneSpec(channels=(128, 256, 512, 512), build=build)


def _resnet(block: type[nn.Module], depths: list[int], channels: tuple[int, int, int, int]) -> BackboneSpec:
    def build() -> nn.Module:
        net = torchvision.models.ResNet(block, depths)
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
        return Stages([stem, net.layer2, net.layer3, net.layer4])

    return BackboneSpec(channels=channels, build=build)


BACKBONE_SPECS: dict[str, BackboneSpec] = {
    "swin_v1_t": _swin(SwinConfig(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7)),
    "swin_v1_s": _swin(SwinConfig(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24), window_size=7)),
    "swin_v1_b": _swin(SwinConfig(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=12)),
    "swin_v1_l": _swin(SwinConfig(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=12)),
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
    "resnet50": _resnet(Bottleneck, [3, 4, 6, 3], (256, 512, 1024, 2048)),
    # Not a published one: the smallest, for learning from nothing on a CPU (the checkpoint "demo").
    "resnet10": _resnet(BasicBlock, [1, 1, 1, 1], (64, 128, 256, 512)),
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
