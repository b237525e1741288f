"""From folders to what is trained on: found, looked at, split."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

from ..errors import DatasetError
from .data import Pair, TrainingData, class_labels, find_sets, find_training, fingerprint, hold_out, list_backgrounds
from .preflight import Progress, preflight
from .recipe import Recipe

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is trained on.

    Attributes:
        training: Pairs to train on.
        validation: Pairs to validate on.
        backgrounds: Images to put subjects on.
        labels: Numbers of the classes; empty without them.
        text: The preflight's report.
    """

    training: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    backgrounds: tuple[Path, ...]
    labels: Mapping[str, int]
    text: str

    @property
    def fingerprint(self) -> str:
        """Tells data apart."""
        return fingerprint((*self.training, *self.validation))


def prepare(recipe: Recipe, data: TrainingData, progress: Progress | None = None) -> Prepared:
    """Finds the pairs, looks at every one, and splits them.

    Raises:
        DatasetError: Nothing found, or something that cannot be trained on.
    """
    matting = "matting" in f"{recipe.init} {recipe.name}".lower()
    found = preflight(find_training(data), matting=matting, progress=progress)
    pairs = found.check(skip_bad=data.skip_bad)
    text = f"training data: {found.text()}"
    if data.validation:
        look = preflight(find_sets(data.validation), matting=matting, progress=progress)
        training, validation = pairs, look.check(skip_bad=data.skip_bad)
        text += f"\nvalidation data: {look.text()}"
        both = {pair.image.resolve() for pair in training} & {pair.image.resolve() for pair in validation}
        if both:
            raise DatasetError(f"{len(both)} images are in both training and validation ({next(iter(both))}).")
    else:
        training, validation = hold_out(pairs, recipe.val_fraction)
        text += f"\n{len(training)} pairs to train on, {len(validation)} held out for validation"
    backgrounds = list_backgrounds(data.backgrounds)
    if backgrounds:
        text += f"\n{len(backgrounds)} backgrounds"
    elif recipe.augment.composite_background:
        text += "\nwarning: augment.composite_background has no effect without --backgrounds DIR"
    for line in text.splitlines():
        logger.info("%s", line)
    return Prepared(
        training=training, validation=validation, backgrounds=backgrounds, text=text,
        labels=class_labels(pairs) if recipe.classes != "none" else {},
    )  # fmt: skip
