"""Semantic level: cross entropy on the class head (Eq. 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..autocast import at_least_float32
from ..errors import ImageError
from .common import check_tensor

NO_CLASS = -1  # label of an image whose class is not known


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross entropy of the auxiliary classification (Eq. 5): mean over the images whose class is known.

    Args:
        logits: B, C.
        label: B, integers: the class, or -1 where it is not known.

    Returns:
        A scalar >= 0; 0, with gradients of 0, where no class is known.

    Raises:
        ImageError: Other shapes or types, or a class the head does not have.
    """
    check_tensor(logits, "logits", "B, C")
    check_tensor(label, "the class labels", "B")
    if logits.ndim != 2 or label.shape != logits.shape[:1] or label.dtype != torch.int64:
        raise ImageError(
            "cross entropy takes logits B, C and int64 labels B; "
            f"found {tuple(logits.shape)} and {label.dtype} {tuple(label.shape)}."
        )
    if label.numel() and (label.min() < NO_CLASS or label.max() >= logits.shape[1]):
        raise ImageError(
            f"class labels must be in 0 ... {logits.shape[1] - 1}, or {NO_CLASS} where the class is not known; "
            f"found {label.min().item()} ... {label.max().item()}."
        )
    total = F.cross_entropy(at_least_float32(logits), label, ignore_index=NO_CLASS, reduction="sum")
    return total / (label != NO_CLASS).sum().clamp(min=1)
