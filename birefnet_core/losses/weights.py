"""Weights of the terms (Sec. 3.5), and the published presets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..text import did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weight of each term of ``HybridLoss``. A term of weight 0 is not computed.

    Attributes:
        bce: Binary cross entropy of each supervised map (Eq. 2).
        iou: Intersection over union of each supervised map (Eq. 3), batch mean.
        ssim: Structural similarity of each supervised map (Eq. 4), 1 - SSIM.
        mae: Mean absolute error of each supervised map.
        mse: Mean squared error of each supervised map.
        structure: Structure loss of each supervised map, in its proper form.
        ce: Cross entropy of the class head (Eq. 5), where the network has one.
        gradient: Cross entropy of each gradient map (Sec. 3.4), where the network has them.

    Raises:
        ConfigError: A weight that is negative, not finite or not a number; or all of them 0.
    """

    bce: float = 0.0
    iou: float = 0.0
    ssim: float = 0.0
    mae: float = 0.0
    mse: float = 0.0
    structure: float = 0.0
    ce: float = 0.0
    gradient: float = 0.0

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise ConfigError(f"loss weight {name}={value!r}: expected a finite number >= 0.")
            object.__setattr__(self, name, float(value))
        if not any(self.to_dict().values()):
            raise ConfigError("all loss weights are 0: nothing would be learned. Give at least one of them.")

    def replace(self, **changes: float) -> LossWeights:
        """A copy with some weights changed, validated like any other."""
        return LossWeights.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, float]:
        """Plain values, for recipes and metadata."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LossWeights:
        """The inverse of ``to_dict``; terms left out weigh 0.

        Raises:
            ConfigError: A term this version does not know, or a weight out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(_unknown("loss term", name, known))
        return cls(**values)

    def from_published(self, batch_size: int) -> LossWeights:
        """These weights, read in the units of the published code, expressed in ours.

        The published code sums IoU over the batch of a device, so that its weight of 0.5 at batch size 4 is one of 2
        on the mean; and it halves 1 - SSIM, so that its 10 is our 5. With these factors the total equals the published
        one; without them the weights are those of Sec. 3.5, for the equations of the paper.

        Args:
            batch_size: Images of a device's batch in the training to follow; 4 in the paper.

        Raises:
            ConfigError: Not a positive integer.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r}: expected a positive integer.")
        return self.replace(iou=self.iou * batch_size, ssim=self.ssim / 2)


def _unknown(what: str, name: object, known: list[str]) -> str:
    return f"{what} {name!r} is not known; choose from {', '.join(map(repr, known))}.{did_you_mean(name, known)}"


_PAPER = LossWeights(bce=30, iou=0.5, ssim=10, ce=5, gradient=1)  # Sec. 3.5; gradient maps: published

LOSS_PRESETS: dict[str, LossWeights] = {
    "dis5k": _PAPER,
    "hrsod": _PAPER,
    "cod": _PAPER,
    "general": _PAPER.replace(mae=100),  # published
    "matting": _PAPER.replace(iou=0, mae=100),  # published
}


def loss_preset(name: str) -> LossWeights:
    """The weights of a task, for the equations of the paper (see ``LossWeights.from_published``).

    Raises:
        ConfigError: No such preset.
    """
    if name not in LOSS_PRESETS:
        raise ConfigError(_unknown("loss preset", name, list(LOSS_PRESETS)))
    return LOSS_PRESETS[name]
