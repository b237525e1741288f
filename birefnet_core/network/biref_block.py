"""BiRef block (Sec. 3.4, Fig. 4): a reconstruction block between inward and outward reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import Tensor, nn

from ..config import BiRefNetConfig
from .inward_reference import InwardReference
from .outward_reference import OutwardReference
from .reconstruction_block import decoder_block


class BiRefBlockOutput(NamedTuple):
    """What one BiRef block gives.

    Attributes:
        feature: B, C_out, h, w, weighted by the gradient attention; goes on to the next stage.
        reconstructed: B, C_out, h, w before the attention; the stage's prediction reads this one. In inference the
            attention works in place, and this is the same as ``feature``.
        gradient: Logits B, 1, h, w of the gradient map; None outside training and without OutRef.
    """

    feature: Tensor
    reconstructed: Tensor
    gradient: Tensor | None


class BiRefBlock(nn.Module):
    """One stage of the reconstruction module.

    Args:
        channels: Channels of the stage's input, without the inward reference.
        out_channels: Channels of its output.
        stride: Input pixels per cell of the stage's map.
        inward_channels: Channels of the inward reference.
        outward: Whether this stage has an outward reference, where the configuration has one at all.
        config: The network's configuration.
    """

    def __init__(
        self,
        *,
        channels: int,
        out_channels: int,
        stride: int,
        inward_channels: int,
        outward: bool,
        config: BiRefNetConfig,
    ) -> None:
        super().__init__()
        self.inward = InwardReference(stride, inward_channels) if config.inward_reference else None
        in_channels = channels + (inward_channels if config.inward_reference else 0)
        self.block = decoder_block(in_channels, out_channels, config)
        outward = outward and config.outward_reference
        self.outward = OutwardReference(out_channels, config.batch_norm) if outward else None

    def forward(self, maps: Iterable[Tensor], image: Tensor) -> BiRefBlockOutput:
        """Runs the stage.

        Args:
            maps: The stage's input: one or more maps whose channels, side by side, are B, C, h, w.
            image: The network's input, B, 3, H, W.
        """
        reconstructed = self.block(self._with_reference(maps, image))
        if self.outward is None:
            return BiRefBlockOutput(reconstructed, reconstructed, None)
        feature, gradient = self.outward(reconstructed)
        return BiRefBlockOutput(feature, reconstructed, gradient)

    def _with_reference(self, maps: Iterable[Tensor], image: Tensor) -> Iterator[Tensor]:
        """The maps, and after them the inward reference, which is made when the maps have been read."""
        yield from maps
        if self.inward is not None:
            yield self.inward(image)
