"""The network in a training's ``last.pt``: the one that the training validates."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoint_info import training_size_to_text
from ..text import printable

logger = logging.getLogger(__name__)

_KEYS = {"format", "recipe", "position", "model", "optimizer", "ema"}  # of every version


def network_of_training(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """The weights of a training's state and what it says of them; None for other content.

    Where there is a moving average, it is taken, as ``best.safetensors`` does; it lacks weights that are not trained.

    Args:
        path: Of the file, for messages.
        content: What it holds.
    """
    if not isinstance(content, Mapping) or not content.keys() >= _KEYS:
        return None
    model, ema = _tensors(content["model"]), content["ema"]
    if not model:
        return None
    average = _tensors(ema.get("state")) if isinstance(ema, Mapping) else {}
    if average and average.keys() <= model.keys():
        logger.warning(
            "%s: the moving average of its weights is taken, as in the training's validations", printable(path)
        )
        model |= average
    return model, _metadata(content)


def _tensors(values: Any) -> dict[str, Tensor]:
    """Named tensors; none where there is anything else."""
    whole = isinstance(values, Mapping) and all(isinstance(n, str) and isinstance(v, Tensor) for n, v in values.items())
    return dict(values) if whole else {}


def _metadata(content: Mapping[str, Any]) -> dict[str, str]:
    """What a state says of its network, in the form of ``save.network_metadata``; of version 0.1 the size alone."""
    texts = content.get("network")
    if isinstance(texts, Mapping) and all(isinstance(text, str) for pair in texts.items() for text in pair):
        return dict(texts)
    try:
        width, height = content["recipe"]["size"]
        return {"birefnet_format": "", "training_size": training_size_to_text(width, height)}
    except (KeyError, TypeError, ValueError):
        return {}
