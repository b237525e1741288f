"""Validation: the paper's metrics on images held out, at their own size, through the same path as inference.

Shapes: H W image.
"""

from __future__ import annotations

import dataclasses
import math
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ..inference import Segmenter
from ..metrics import EMeasure, FMeasure, MeanAbsoluteError, Metric, Pair, SMeasure
from ..network import BiRefNet
from .augment import Chance, resize
from .dataset import SegmentationDataset, seed_of
from .distributed import World
from .recipe import SCORES

THUMBNAIL = 192  # longest side of an image on the sample sheet, in pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """One line of a sample sheet: bytes of image h, w, 3, mask and prediction h, w.

    Attributes:
        name: Of the pair.
        image: As the network saw it.
        mask: The label.
        prediction: The network's mask.
    """

    name: str
    image: Tensor
    mask: Tensor
    prediction: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """Scores, and some of the masks they stand for."""

    scores: dict[str, float]
    thumbnails: tuple[Thumbnail, ...]


def validate(
    model: BiRefNet,
    dataset: SegmentationDataset,
    size: tuple[int, int],
    *,
    world: World,
    precision: AbstractContextManager,
    sheet: int = 0,
) -> Validation:
    """Scores a network. Each process takes a share of the images; all get the same scores.

    Args:
        model: The network.
        dataset: Without augmentation.
        size: Width and height of the network's input.
        world: The processes.
        precision: Context the network runs in.
        sheet: Thumbnails wanted, spread over the data.
    """
    metrics: list[Metric] = [SMeasure(), FMeasure(), EMeasure(), MeanAbsoluteError()]
    segment, shown, thumbnails = Segmenter(model), _spread(len(dataset), sheet), []
    for index in range(world.rank, len(dataset), world.size):
        name = dataset.pairs[index].name
        pixels = dataset.read(index, Chance(seed_of("validation", name)))  # 4 H W
        with precision:
            image = pixels[None, :3].permute(0, 2, 3, 1).to(world.device)
            mask = segment(image, size)[0].cpu()  # H W
        pair = Pair(mask.numpy(), pixels[3].numpy())
        for metric in metrics:
            metric.update(pair)
        if index in shown:
            thumbnails.append((index, _thumbnail(name, pixels, mask)))
    gathered = world.gather((metrics, thumbnails))
    for others, _ in gathered[:world.rank] + gathered[world.rank + 1 :]:
        for metric, other in zip(metrics, others, strict=True):
            metric.merge(other)
    scores = {key: value for metric in metrics for key, value in metric.compute().items()}
    lines = sorted((line for _, part in gathered for line in part), key=lambda line: line[0])
    return Validation(scores={key: scores[key] for key in SCORES}, thumbnails=tuple(line for _, line in lines))


def is_better(key: str, score: float, best: float | None) -> bool:
    """Whether a score beats the best so far; a score that is no number never does."""
    if math.isnan(score):
        return False
    if best is None:
        return True
    return score < best if key == "MAE" else score > best


def _spread(count: int, wanted: int) -> set[int]:
    wanted = min(count, wanted)
    return {round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)}


def _thumbnail(name: str, pixels: Tensor, mask: Tensor) -> Thumbnail:
    height, width = mask.shape
    scale = THUMBNAIL / max(height, width)
    small = resize(torch.cat([pixels, mask[None]]), (max(1, round(width * scale)), max(1, round(height * scale))))
    small = (small.clamp(0, 1) * 255).round().to(torch.uint8)
    return Thumbnail(name=name, image=small[:3].permute(1, 2, 0), mask=small[3], prediction=small[4])
