"""What a training reads is never replaced by what it writes into its folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..checkpoints.catalogue import WEIGHT_SUFFIXES
from ..errors import ConfigError
from ..files import file_identity
from .data.folders import EXAMPLES, FoundPairs, TrainingData
from .recipe import Recipe
from .run_folder import CURVES, REPORT, SAMPLES, RunFolder


def check_data_stay(
    folder: RunFolder, recipe: Recipe, data: TrainingData, found: Sequence[FoundPairs], backgrounds: Iterable[Path],
    *, resume: bool,
) -> None:  # fmt: skip
    """Checks, before any work, that a training writes over nothing that it reads.

    Args:
        folder: Of the results.
        recipe: For the checkpoint and the encoder that the training begins with.
        data: The folders.
        found: What was found in them.
        backgrounds: The same.
        resume: Whether the training in the folder goes on.

    Raises:
        ConfigError: A file that is read would be replaced.
    """
    files = [*backgrounds, *(file for part in found for file in part.files)]
    _check_samples(folder, {*_roots(data), *(file.parent for file in files)})
    if not (resume and os.path.exists(folder.last)):  # else all weights are in last.pt
        files += [*_weight_files(recipe.init), *_weight_files(recipe.encoder)]
    check_files_stay(folder, files)


def check_files_stay(folder: RunFolder, files: Iterable[Path]) -> None:
    """Checks that none of some files, by whatever names and links, is one that a training writes.

    What is compared is what the names lead to on the disk, which knows whether it ignores case.

    Raises:
        ConfigError: One is.
    """
    written = {_identity(path): path for path in _outputs(folder) if os.path.exists(path)}
    for file in files if written else ():
        if (output := written.get(_identity(file))) is not None:
            raise ConfigError(
                f"{file} is read by this training and would be replaced by {output.relative_to(folder.path)} of "
                f"{folder.path}, the folder of its results. Give --out another folder."
            )


def _outputs(folder: RunFolder) -> Iterator[Path]:
    """The files that a training replaces in its folder; those of TensorBoard always have new names."""
    yield from (folder.last, folder.best, folder.adapter, folder.metrics, folder.recipe)
    yield from (folder.path / name for name in (REPORT, CURVES, EXAMPLES))
    yield from (sheet.with_name(sheet.name.lower()) for sheet in folder.sheets())


def _check_samples(folder: RunFolder, read: Iterable[Path]) -> None:
    """Refuses a link in the place of ``samples/`` that leads to data: sheets would lie among them, or replace them."""
    samples = folder.path / SAMPLES
    place = os.path.realpath(samples)
    is_link = os.path.isdir(samples) and place != os.path.join(os.path.realpath(folder.path), SAMPLES)
    if is_link and _identity(samples) in {_identity(other) for other in read}:
        raise ConfigError(
            f"{samples} leads to {place}, whose images are read by this training, and would be written to. Remove "
            "that link, or give --out another folder."
        )


def _weight_files(source: str) -> list[Path]:
    """The files that a checkpoint or encoder may be read from; none for names of published ones."""
    path = Path(os.path.expanduser(source)) if source else None
    if path is None or not os.path.exists(path):
        return []
    try:
        return [p for p in path.iterdir() if p.suffix.lower() in WEIGHT_SUFFIXES] if path.is_dir() else [path]
    except OSError:  # loading it says why
        return []


def _roots(data: TrainingData) -> list[Path]:
    backgrounds = [data.backgrounds] if data.backgrounds else []
    return [*data.sets, *data.images, *data.masks, *data.validation, *backgrounds]


def _identity(path: Path) -> object:
    """What a path leads to, by its number on the disk, or where that has none, by its name."""
    return file_identity(path) or os.path.realpath(path).casefold()
