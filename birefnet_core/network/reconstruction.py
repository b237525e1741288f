"""Reconstruction Module (Sec. 3.3): from the coarse location to the mask at full resolution.

Shapes: B batch, H W image; stage i works at stride 32, 16, 8, 4, coarse to fine; h w a stage's map.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import NUM_STAGES, BiRefNetConfig
from ..ops.execution import chunking, row_chunks
from ..ops.split_conv import match_dtype
from .biref_block import BiRefBlock
from .checkpointing import checkpoint
from .encoders.registry import PYRAMID
from .inward_reference import InwardReference
from .layers import resize
from .localization import PyramidConv2d, PyramidLevel, decoder_channels, encoder_channels
from .outward_reference import gradient_label, image_gradient

# Channels of a stage's inward reference: an eighth of the encoder's (published).
INWARD_DIVISOR = 8
LEAST_CHANNELS = 16  # of a chunk of channels; convolutions of fewer are slow


class GradientMaps(NamedTuple):
    """Supervision of the outward reference (Sec. 3.4), coarse to fine.

    Attributes:
        predictions: Three logit maps B, 1, h_i, w_i at strides 32, 16, 8.
        labels: Three labels B, 1, H, W; the target of a prediction is the label's sigmoid.
    """

    predictions: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]


class ReconstructionOutput(NamedTuple):
    """What the reconstruction module gives; the last two only while training."""

    logits: Tensor  # B 1 H W
    intermediate: tuple[Tensor, ...]  # three of B 1 h_i w_i
    gradient: GradientMaps | None


class LateralConnection(PyramidConv2d):
    """A 1 x 1 convolution of a level, to which the upsampled feature of the stage before is added.

    Both are linear: what is coarser than the stage is added up before it is upsampled.
    """

    def forward(self, level: PyramidLevel, feature: Tensor, size: Sequence[int]) -> Iterable[Tensor]:  # type: ignore[override]
        """Sums both.

        Args:
            level: Of the stage, or coarser.
            feature: B, C, h', w', the output of the stage before.
            size: Height and width of the stage's map.

        Returns:
            B, C, h, w, as one map or, in inference, cut along its channels into several, made one after the other.
        """
        coarse = [feature]
        fine: Tensor | None = level.full
        if level.half is not None:
            _add(coarse, self.of_half(level.half))
        if level.full.shape[2:] != size:  # from the neck
            _add(coarse, self.of_full(level.full))
            fine = None
        channels = row_chunks(
            self.out_channels, feature.shape[0] * size[0] * size[1], "upsampled", feature.device, minimum=LEAST_CHANNELS
        )
        sums = (self._sum(coarse, fine, size, some) for some in channels)
        return sums if chunking(feature, self.training) else tuple(sums)

    def _sum(self, coarse: list[Tensor], fine: Tensor | None, size: Sequence[int], channels: slice) -> Tensor:
        """Some channels of the sum of upsampled maps and of the convolution of a map of the stage's size."""
        upsampled = (resize(one[:, channels], size) for one in coarse)
        if fine is None:
            return functools.reduce(torch.add, upsampled)
        total = self.of_full(fine, channels)
        for one in upsampled:
            total += one
        return total


def _add(maps: list[Tensor], x: Tensor) -> None:
    """Adds a map to the first of some, where their sizes are equal, or appends it."""
    if x.shape == maps[0].shape:
        maps[0] = maps[0] + x
    else:
        maps.append(x)


class ReconstructionModule(nn.Module):
    """Four BiRef blocks from coarse to fine, lateral connections, and the final prediction.

    Attributes:
        grad_checkpointing: Whether to keep for the backward pass only what each stage reads.
    """

    def __init__(self, config: BiRefNetConfig) -> None:
        super().__init__()
        self.gradient_mask = config.gradient_mask
        channels = decoder_channels(config)[::-1]  # coarse to fine, like all below
        inward = [c // INWARD_DIVISOR for c in encoder_channels(config)[::-1]]
        self.strides = PYRAMID[::-1]
        # Each stage makes the channels of the next level; the last halves its own.
        outputs = [*channels[1:], channels[-1] // 2]
        # The coarsest stage has no level of its own above it, and takes the width of the next one (published).
        inward_channels = [inward[0], *inward[:-1]]
        self.blocks = nn.ModuleList(
            BiRefBlock(
                channels=channels[i],
                out_channels=outputs[i],
                stride=self.strides[i],
                inward_channels=inward_channels[i],
                outward=i < NUM_STAGES - 1,
                config=config,
            )
            for i in range(NUM_STAGES)
        )
        self.laterals = nn.ModuleList(LateralConnection(c, c) for c in channels[1:])
        self.supervision = (
            nn.ModuleList(nn.Conv2d(c, 1, 1) for c in outputs[:-1]) if config.multi_stage_supervision else None
        )
        self.inward = InwardReference(1, inward[-1]) if config.inward_reference else None
        self.head = nn.Conv2d(outputs[-1] + (inward[-1] if config.inward_reference else 0), 1, 1)
        self.grad_checkpointing = False

    def forward(self, levels: list[PyramidLevel], image: Tensor) -> ReconstructionOutput:
        """Reconstructs the mask.

        Args:
            levels: Four levels, fine to coarse; the coarsest is the squeezed F^d. The list is emptied, so that each is
                freed when it has been read.
            image: The network's input, B, 3, H, W.
        """
        maps: Iterable[Tensor] = iter([levels.pop().full])
        intermediate, gradients = [], []
        for i, block in enumerate(self.blocks):
            if self.grad_checkpointing:
                output = checkpoint(block, block, tuple(maps), image)
            else:
                output = block(maps, image)
            if self.training and i < NUM_STAGES - 1:
                if self.supervision is not None:
                    intermediate.append(self.supervision[i](output.reconstructed))  # M_i: B 1 h w
                if output.gradient is not None:
                    gradients.append(output.gradient)
            feature = output.feature
            del output
            if i < NUM_STAGES - 1:
                stride = self.strides[i + 1]
                size = image.shape[2] // stride, image.shape[3] // stride
                maps = self.laterals[i](levels.pop(), feature, size)
                del feature
        logits = self._predict(feature, image)
        return ReconstructionOutput(logits, tuple(intermediate), self._gradient_maps(gradients, intermediate, image))

    def _predict(self, feature: Tensor, image: Tensor) -> Tensor:
        """The head on the upsampled feature beside the inward reference at full resolution.

        The head is linear and so is upsampling: each part is brought to one channel first, so that no wide map of
        full resolution is made. In inference the sum is in float32: in half precision a logit of 6 is a multiple of
        1/256 or 1/32.

        Args:
            feature: B, C, h, w of the last stage.
            image: B, 3, H, W.

        Returns:
            Logits B, 1, H, W.
        """
        of_feature, of_reference = self.head.weight.tensor_split([feature.shape[1]], dim=1)  # 1 C 1 1 each
        weight, bias = of_feature, self.head.bias
        if chunking(feature, self.training):
            wide = torch.promote_types(weight.dtype, torch.float32)
            weight, bias = weight.to(wide), None if bias is None else bias.to(wide)
        logits = resize(F.conv2d(match_dtype(feature, weight), weight, bias), image.shape[2:])
        if self.inward is None:
            return logits
        if self.grad_checkpointing:
            return logits + checkpoint(self.inward, self.inward.projected, image, of_reference)
        return logits + self.inward.projected(image, of_reference)

    def _gradient_maps(
        self, predictions: list[Tensor], intermediate: list[Tensor], image: Tensor
    ) -> GradientMaps | None:
        if not predictions:
            return None
        gradient = image_gradient(image)
        masks: Sequence[Tensor | None] = intermediate or [None] * len(predictions)
        labels = tuple(gradient_label(gradient, mask, self.gradient_mask) for mask in masks)
        return GradientMaps(tuple(predictions), labels)

    def fuse(self) -> None:
        """Drops the heads of multi-stage supervision, which are for training."""
        self.supervision = None
