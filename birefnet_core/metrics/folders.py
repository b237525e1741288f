"""Which files of two folders belong together, and where the sets of a collection are."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError
from ..image_formats import all_suffixes
from ..text import enumerate_names, printable

_GROUND_TRUTH_FOLDERS = ("gt", "gts", "mask", "masks", "ground_truth")
_IMAGE_FOLDERS = ("im", "img", "imgs", "image", "images")
LISTED = 10  # names spelled out in a message


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Predictions and ground truths of one folder each, paired by stem.

    Attributes:
        pairs: (stem, prediction, ground truth), sorted by stem.
        missing: Ground truths without a prediction.
        extra: Predictions without a ground truth.
    """

    pairs: tuple[tuple[str, Path, Path], ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


def list_images(folder: Path) -> dict[str, Path]:
    """The images directly in a folder, by stem with composed accents, sorted; hidden files are left out.

    Raises:
        DatasetError: no such folder, no image in it, or two images of one stem.
    """
    if not os.path.isdir(folder):
        raise DatasetError(f"{printable(folder)} is not a folder; give the folder that holds the images.")
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{printable(folder)}: the folder cannot be listed ({error.strerror}).") from error
    found: dict[str, Path] = {}
    suffixes = all_suffixes()
    for path in paths:
        if path.name.startswith(".") or path.suffix.lower() not in suffixes or not os.path.isfile(path):
            continue
        stem = unicodedata.normalize("NFC", path.stem)  # Macs and others write the same accents differently
        if stem in found:
            raise DatasetError(f"{folder} holds both {found[stem].name} and {path.name}; keep one per name.")
        found[stem] = path
    if not found:
        inner = sorted(path.name for path in paths if os.path.isdir(path))
        hint = f" It has the folders {enumerate_names(inner, LISTED)}; is it one of these?" if inner else ""
        raise DatasetError(f"{folder} holds no image.{hint}")
    return found


def pair_folders(predictions: Path, ground_truths: Path, *, allow_missing: bool = False) -> Pairing:
    """Pairs two folders by stem; formats may differ.

    Args:
        allow_missing: Whether ground truths without prediction, and the reverse, are left out instead of refused.

    Raises:
        DatasetError: the folders do not pair up, or not at all.
    """
    predicted, true = list_images(predictions), list_images(ground_truths)
    common = [stem for stem in true if stem in predicted]
    missing = tuple(stem for stem in true if stem not in predicted)
    extra = tuple(stem for stem in predicted if stem not in true)
    lines = []
    if missing:
        named = enumerate_names(missing, LISTED)
        lines.append(f"{len(missing)} of {len(true)} ground truths have no prediction: {named}.")
    if extra:
        lines.append(f"{len(extra)} predictions have no ground truth: {enumerate_names(extra, LISTED)}.")
    if not common or (lines and not allow_missing):
        advice = (
            "Files pair by name without ending; allow missing pairs (--allow-missing) to score the others."
            if common
            else "No file of the two folders shares a name; files pair by name without ending."
        )
        raise DatasetError(" ".join([f"{predictions} and {ground_truths} do not pair up.", *lines, advice]))
    return Pairing(pairs=tuple((stem, predicted[stem], true[stem]) for stem in common), missing=missing, extra=extra)


def ground_truth_folder(root: Path, set_name: str) -> Path:
    """Where a set's ground truths are: ``root/set/gt`` (the field's convention), ``root/gt/set`` or ``root/set``."""
    return _set_folder(root, set_name, _GROUND_TRUTH_FOLDERS)


def image_folder(root: Path, set_name: str) -> Path:
    """Where a set's images are: ``root/set/im`` (the field's convention), ``root/im/set`` or ``root/set``."""
    return _set_folder(root, set_name, _IMAGE_FOLDERS)


def set_name_of(ground_truths: Path) -> str:
    """What a single folder of ground truths is called: its own name, or its parent's if it is just ``gt``."""
    folder = ground_truths.resolve()
    return folder.parent.name if folder.name.lower() in _GROUND_TRUTH_FOLDERS else folder.name


def _set_folder(root: Path, set_name: str, kinds: tuple[str, ...]) -> Path:
    for parent, names in ((root / set_name, kinds), (root, kinds)):
        inner = {path.name.lower(): path for path in parent.iterdir() if path.is_dir()} if os.path.isdir(parent) else {}
        for name in names:
            if name in inner:
                folder = inner[name] if parent != root else inner[name] / set_name
                if os.path.isdir(folder):
                    return folder
    if os.path.isdir(root / set_name):
        return root / set_name
    raise DatasetError(f"{root} has no set {set_name}; expected {root / set_name / kinds[0]} or {root / set_name}.")
