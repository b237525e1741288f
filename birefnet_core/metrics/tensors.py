"""Scores of masks in memory, as tensors or arrays.

Shapes: B batch, H W image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError
from .pair import Pair
from .protocol import Protocol

if TYPE_CHECKING:
    from torch import Tensor


def score_masks(
    masks: Tensor | np.ndarray,
    truths: Tensor | np.ndarray,
    keys: Sequence[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, float]:
    """Scores masks against ground truths by the protocol of the paper (Sec. 4.2); means over the batch.

    Args:
        masks: B, H, W in [0, 1], tensor or array; resized to the truths if sizes differ.
        truths: B, h, w in [0, 1]; one may go with many masks and the reverse.
        keys: Scores to take, from ``KEYS`` and ``MATTING_KEYS``; None for all of ``KEYS``.
        progress: Called with (pairs done, pairs in all).

    Returns:
        The scores in the order of ``keys``.

    Raises:
        ImageError: Wrong shapes or values, or numbers of masks that do not fit.
        ConfigError: Unknown keys.
    """
    predicted, true = _arrays(masks, "masks"), _arrays(truths, "ground truths")
    if len(predicted) != len(true) and 1 not in (len(predicted), len(true)):
        raise ImageError(f"there are {len(predicted)} masks and {len(true)} ground truths; give as many, or one.")
    protocol = Protocol(keys=None if keys is None else tuple(keys))
    metrics, total = protocol.metrics(), max(len(predicted), len(true))
    for n in range(total):
        if progress:
            progress(n, total)
        pair = Pair(predicted[n % len(predicted)], true[n % len(true)])
        for metric in metrics:
            metric.update(pair)
    if progress:
        progress(total, total)
    scores = protocol.pick({key: score for metric in metrics for key, score in metric.compute().items()})
    return scores if keys is None else {key: scores[key] for key in keys}


def _arrays(masks: Tensor | np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(masks if isinstance(masks, np.ndarray) else masks.detach().cpu().float())
    if array.ndim != 3 or array.size == 0:
        raise ImageError(f"{name} have shape {array.shape}; expected B, H, W with at least one pixel.")
    return np.clip(array, 0, 1) if np.issubdtype(array.dtype, np.floating) else array
