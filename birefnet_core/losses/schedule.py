"""Region-level fine-tuning, RLFT (Sec. 3.6, Tab. 3)."""

from __future__ import annotations

from ..errors import ConfigError
from .weights import LossWeights


def region_fine_tuning(weights: LossWeights, epoch: int, *, epochs: int, last: int = 20) -> LossWeights:
    """The weights of an epoch: as given, and in the last epochs the IoU loss only.

    A function of the epoch alone, so that a resumed training has the weights of one that never stopped. The published
    code instead changes the weights at the start of every epoch of the tail, in place: BCE to 0, IoU to a half and MAE
    to 0.9 of what they were (matting: MSE and SSIM to 0.9), again and again, and forgets it all on resuming. The
    paper's IoU-only tail is implemented here.

    Args:
        weights: Of the epochs before the tail; their IoU weight is kept in it.
        epoch: Counted from 0.
        epochs: Of the whole training.
        last: Length of the tail, 20 in the paper; 0 for none.

    Raises:
        ConfigError: Epochs out of range, or a tail without an IoU weight.
    """
    _check_count("epochs", epochs, 1)
    _check_count("last", last, 0, epochs)
    _check_count("epoch", epoch, 0, epochs - 1)
    if last and not weights.iou:
        raise ConfigError(f"the last {last} epochs train the IoU loss only, but iou=0: give it a weight or set last=0.")
    return LossWeights(iou=weights.iou) if epoch >= epochs - last else weights


def _check_count(name: str, value: int, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        bound = f">= {low}" if high is None else f"in {low} ... {high}"
        raise ConfigError(f"region-level fine-tuning: {name}={value!r}; expected an integer {bound}.")
