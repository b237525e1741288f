"""From folders to the data sets of a training: found, validated, split."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from ...checkpoints.catalogue import find_entry
from ...errors import DatasetError
from ...text import enumerate_names
from ..distributed import SINGLE_PROCESS, Ranks
from ..recipe import Recipe
from ..run_folder import RunFolder
from ..run_inputs import check_data_stay
from .augment import NO_AUGMENTATION
from .dataset import SegmentationDataset
from .folders import Pair, TrainingData, class_labels, find_sets, find_training, fingerprint, hold_out, list_backgrounds
from .preflight import MOST_NAMES, Progress, validate_backgrounds, validate_dataset

# Words in the names of folders that tell a split of the data; the short ones are DIS5K's.
_TRAINING_WORDS = {"train", "training", "tr"}
_HELD_OUT_WORDS = {"val", "valid", "validation", "test", "testing", "vd", "te"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Datasets:
    """The data of a training.

    Attributes:
        training: Pairs to train on, augmented.
        validation: Pairs to validate on; may be empty.
        labels: Numbers of the classes; empty without them.
        text: Report of the validation of the data.
    """

    training: SegmentationDataset
    validation: SegmentationDataset
    labels: Mapping[str, int]
    text: str

    @property
    def fingerprint(self) -> str:
        """Identifies the data when a training is resumed."""
        return fingerprint(self.training.pairs, self.validation.pairs)

    @property
    def fingerprint_0_1(self) -> str:
        """That of version 0.1, which is the same wherever the first pair to validate on is."""
        return fingerprint((*self.training.pairs, *self.validation.pairs))

    @property
    def background_fingerprint(self) -> str:
        """The same for the backgrounds."""
        return fingerprint(Pair(name=path.name, image=path, mask=None) for path in self.training.backgrounds)


def load_datasets(
    recipe: Recipe,
    data: TrainingData,
    ranks: Ranks = SINGLE_PROCESS,
    progress: Progress | None = None,
    *,
    folder: RunFolder | None = None,
    resume: bool = False,
) -> Datasets:
    """Finds the pairs, validates every one, and splits them.

    Args:
        recipe: For the split, the augmentation and the classes.
        data: The folders.
        ranks: The processes; each validates a part.
        progress: Called after each pair of this process.
        folder: Where results will be written, which must replace none of the files; None for nowhere.
        resume: Whether the training in that folder goes on.

    Raises:
        ConfigError: A file that is read would be replaced.
        DatasetError: Nothing found, or something that cannot be trained on.
    """
    listed = None
    if ranks.is_main:  # one process lists the folders, so that all have the same list
        listed = find_training(data), find_sets(data.validation), list_backgrounds(data.backgrounds)
        if folder is not None:
            check_data_stay(folder, recipe, data, listed[:2], listed[2], resume=resume)
    found, found_validation, backgrounds = ranks.broadcast_object(listed)
    matting = recipe.matting or _is_for_matting(recipe.init)
    report = validate_dataset(found, matting=matting, ranks=ranks, progress=progress)
    pairs, contents = report.check(skip_bad=data.skip_bad), report.contents
    text = f"training data: {report.text()}"
    if data.validation:
        report = validate_dataset(found_validation, matting=matting, ranks=ranks, progress=progress)
        training, validation = pairs, report.check(skip_bad=data.skip_bad)
        text += f"\nvalidation data: {report.text()}"
        both = {pair.image.resolve() for pair in training} & {pair.image.resolve() for pair in validation}
        if both:
            raise DatasetError(f"{len(both)} images are in both training and validation ({next(iter(both))}).")
        known, others = set(contents.values()), report.contents
        copies = [pair.name for pair in validation if others[pair] in known]
        if copies:
            text += f"\nwarning: {len(copies)} images to validate on are trained on, too ({enumerate_names(copies)})"
    else:
        text += _split_warning(pairs)
        training, validation = hold_out(pairs, recipe.val_fraction, contents)
        text += f"\n{len(training)} pairs to train on, {len(validation)} held out for validation"
        if validation:
            text += f" ({enumerate_names([pair.name for pair in validation], MOST_NAMES)})"
        if same := report.same(training):
            raise DatasetError(
                f"every mask to train on is {same}, apart from those held out for validation: nothing could be "
                "learned. Add pairs, or choose those to validate on by --val-data."
            )
        if same := report.same(validation):
            text += (
                f"\nwarning: every mask held out for validation is {same}: scores prefer a network that finds "
                f"{'nothing' if same == 'empty' else 'everything'}. Choose the pairs to validate on by --val-data"
            )
    if (count := recipe.batch_size * ranks.world_size) > len(training):
        text += (
            f"\nwarning: a batch of {count} is more than the {len(training)} images to train on, which are repeated in "
            f"it: a smaller batch_size learns the same in less time"
        )
    if backgrounds:
        backgrounds = validate_backgrounds(backgrounds, skip_bad=data.skip_bad, ranks=ranks)
        text += f"\n{len(backgrounds)} backgrounds"
        own = {pair.image.resolve() for pair in (*training, *validation)} & {path.resolve() for path in backgrounds}
        if own:
            text += f"\nwarning: {len(own)} backgrounds are images of the data; their objects have no mask there"
        if not recipe.augment.composite_background and all(pair.mask for pair in (*training, *validation)):
            text += "\nwarning: --backgrounds has no effect without cut-outs: give augment.composite_background"
    elif recipe.augment.composite_background:
        text += "\nwarning: augment.composite_background has no effect without --backgrounds DIR"
    labels = class_labels(pairs) if recipe.classes != "none" else {}
    return Datasets(
        training=SegmentationDataset(training, recipe.augment, backgrounds, labels),
        validation=SegmentationDataset(validation, NO_AUGMENTATION, backgrounds),
        labels=labels, text=text,
    )  # fmt: skip


def _split_warning(pairs: Sequence[Pair]) -> str:
    """A line where folders are named after a split of the data, which is not known otherwise; "" elsewhere."""
    kinds: dict[str, dict[str, int]] = {"train": {}, "other": {}}
    for pair in pairs:
        for folder in pair.name.split("/")[:-1]:
            words = set(re.findall("[a-z]+", folder.lower()))
            kind = "other" if words & _HELD_OUT_WORDS else "train" if words & _TRAINING_WORDS else None
            if kind is not None:
                kinds[kind][folder] = kinds[kind].get(folder, 0) + 1
    others = kinds["other"]
    if not kinds["train"] or not others:
        return ""
    return (
        f"\nwarning: the {sum(others.values())} pairs in {enumerate_names(sorted(others))} are taken as those in "
        f"{enumerate_names(sorted(kinds['train']))} are, by chance to train on or to validate on: give the folders "
        "apart, by --data and --val-data"
    )


def _is_for_matting(init: str) -> bool:
    """Whether a checkpoint is one of the catalogue for matting."""
    entry = find_entry(init) if init else None
    return entry is not None and entry.purpose == "matting"
