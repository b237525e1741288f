"""Validation: the paper's metrics on held-out images at their own size, by the code of inference.

Shapes: H W image.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ..image_ops import resize
from ..inference import Segmenter
from ..metrics import EMeasure, FMeasure, MeanAbsoluteError, Metric, Pair, SMeasure
from ..network import BiRefNet
from ..stop_signal import StopSignal
from .data.augment import SampleRng
from .data.dataset import SegmentationDataset, seed_of
from .distributed import SINGLE_PROCESS, Ranks
from .recipe import SCORES

THUMBNAIL = 192  # longest side of an image on the sample sheet, in pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """One row of a sample sheet, floats in [0, 1].

    Attributes:
        name: Of the pair.
        image: h, w, 3.
        mask: The label, h, w.
        prediction: The network's mask, h, w.
    """

    name: str
    image: Tensor
    mask: Tensor
    prediction: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """Scores, and some of the masks they are of."""

    scores: dict[str, float]
    thumbnails: tuple[Thumbnail, ...]


def validate(
    model: BiRefNet,
    dataset: SegmentationDataset,
    size: tuple[int, int],
    *,
    ranks: Ranks = SINGLE_PROCESS,
    precision: AbstractContextManager | None = None,
    sheet: int = 0,
    stop: StopSignal | None = None,
) -> Validation | None:
    """Scores a network. Each process takes a part of the images; all get the same scores.

    Args:
        model: The network.
        dataset: Without augmentation.
        size: Width and height of the network's input.
        ranks: The processes.
        precision: Context the network runs in; None for none.
        sheet: Number of thumbnails, spread over the data.
        stop: A signal to one of the processes before its last image stops the validation.

    Returns:
        None where a signal stopped it, in every process.
    """
    metrics: list[Metric] = [SMeasure(), FMeasure(), EMeasure(), MeanAbsoluteError()]
    segment, shown, thumbnails = Segmenter(model), _spread(len(dataset), sheet), []
    done = True
    for index in range(ranks.rank, len(dataset), ranks.world_size):
        if stop is not None and stop.requested:
            done = False
            break
        name = dataset.pairs[index].name
        pixels = dataset.read(index, SampleRng(seed_of("validation", name)))  # 4 H W
        with precision or contextlib.nullcontext():
            image = pixels[None, :3].permute(0, 2, 3, 1).to(ranks.device)  # 1 H W 3
            mask = segment(image, size)[0].cpu()  # H W
        pair = Pair(mask.numpy(), pixels[3].numpy())
        for metric in metrics:
            metric.update(pair)
        if index in shown:
            thumbnails.append((index, _thumbnail(name, pixels, mask)))
        ranks.raise_failure()
    gathered = ranks.all_gather_object((metrics, thumbnails) if done else None)
    if None in gathered:
        return None
    for rank, (others, _) in enumerate(gathered):
        for metric, other in zip(metrics, others, strict=True):
            if rank != ranks.rank:
                metric.merge(other)
    scores = {key: value for metric in metrics for key, value in metric.compute().items()}
    rows = sorted((row for _, part in gathered for row in part), key=lambda row: row[0])
    return Validation(scores={key: scores[key] for key in SCORES}, thumbnails=tuple(row for _, row in rows))


def is_better(key: str, score: float, best: float | None) -> bool:
    """Whether a score is better than the best so far; NaN never is."""
    if math.isnan(score):
        return False
    if best is None:
        return True
    return score < best if key == "MAE" else score > best


def _spread(count: int, wanted: int) -> set[int]:
    """Evenly spaced numbers of 0 ... count - 1."""
    wanted = min(count, wanted)
    return {round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)}


def _thumbnail(name: str, pixels: Tensor, mask: Tensor) -> Thumbnail:
    height, width = mask.shape
    scale = THUMBNAIL / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = resize(torch.cat([pixels, mask[None]])[None], size, antialias=True)[0].clamp(0, 1)  # 5 h w
    return Thumbnail(name=name, image=small[:3].permute(1, 2, 0), mask=small[3], prediction=small[4])
