"""The network prepared for inference: the same function with less work and less memory.

Norms are folded into convolutions, convolutions of joined maps are split so that nothing is joined,
linear operations in a row are merged, and maps are let go as soon as they have been used. The
parameters of the encoder are shared with the network it was made from; the decoder's are copies.

Shapes: B batch, H W image, C channels, h w a stage's map.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import BiRefNet, BiRefNetOutput
from ..network.backbones import PYRAMID
from ..network.biref_block import BiRefBlock
from ..network.inward_reference import InwardReference
from ..network.layers import laid_out, resize
from ..network.localization import decoder_channels
from ..network.outward_reference import OutwardReference
from ..network.precision import MixedPrecision, join_precisions
from ..network.reconstruction_block import ReconstructionBlock, ResidualBlocks, ResidualUnit
from ..ops import execution
from .folding import compose, fold_norm, project_after, split_inputs
from .prepared_aspp import PreparedAspp
from .prepared_lateral import Connection, PreparedEntry, PreparedLateral
from .products import faster_linear_layers
from .strips import add_conv

Projection = tuple[Tensor, Tensor | None]  # weight P, C and bias P of a 1 x 1 convolution


class PreparedBlock(nn.Module):
    """ReconstructionBlock or ResidualBlocks on one or more maps that the plain form would concatenate."""

    def __init__(
        self,
        block: nn.Module,
        inputs: list[int],
        projection: Projection | None = None,
        lateral: Connection | None = None,
    ) -> None:
        """Prepares a block.

        Args:
            block: The block.
            inputs: Channels of each map.
            projection: Weight P, C and bias P of a 1 x 1 convolution that alone reads the block's output.
            lateral: The lateral connection that makes the first map.
        """
        super().__init__()
        if isinstance(block, ResidualBlocks):
            self.first: nn.Module = nn.Identity() if lateral is None else PreparedLateral(lateral)
            self.others: nn.ModuleList | None = None
            units = (unit for unit in block if isinstance(unit, ResidualUnit))
            self.body: nn.Module = nn.Sequential(*map(PreparedResidualUnit, units))
            self.conv_out: nn.Module = nn.Identity() if projection is None else _as_conv(*projection)
        else:
            assert isinstance(block, ReconstructionBlock)
            first, *others = split_inputs(fold_norm(block.conv_in, block.norm_in), inputs)
            self.first = first if lateral is None else PreparedEntry(lateral, first)
            self.others = nn.ModuleList(others)
            self.body = PreparedAspp(block.aspp)
            conv_out = fold_norm(block.conv_out, block.norm_out)
            self.conv_out = conv_out if projection is None else project_after(conv_out, *projection)

    # What a block does comes in three calls, so that the maps one has read can be let go before the next makes its own.

    def enter(self, *first: Any) -> Tensor:
        """What the block makes of its first map B, C_1, h, w, or of what that map's lateral connection reads."""
        return self.first(*first)

    def join(self, x: Tensor, others: Sequence[Tensor] = ()) -> Tensor:
        """What ``enter`` gave, which may be changed in place, and more maps B, C_i, h, w -> what ``forward`` takes."""
        if self.others is None:
            return torch.cat([x, *others], dim=1) if others else x
        for conv, one in zip(self.others, others, strict=True):
            add_conv(x, one, cast("nn.Conv2d", conv).weight)
        return x.relu_()

    def forward(self, x: Tensor) -> Tensor:
        """What ``join`` gave -> B, C_out, h, w."""
        return self.conv_out(self.body(x))


def _as_conv(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    identity = nn.Conv2d(weight.shape[1], weight.shape[1], 1, bias=False, device=weight.device, dtype=weight.dtype)
    identity.weight.data = torch.eye(weight.shape[1], device=weight.device, dtype=weight.dtype)[..., None, None]
    return project_after(identity, weight, bias)


class PreparedResidualUnit(nn.Module):
    """ResidualUnit with norms folded in."""

    def __init__(self, unit: ResidualUnit) -> None:
        super().__init__()
        self.conv1 = fold_norm(unit.conv1, unit.norm1)
        self.conv2 = fold_norm(unit.conv2, unit.norm2)
        self.skip = unit.skip

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu_(self.conv1(x))).add_(self.skip(x)).relu_()


class PreparedOutwardReference(nn.Module):
    """The attention of OutwardReference; the gradient head is for training only."""

    def __init__(self, outward: OutwardReference) -> None:
        super().__init__()
        self.conv = fold_norm(outward.conv, outward.norm)
        self.attention = outward.attention

    def forward(self, x: Tensor) -> Tensor:
        """B, C, h, w -> the same, weighted in place."""
        return x.mul_(torch.sigmoid(self.attention(F.relu_(self.conv(x)))))


class PreparedStage(nn.Module):
    """One BiRef block."""

    def __init__(
        self, block: nn.Module, channels: int, projection: Projection | None, lateral: Connection | None
    ) -> None:
        super().__init__()
        assert isinstance(block, BiRefBlock)
        self.inward = block.inward
        inputs = [channels] + ([block.inward.conv_out.out_channels] if block.inward is not None else [])
        self.block = PreparedBlock(block.block, inputs, projection, lateral)
        self.outward = PreparedOutwardReference(block.outward) if block.outward is not None else None

    def enter(self, *first: Any) -> Tensor:
        """The feature, or the maps of a level, the feature and the stage's size -> what ``join`` takes."""
        return self.block.enter(*first)

    def join(self, x: Tensor, image: Tensor) -> Tensor:
        """What ``enter`` gave, and B, 3, H, W -> what ``forward`` takes."""
        if self.inward is None:
            return self.block.join(x)
        return self.block.join(x, [self.inward(image, *x.shape[2:])])

    def forward(self, x: Tensor) -> Tensor:
        """What ``join`` gave -> B, C_out, h, w."""
        x = self.block(x)
        return x if self.outward is None else self.outward(x)


class PreparedFinalReference(nn.Module):
    """The inward reference at full resolution and the share of the head that reads it, as one 5 x 5 convolution."""

    def __init__(self, inward: InwardReference, weight: Tensor) -> None:
        """Merges the inward reference with the head's weight 1, C."""
        super().__init__()
        self.first = inward.conv_in
        self.second = project_after(inward.conv_out, weight, None)
        self.merged = compose(self.first, self.second)

    def forward(self, image: Tensor) -> Tensor:
        """B, 3, H, W -> B, 1, H, W."""
        y = self.merged(image)
        # The outermost pixels, where merging is not exact, are computed in two steps from the three next to them.
        y[:, :, :1] = self._plainly(image[:, :, :3])[:, :, :1]
        y[:, :, -1:] = self._plainly(image[:, :, -3:])[:, :, -1:]
        y[..., :1] = self._plainly(image[..., :3])[..., :1]
        y[..., -1:] = self._plainly(image[..., -3:])[..., -1:]
        return y

    def _plainly(self, image: Tensor) -> Tensor:
        return self.second(self.first(image))


class PreparedBiRefNet(MixedPrecision):
    """BiRefNet for inference.

    Attributes:
        config: As of the network it was made from.
        checkpoint: As of the network it was made from.
        min_side: Shortest side of an input image, in pixels.
        memory_level: See ``execution.use_memory_level``.
    """

    def __init__(self, model: BiRefNet) -> None:
        super().__init__()
        self.config, self.checkpoint, self.min_side = model.config, model.checkpoint, model.min_side
        self.memory_level = 0
        localization, reconstruction = model.localization, model.reconstruction
        self.encoder = localization.encoder
        self.fused = localization.fusion is not None
        self.squeeze = PreparedBlock(localization.squeeze, [localization.squeeze.conv_in.in_channels])
        neck = localization.neck
        # The pyramid's two maps of a level are kept apart, the half-size one in its own size, where nothing but linear
        # operations reads them.
        self.apart = model.config.image_pyramid == "cat" and neck is None
        head = reconstruction.head.weight[:, :, 0, 0]  # 1 C
        share = head.shape[1] - (reconstruction.inward.conv_out.out_channels if reconstruction.inward else 0)
        # The head is linear and so is upsampling: the last feature is brought to one channel before it is upsampled.
        projection = head[:, :share], reconstruction.head.bias
        channels = decoder_channels(model.config)[::-1]
        laterals: list[Connection | None] = [None]
        self.deepest: nn.Conv2d | None = None
        if neck is None:
            laterals += [Connection(lateral, 2 if self.apart else 1) for lateral in _convs(reconstruction.laterals)]
        else:
            # The neck is linear, too: instead of a plain transformer's maps, what laterals make of them is upsampled.
            *finer, self.deepest = _convs(neck.convs)
            pairs = zip(finer[::-1], _convs(reconstruction.laterals), strict=True)
            laterals += [Connection(project_after(a, b.weight[:, :, 0, 0], b.bias), 1, coarse=True) for a, b in pairs]
        self.stages = nn.ModuleList(
            PreparedStage(block, c, projection if block is reconstruction.blocks[-1] else None, lateral)
            for block, c, lateral in zip(reconstruction.blocks, channels, laterals, strict=True)
        )
        self.final = PreparedFinalReference(reconstruction.inward, head[:, share:]) if reconstruction.inward else None
        join_precisions(self)

    @torch.no_grad()
    def forward(self, image: Tensor) -> BiRefNetOutput:
        """B, 3, H, W normalised, H and W multiples of 32 -> BiRefNetOutput with logits only."""
        if torch.compiler.is_compiling():
            return self._forward(image)
        with execution.use_memory_level(self.memory_level):
            return self._forward(image)

    def _forward(self, image: Tensor) -> BiRefNetOutput:
        # From three channels apart, oneDNN would first make a copy of sixteen.
        image = laid_out(image)
        with faster_linear_layers(image.device):
            levels = self.encoder.passes(image) if self.apart else [[level] for level in self.encoder(image)]
        levels = [[laid_out(one) for one in level] for level in levels]
        x = self.squeeze.join(self.squeeze.enter(self._joined(levels if self.fused else levels[-1:])))
        del levels[-1]
        feature = self.squeeze(x)
        sizes = [(image.shape[2] // stride, image.shape[3] // stride) for stride in PYRAMID]
        if self.deepest is not None:
            feature = self.deepest(resize(feature, sizes[-1]))
        for i, stage in enumerate(cast("Iterable[PreparedStage]", self.stages)):
            x = stage.enter(levels.pop(), feature, sizes[-1 - i]) if i > 0 else stage.enter(feature)
            del feature
            feature = stage(stage.join(x, image))
        logits = resize(feature, image.shape[2:])
        return BiRefNetOutput(logits if self.final is None else logits + self.final(image))

    @staticmethod
    def _joined(levels: list[list[Tensor]]) -> Tensor:
        """All maps of some levels in the last one's size (ContextFeatureFusion); each is let go once it is resized."""
        size = levels[-1][0].shape[2:]
        maps = [resize(resize(one, level[0].shape[2:]), size) for level in levels for one in level]
        return laid_out(torch.cat(maps, dim=1) if len(maps) > 1 else maps[0])

    def spare_memory(self) -> bool:
        """Raises the memory level by one; False where it is the highest already."""
        if self.memory_level == execution.MAX_LEVEL:
            return False
        self.memory_level += 1
        return True


def _convs(modules: Iterable[nn.Module]) -> list[nn.Conv2d]:
    return cast("list[nn.Conv2d]", list(modules))


def prepare(model: BiRefNet) -> PreparedBiRefNet:
    """The prepared form of a network; a later change of the network's decoder does not reach it."""
    return PreparedBiRefNet(model)
