"""The hybrid loss (Sec. 3.5): weighted terms over every supervised map."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..autocast import at_least_float32
from ..errors import ConfigError, ImageError
from ..image_ops import resize
from .boundary import ssim, structure
from .common import check_map
from .gradient import gradient_map
from .pixel import bce, mae, mse
from .region import iou
from .semantic import cross_entropy
from .weights import LossWeights

# Terms on each supervised map: name of the weight -> function of (logits, label).
MAP_TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": bce,
    "iou": iou,
    "ssim": ssim,
    "mae": mae,
    "mse": mse,
    "structure": structure,
}
# Fields of the network's output that each weight of ``LossWeights`` makes the loss read.
OUTPUTS_READ: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(MAP_TERMS, ("logits", "intermediate")),
    "gradient": ("gradient",),
    "ce": ("classes",),
}


class GradientOutput(Protocol):
    """Gradient maps and their labels, one label B, 1, H, W for each map B, 1, h, w."""

    @property
    def predictions(self) -> Sequence[Tensor]: ...
    @property
    def labels(self) -> Sequence[Tensor]: ...


class SupervisedOutput(Protocol):
    """The fields of a network's output that the loss reads; ``BiRefNetOutput`` has them."""

    @property
    def logits(self) -> Tensor: ...
    @property
    def intermediate(self) -> Sequence[Tensor]: ...
    @property
    def gradient(self) -> GradientOutput | None: ...
    @property
    def classes(self) -> Tensor | None: ...


class LossValue(NamedTuple):
    """A loss and its terms.

    Attributes:
        total: Scalar to differentiate.
        terms: Each term with its weight, summed over the maps; detached. Their sum is the total.
    """

    total: Tensor
    terms: dict[str, Tensor]


class HybridLoss:
    """L = 30 BCE + 0.5 IoU + 10 SSIM + 5 CE (Sec. 3.5), plus the gradient maps, with any weights.

    Each map, final and intermediate, is resized to the label and weighs the same; maps are summed, images averaged. The
    loss keeps no state, so that a schedule may make a new one for each epoch.

    Args:
        weights: Weight of each term. ``LossWeights.from_published`` gives the total of the published code.
    """

    def __init__(self, weights: LossWeights) -> None:
        self.weights = weights

    @property
    def required_outputs(self) -> frozenset[str]:
        """Fields of the network's output that the loss reads; parameters of other fields get no gradient."""
        return frozenset(output for name, weight in self.weights.to_dict().items() if weight
                         for output in OUTPUTS_READ[name])  # fmt: skip

    def __call__(self, output: SupervisedOutput, label: Tensor, classes: Tensor | None = None) -> LossValue:
        """Compares an output with its label. Terms that need a part the output does not have are left out.

        Args:
            output: Of the network in train mode; in eval mode the final map alone is compared.
            label: B, 1, H, W in [0, 1]; values beyond are clamped, as published.
            classes: B, int64, the class of each image or -1 (``cross_entropy``).

        Raises:
            ImageError: No output, a label that is not a map, or one of another batch size than the output.
            ConfigError: Classes predicted and weighted, but no class labels; or no term applies.
        """
        label = self._check_label(output, label)
        size = label.shape[-2:]
        maps = [resize(at_least_float32(x), size, align_corners=True) for x in (*output.intermediate, output.logits)]
        weights = self.weights.to_dict()
        terms = {
            name: weights[name] * _sum(term(x, label) for x in maps)
            for name, term in MAP_TERMS.items()
            if weights[name]
        }
        if weights["gradient"] and output.gradient is not None:
            pairs = zip(output.gradient.predictions, output.gradient.labels, strict=True)
            terms["gradient"] = weights["gradient"] * _sum(gradient_map(*pair) for pair in pairs)
        if weights["ce"] and output.classes is not None:
            if classes is None:
                raise ConfigError(f"ce={weights['ce']}, but the data has no class labels. Set the weight ce to 0.")
            terms["ce"] = weights["ce"] * cross_entropy(output.classes, classes)
        if not terms:
            raise ConfigError("all weighted terms need a class head or gradient maps; this output has none.")
        total = torch.stack(list(terms.values())).sum()
        return LossValue(total, {name: value.detach() for name, value in terms.items()})

    @staticmethod
    def _check_label(output: SupervisedOutput, label: Tensor) -> Tensor:
        if not hasattr(output, "intermediate"):
            raise ImageError(
                f"found a {type(output).__name__}, expected the output of a BiRefNet; single maps are compared by the "
                "functions of birefnet_core.losses, such as bce."
            )
        check_map(label, "the label")
        for x in (*output.intermediate, output.logits):
            check_map(x, "logits")
            if len(x) != len(label):
                raise ImageError(f"the label has {len(label)} images, but the network gave {len(x)}.")
        return at_least_float32(label).clamp(0, 1)


def _sum(values: Iterable[Tensor]) -> Tensor:
    """The sum, added from left to right; ``sum`` would begin with a number."""
    return functools.reduce(torch.add, values)
