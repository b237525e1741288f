"""Localization Module (Sec. 3.2): where the object is.

Shapes: B batch, H W image; level i of four is B, C_i, H / 2^(i+2), W / 2^(i+2), fine to coarse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import BiRefNetConfig
from ..ops.split_conv import match_dtype
from .checkpointing import checkpoint
from .encoders.registry import PYRAMID, BackboneSpec, backbone_spec
from .layers import resize, to_conv_memory_format
from .reconstruction_block import ReconstructionBlock

# The pyramid neck brings single-stride encoders to the widths of Swin-L (published).
NECK_CHANNELS = (192, 384, 768, 1536)


def _with_image_pyramid(channels: tuple[int, ...], config: BiRefNetConfig) -> tuple[int, ...]:
    """Channels with those of the half-size image, where the image pyramid concatenates them."""
    return tuple(c * (2 if config.image_pyramid == "cat" else 1) for c in channels)


def encoder_channels(config: BiRefNetConfig) -> tuple[int, ...]:
    """Channels of the four encoder levels after the image pyramid."""
    return _with_image_pyramid(backbone_spec(config.backbone).channels, config)


def decoder_channels(config: BiRefNetConfig) -> tuple[int, ...]:
    """Channels of the four levels that reach the reconstruction module."""
    if backbone_spec(config.backbone).single_stride:
        return _with_image_pyramid(NECK_CHANNELS, config)
    return encoder_channels(config)


class PyramidLevel(NamedTuple):
    """One level of the image pyramid (IPT, Sec. 3.6).

    In the paper the two maps are concatenated. Here they stay apart, the second in its own size, because most of what
    reads them is linear, as upsampling is.

    Attributes:
        full: B, C, h, w, of the image.
        half: B, C, h', w', of the half-size image; None without the image pyramid or where both are added.
    """

    full: Tensor
    half: Tensor | None = None

    def concatenated(self) -> Tensor:
        """B, 2C, h, w; without a second map the first, B, C, h, w."""
        return self.full if self.half is None else torch.cat([self.full, resize(self.half, self.full.shape[2:])], dim=1)


class PyramidConv2d(nn.Conv2d):
    """A 1 x 1 convolution of a level, with the parameters of that of the concatenated maps."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, level: PyramidLevel) -> Tensor:  # type: ignore[override]
        """PyramidLevel -> B, O, h, w."""
        y = self.of_full(level.full)
        if level.half is not None:
            y += resize(self.of_half(level.half), y.shape[2:])
        return y

    def of_full(self, full: Tensor, channels: slice = slice(None)) -> Tensor:
        """The part of the image's map, with the bias: B, C, h, w -> B, O, h, w, or some of the O channels."""
        bias = None if self.bias is None else self.bias[channels]
        return F.conv2d(match_dtype(full, self.weight), self.weight[channels, : full.shape[1]], bias)

    def of_half(self, half: Tensor) -> Tensor:
        """The part of the half-size image's map, in its own size: B, C, h', w' -> B, O, h', w'."""
        return F.conv2d(match_dtype(half, self.weight), self.weight[:, -half.shape[1] :])


class ImagePyramidEncoder(nn.Module):
    """The encoder on the image and, with the image pyramid (IPT, Sec. 3.6), on the half-size image too."""

    def __init__(self, spec: BackboneSpec, mode: str) -> None:
        super().__init__()
        self.backbone = spec.build()
        self.mode = mode

    def forward(self, image: Tensor) -> list[PyramidLevel]:
        """B, 3, H, W -> four levels, fine to coarse."""
        maps = self._maps(image)
        if self.mode == "none":
            return [PyramidLevel(full) for full in maps]
        halves = self._maps(resize(image, (image.shape[2] // 2, image.shape[3] // 2)))
        if self.mode == "add":
            return [PyramidLevel(a + resize(b, a.shape[2:])) for a, b in zip(maps, halves, strict=True)]
        return [PyramidLevel(full, half) for full, half in zip(maps, halves, strict=True)]

    def _maps(self, image: Tensor) -> list[Tensor]:
        maps = self.backbone(image)
        return maps if self.training else [to_conv_memory_format(one) for one in maps]


class ContextFeatureFusion(nn.Module):
    """CFF (Sec. 3.6): the shallower levels are brought to the deepest one's size and concatenated with it."""

    def forward(self, levels: list[PyramidLevel]) -> Tensor:
        """Four levels -> F^e: B, C_1 + ... + C_4, H / 32, W / 32."""
        size = levels[-1].full.shape[2:]
        maps = []
        for full, half in levels:
            maps.append(resize(full, size))
            if half is not None:
                maps.append(_resize_twice(half, full.shape[2:], size))
        return torch.cat(maps, dim=1)


def _resize_twice(x: Tensor, middle: Sequence[int], size: Sequence[int]) -> Tensor:
    """``resize(resize(x, middle), size)``, each axis as one linear map, so that the map in between is never made."""
    height, width = (torch.eye(n, dtype=x.dtype, device=x.device)[None, None] for n in x.shape[2:])
    by_rows = resize(resize(height, (middle[0], x.shape[2])), (size[0], x.shape[2]))[0, 0]  # height of size, of x
    by_columns = resize(resize(width, (middle[1], x.shape[3])), (size[1], x.shape[3]))[0, 0]
    return to_conv_memory_format(torch.einsum("ih,bchw,jw->bcij", by_rows, x, by_columns))


class ClassificationHead(nn.Module):
    """Auxiliary classification (Sec. 3.2): global average pooling and a fully connected layer."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """B, C, h, w -> logits B, num_classes."""
        return self.fc(x.mean(dim=(2, 3)))


class PyramidNeck(nn.Module):
    """Gives the single-stride maps of a plain vision transformer the strides and widths of a pyramid.

    Maps that are to become larger stay in the size they have: only the linear lateral connections read them, and
    resize what they make of them.
    """

    def __init__(self, in_channels: tuple[int, ...], out_channels: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(PyramidConv2d(a, b) for a, b in zip(in_channels, out_channels, strict=True))

    def forward(self, levels: list[PyramidLevel], size: Sequence[int]) -> list[PyramidLevel]:
        """Brings four levels at stride 16, F^d last, to the widths of the decoder, and F^d to stride 32.

        Args:
            levels: Fine to coarse.
            size: Height and width of the image.
        """
        *shallow, deepest = levels
        small = resize(deepest.full, (size[0] // PYRAMID[-1], size[1] // PYRAMID[-1]))
        levels = [*shallow, PyramidLevel(small)]
        return [PyramidLevel(conv(level)) for conv, level in zip(self.convs, levels, strict=True)]


class LocalizationOutput(NamedTuple):
    """What the localization module gives.

    Attributes:
        levels: Three levels for the lateral connections, at strides 4, 8, 16, and the squeezed F^d at stride 32.
        classes: Logits B, num_classes; None outside training and without the head.
    """

    levels: list[PyramidLevel]
    classes: Tensor | None


class LocalizationModule(nn.Module):
    """Encoder with image pyramid, context feature fusion, squeeze, classification head.

    Departure from Sec. 3.2: the head reads the deepest level before the context is joined to it
    (published), not F^e.

    Attributes:
        grad_checkpointing: Whether to keep for the backward pass only what the squeeze reads.
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
        self.grad_checkpointing = False

    def forward(self, image: Tensor) -> LocalizationOutput:
        """B, 3, H, W -> LocalizationOutput."""
        levels = self.encoder(image)
        classes = None
        if self.training and self.classifier is not None:
            classes = self.classifier(levels[-1].concatenated())
        fused = levels[-1].concatenated() if self.fusion is None else self.fusion(levels)  # F^e
        del levels[-1]
        maps, squeeze = iter([fused]), self.squeeze
        del fused  # so that the squeeze frees it when it has been read
        deepest = checkpoint(squeeze, squeeze, tuple(maps)) if self.grad_checkpointing else squeeze(maps)  # F^d
        levels.append(PyramidLevel(deepest))
        return LocalizationOutput(levels if self.neck is None else self.neck(levels, image.shape[2:]), classes)

    def fuse(self) -> None:
        """Drops the classification head, which is for training."""
        self.classifier = None
