"""Localization Module (Sec. 3.2): where the object is.

Shapes: B batch, H W image; level i of four is B, C_i, H / 2^(i+2), W / 2^(i+2), fine to coarse.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import BiRefNetConfig
from .backbones import PYRAMID, BackboneSpec, backbone_spec
from .layers import resize
from .reconstruction_block import ReconstructionBlock

# The pyramid neck brings single-stride encoders to the widths of Swin-L (published).
NECK_CHANNELS = (192, 384, 768, 1536)


def _per_image_pass(channels: tuple[int, ...], config: BiRefNetConfig) -> tuple[int, ...]:
    """Channels with the half-size pass beside the full-size one, where they are concatenated."""
    return tuple(c * (2 if config.image_pyramid == "cat" else 1) for c in channels)


def encoder_channels(config: BiRefNetConfig) -> tuple[int, ...]:
    """Channels of the four encoder levels after the image pyramid."""
    return _per_image_pass(backbone_spec(config.backbone).channels, config)


def decoder_channels(config: BiRefNetConfig) -> tuple[int, ...]:
    """Channels of the four levels that reach the reconstruction module."""
    if backbone_spec(config.backbone).single_stride:
        return _per_image_pass(NECK_CHANNELS, config)
    return encoder_channels(config)


class ImagePyramidEncoder(nn.Module):
    """The encoder on the image and, with the image pyramid (IPT, Sec. 3.6), on the half-size image too."""

    def __init__(self, spec: BackboneSpec, mode: str) -> None:
        super().__init__()
        self.backbone = spec.build()
        self.mode = mode

    def forward(self, image: Tensor) -> list[Tensor]:
        """B, 3, H, W -> four maps; channels twice the backbone's where the mode is "cat"."""
        levels = self.passes(image)
        return [self.join(levels.pop(0)) for _ in range(len(levels))]  # each is let go as soon as it has been joined

    def passes(self, image: Tensor) -> list[list[Tensor]]:
        """B, 3, H, W -> for each of four levels the map of the image and, with the pyramid, of the half-size image."""
        maps = [self.backbone(image)]
        if self.mode != "none":
            maps.append(self.backbone(resize(image, (image.shape[2] // 2, image.shape[3] // 2))))
        return [list(level) for level in zip(*maps, strict=True)]

    def join(self, maps: list[Tensor]) -> Tensor:
        """The maps of one level as one."""
        full, *half = maps
        if not half:
            return full
        upsampled = resize(half[0], full.shape[2:])
        return full + upsampled if self.mode == "add" else torch.cat([full, upsampled], dim=1)


class ContextFeatureFusion(nn.Module):
    """CFF (Sec. 3.6): the shallower levels are brought to the deepest one's size and joined with it."""

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Four levels -> F^e: B, C_1 + ... + C_4, H / 32, W / 32."""
        *shallow, deepest = levels
        return torch.cat([*(resize(level, deepest.shape[2:]) for level in shallow), deepest], dim=1)


class ClassificationHead(nn.Module):
    """Auxiliary classification (Sec. 3.2): global average pooling and a fully connected layer."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """B, C, h, w -> logits B, num_classes."""
        return self.fc(x.mean(dim=(2, 3)))


class PyramidNeck(nn.Module):
    """Gives the single-stride maps of a plain vision transformer the strides and widths of a pyramid."""

    def __init__(self, in_channels: tuple[int, ...], out_channels: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 1) for a, b in zip(in_channels, out_channels, strict=True)
        )

    def forward(self, levels: list[Tensor], height: int, width: int) -> list[Tensor]:
        """Four levels at stride 16 of a height x width image -> four levels at strides 4, 8, 16, 32."""
        return [
            conv(resize(level, (height // stride, width // stride)))
            for conv, level, stride in zip(self.convs, levels, PYRAMID, strict=True)
        ]


class LocalizationOutput(NamedTuple):
    """What the localization module gives.

    Attributes:
        levels: Three lateral levels at strides 4, 8, 16 and the squeezed F^d at stride 32.
        classes: Logits B, num_classes; None outside training and without the head.
    """

    levels: list[Tensor]
    classes: Tensor | None


class LocalizationModule(nn.Module):
    """Encoder with image pyramid, context feature fusion, squeeze, classification head.

    Departure from Sec. 3.2: the head reads the deepest level before the context is joined to it
    (published), not F^e.
    """

    def __init__(self, config: BiRefNetConfig) -> None:
        super().__init__()
        spec = backbone_spec(config.backbone)
        channels = encoder_channels(config)
        self.encoder = ImagePyramidEncoder(spec, config.image_pyramid)
        self.fusion = ContextFeatureFusion() if config.context_fusion else None
        self.squeeze = ReconstructionBlock(
            sum(channels) if config.context_fusion else channels[-1],
            channels[-1],
            # With the reconstruction module off (Tab. 2) the squeeze keeps the plain ASPP of Sec. 3.2.
            deformable=config.reconstruction_block == "deformable_aspp",
            normed=config.batch_norm,
        )
        self.classifier = ClassificationHead(channels[-1], config.num_classes) if config.num_classes else None
        self.neck = PyramidNeck(channels, decoder_channels(config)) if spec.single_stride else None

    def forward(self, image: Tensor) -> LocalizationOutput:
        """B, 3, H, W -> LocalizationOutput."""
        levels = self.encoder(image)
        classes = self.classifier(levels[-1]) if self.training and self.classifier is not None else None
        deepest = levels[-1] if self.fusion is None else self.fusion(levels)  # F^e
        levels = [*levels[:-1], self.squeeze(deepest)]  # F^d in place of the deepest level
        if self.neck is not None:
            levels = self.neck(levels, *image.shape[2:])
        return LocalizationOutput(levels, classes)
