"""Reconstruction Module (Sec. 3.3): from the coarse location to the mask at full resolution.

Shapes: B batch, H W image; stage i works at stride 32, 16, 8, 4, coarse to fine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ..config import NUM_STAGES, BiRefNetConfig
from .backbones import PYRAMID
from .biref_block import BiRefBlock
from .inward_reference import InwardReference
from .layers import resize
from .localization import decoder_channels, encoder_channels
from .outward_reference import gradient_label, image_gradient

# Each stage's share of the source image: an eighth of the encoder's channels (published).
INWARD_SHARE = 8


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


class ReconstructionModule(nn.Module):
    """Four BiRef blocks from coarse to fine, lateral connections, and the final prediction."""

    def __init__(self, config: BiRefNetConfig) -> None:
        super().__init__()
        self.gradient_mask = config.gradient_mask
        channels = decoder_channels(config)[::-1]  # coarse to fine, like all below
        inward = [c // INWARD_SHARE for c in encoder_channels(config)[::-1]]
        strides = PYRAMID[::-1]
        # Each stage makes the channels of the next level; the last halves its own.
        outputs = [*channels[1:], channels[-1] // 2]
        # The coarsest stage has no level of its own above it, and takes the width of the next one (published).
        shares = [inward[0], *inward[:-1]]
        self.blocks = nn.ModuleList(
            BiRefBlock(
                channels=channels[i],
                out_channels=outputs[i],
                stride=strides[i],
                inward_channels=shares[i],
                outward=i < NUM_STAGES - 1,
                config=config,
            )
            for i in range(NUM_STAGES)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(c, c, 1) for c in channels[1:])
        self.supervision = (
            nn.ModuleList(nn.Conv2d(c, 1, 1) for c in outputs[:-1]) if config.multi_stage_supervision else None
        )
        self.inward = InwardReference(1, inward[-1]) if config.inward_reference else None
        self.head = nn.Conv2d(outputs[-1] + (inward[-1] if config.inward_reference else 0), 1, 1)

    def forward(self, levels: list[Tensor], image: Tensor) -> ReconstructionOutput:
        """Reconstructs the mask.

        Args:
            levels: Four maps, fine to coarse; the coarsest is the squeezed F^d.
            image: The network's input, B, 3, H, W.
        """
        *laterals, feature = levels
        intermediate, gradients = [], []
        for i, block in enumerate(self.blocks):
            output = block(feature, image)
            if self.training and i < NUM_STAGES - 1:
                if self.supervision is not None:
                    intermediate.append(self.supervision[i](output.reconstructed))  # M_i: B 1 h w
                if output.gradient is not None:
                    gradients.append(output.gradient)
            if i < NUM_STAGES - 1:
                lateral = laterals.pop()
                feature = resize(output.feature, lateral.shape[2:]) + self.laterals[i](lateral)
        logits = self._predict(output.feature, image)
        return ReconstructionOutput(logits, tuple(intermediate), self._gradient_maps(gradients, intermediate, image))

    def _predict(self, feature: Tensor, image: Tensor) -> Tensor:
        """The head on the upsampled feature beside the inward reference at full resolution.

        The head is linear and so is upsampling: each part is brought to one channel first, so that no wide map of
        full resolution is made of the feature.

        Args:
            feature: B, C, h, w of the last stage.
            image: B, 3, H, W.

        Returns:
            Logits B, 1, H, W.
        """
        share = self.head.weight[:, : feature.shape[1]]  # 1 C 1 1
        logits = resize(F.conv2d(feature, share, self.head.bias), image.shape[2:])
        return logits if self.inward is None else logits + self.reference_logits(image)

    def reference_logits(self, image: Tensor) -> Tensor:
        """Share of the inward reference at full resolution in the logits: B, 3, H, W -> B, 1, H, W."""
        assert self.inward is not None
        return self.inward.projected(image, self.head.weight[:, -self.inward.conv_out.out_channels :])

    def _gradient_maps(
        self, predictions: list[Tensor], intermediate: list[Tensor], image: Tensor
    ) -> GradientMaps | None:
        if not predictions:
            return None
        gradient = image_gradient(image)
        masks: Sequence[Tensor | None] = intermediate or [None] * len(predictions)
        labels = tuple(gradient_label(gradient, mask, self.gradient_mask) for mask in masks)
        return GradientMaps(tuple(predictions), labels)
