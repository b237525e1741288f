"""Scores of masks in memory, as tensors or arrays.

Shapes: B batch, H W image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import ImageError
from ..image_ops import check_masks
from .pair import Pair
from .protocol import Protocol


def score_masks(
    masks: Tensor | np.ndarray,
    truths: Tensor | np.ndarray,
    keys: Sequence[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, float]:
    """Scores masks against ground truths by the protocol of the paper (Sec. 4.2); means over the batch.

    Args:
        masks: B, H, W in [0, 1], tensor or array; resized to the truths if sizes differ. Arrays may be bytes (uint8) or
            uint16, too.
        truths: B, h, w, the same; one may go with many masks and the reverse.
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
    """Masks B, H, W as ``Pair`` reads them one by one: floats in [0, 1], or bools or integers of an array."""
    if not isinstance(masks, Tensor | np.ndarray):
        raise ImageError(f"{name} are {type(masks).__name__}, expected a tensor or an array B, H, W.")
    shape = tuple(masks.shape)
    if len(shape) != 3 or 0 in shape:
        raise ImageError(f"{name} have shape {shape}; expected B, H, W with at least one pixel.")
    if isinstance(masks, np.ndarray):
        if not np.issubdtype(masks.dtype, np.floating):
            return masks
        masks = torch.from_numpy(masks.astype(np.float32))
    return check_masks(masks, name).cpu().numpy()
