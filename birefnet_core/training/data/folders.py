"""Folders -> pairs of an image and its mask."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...errors import DatasetError
from ...image_formats import IMAGE_SUFFIXES, OPTIONAL_READERS, all_suffixes, image_suffixes
from ...images import find_images, is_hidden_folder, list_images

# Names of the two folders of a data set; DIS5K's first.
LAYOUTS = (("im", "gt"), ("images", "masks"), ("image", "mask"), ("imgs", "gts"), ("img", "gt"), ("imgs", "masks"))

# Suffixes that a mask's name may have after its image's.
_MASK_SUFFIXES = ("", "_mask", "-mask", "_masks", "_gt", "_alpha", "_matte", "_label", "_seg")

EXAMPLES = "data_examples.png"  # what a training writes of its data into its folder
# Beside recipe.toml, each of these tells the folder of a training.
_RUN_FILES = ("last.pt", "metrics.jsonl", "best.safetensors")
_RUN_IMAGES = ("samples", "masks", "curves.png", "comparison.png", EXAMPLES)

# DIS5K names its files group#Group#class#Class#photo.
_DIS5K_NAME = re.compile(r"^\d+#[^#]+#\d+#(?P<name>[^#]+)#")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its mask.

    Attributes:
        name: For messages: the name of its set, and its path without suffix.
        image: The image's file.
        mask: The mask's file; None where the image's alpha channel is the mask.
    """

    name: str
    image: Path
    mask: Path | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Folders to train on.

    Attributes:
        sets: Folders, each with a pair of folders as ``LAYOUTS``, or of RGBA images, or of such folders.
        images: Folders of images.
        masks: Folders of their masks, one for each of ``images``.
        validation: Folders as ``sets``, for validation; () holds out a part of the training data.
        backgrounds: Folder of images that subjects are put on; None for none.
        skip_bad: Leave out files that cannot be used, instead of stopping.
    """

    sets: tuple[Path, ...] = ()
    images: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()
    backgrounds: Path | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        for name in ("sets", "images", "masks", "validation"):
            object.__setattr__(self, name, tuple(Path(os.path.expanduser(p)) for p in getattr(self, name)))
        if self.backgrounds is not None:
            object.__setattr__(self, "backgrounds", Path(os.path.expanduser(self.backgrounds)))
        if len(self.images) != len(self.masks):
            raise DatasetError(
                f"{len(self.images)} folders of images but {len(self.masks)} of masks: give one for each."
            )
        if not self.sets and not self.images:
            raise DatasetError("no data: give --data DIR, or --images DIR and --masks DIR.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundPairs:
    """Pairs found in folders, and the files that are in none.

    Attributes:
        pairs: In the order of their names.
        unpaired_images: Images without a mask.
        unpaired_masks: Masks without an image.
        links: Links to folders, which are not followed.
        others: Images of formats that are not taken.
    """

    pairs: tuple[Pair, ...] = ()
    unpaired_images: tuple[Path, ...] = ()
    unpaired_masks: tuple[Path, ...] = ()
    links: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All images and masks."""
        paired = [path for pair in self.pairs for path in (pair.image, pair.mask) if path is not None]
        return [*paired, *self.unpaired_images, *self.unpaired_masks]

    def __add__(self, other: FoundPairs) -> FoundPairs:
        return FoundPairs(
            pairs=self.pairs + other.pairs,
            unpaired_images=self.unpaired_images + other.unpaired_images,
            unpaired_masks=self.unpaired_masks + other.unpaired_masks,
            links=self.links + other.links,
            others=self.others + other.others,
        )


def find_training(data: TrainingData) -> FoundPairs:
    """The pairs to train on.

    Raises:
        DatasetError: A folder is missing, has no known layout, or has no pair.
    """
    found = find_sets(data.sets)
    for images, masks in zip(data.images, data.masks, strict=True):
        found += pair_folders(images, masks, _set_name(images))
    return found


def find_sets(folders: Iterable[Path]) -> FoundPairs:
    """The pairs of several data sets."""
    found = FoundPairs()
    for folder in folders:
        found += find_set(folder)
    return found


def find_set(folder: Path) -> FoundPairs:
    """The pairs of one folder: of a known layout, of RGBA images, or of a folder of such folders.

    Raises:
        DatasetError: The folder is missing, has no known layout or two, or has no pair.
    """
    _check_folder(folder)
    layout = _layout(folder)
    if layout is not None:
        return pair_folders(*layout, _set_name(folder))
    children = [child for child in sorted(folder.iterdir()) if child.is_dir() and not is_hidden_folder(child.name)]
    inner = [child for child in children if _layout(child) is not None]
    images = _list(folder)
    if inner:
        others = [path for path in images if folder / path.relative_to(folder).parts[0] not in inner]
        return find_sets(inner) + FoundPairs(unpaired_images=tuple(others))
    beside = _pair_beside(images, folder, _set_name(folder))
    if 2 * len(beside.pairs) > len(beside.unpaired_images):
        return beside
    if images and all(path.suffix.lower() in (".png", ".webp", ".tif", ".tiff") for path in images):
        pairs = (Pair(name=f"{_set_name(folder)}/{_stem(p, folder)}", image=p, mask=None) for p in images)
        return FoundPairs(pairs=tuple(pairs), links=_links(folder), others=_others(folder))
    layouts = ", ".join(f"{a}/ + {b}/" for a, b in LAYOUTS)
    there = ", ".join(sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())[:8]) or "nothing"
    raise DatasetError(
        f"{folder}: no data set in it. Expected {layouts}, or PNGs whose alpha channel is the mask, or folders of "
        f"these; found {there}. Folders of other names: --images DIR --masks DIR."
    )


def pair_folders(images: Path, masks: Path, name: str) -> FoundPairs:
    """Pairs the files of two folders, or of one that holds both, by their names without suffixes.

    An image is never its own mask: in one folder a mask has a suffix such as ``_mask``, or is the PNG beside a JPEG.

    Args:
        images: Folder of the images.
        masks: Folder of their masks.
        name: Of the set, which the names of the pairs begin with.

    Raises:
        DatasetError: A folder is missing or empty, two files have one name, or there is no pair.
    """
    _check_folder(images)
    _check_folder(masks)
    if images.samefile(masks):
        found = _pair_beside(_list(images), images, name)
        if not found.pairs:
            raise DatasetError(
                f"{images}: images and masks are in one folder, and no file is another's mask by its name. Call the "
                "masks as their images with _mask at the end (0001.jpg, 0001_mask.png), or use two folders."
            )
        return found
    by_stem = _index(images, "image", masks)
    mask_of = _index(masks, "mask", images)
    # Accents are one character or two by the system that named a file.
    composed = {unicodedata.normalize("NFC", stem): stem for stem in mask_of}
    pairs, used = [], set()
    for stem, image in by_stem.items():
        names = [stem, *(stem + ending for ending in _MASK_SUFFIXES[1:] if stem + ending not in by_stem)]
        found_names = (name if name in mask_of else composed.get(unicodedata.normalize("NFC", name)) for name in names)
        mask = next((name for name in found_names if name is not None), None)
        if mask is not None and mask not in used:
            used.add(mask)
            pairs.append(Pair(name=f"{name}/{stem}", image=image, mask=mask_of[mask]))
    paired = {pair.image for pair in pairs}
    found = FoundPairs(
        pairs=tuple(pairs),
        unpaired_images=tuple(path for path in by_stem.values() if path not in paired),
        unpaired_masks=tuple(path for stem, path in mask_of.items() if stem not in used),
        links=_links(images) + _links(masks),
        others=_others(images) + _others(masks),
    )
    if not pairs:
        first, example = next(iter(by_stem)), next(iter(mask_of))
        close = difflib.get_close_matches(first, mask_of, n=1)
        hint = f" Its nearest is {close[0]!r}." if close else f" A mask is called, for example, {example!r}."
        raise DatasetError(
            f"{images} has {len(by_stem)} images and {masks} {len(mask_of)} masks, but no two of one name: there is no "
            f"mask for {first!r}.{hint} Name each mask as its image (the ending may differ)."
        )
    return found


def _pair_beside(files: Sequence[Path], folder: Path, name: str) -> FoundPairs:
    """Pairs images with masks of the same folder."""
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(_stem(path, folder), []).append(path)
    mask_of = {}
    for stem, paths in by_stem.items():
        named = [stem + ending for ending in _MASK_SUFFIXES[1:] if len(by_stem.get(stem + ending, ())) == 1]
        jpegs = [path for path in paths if path.suffix.lower() in (".jpg", ".jpeg")]
        if len(paths) == 1 and named:
            mask_of[paths[0]] = by_stem[named[0]][0]
        elif len(paths) == 2 and len(jpegs) == 1 and not named:
            mask_of[jpegs[0]] = next(path for path in paths if path != jpegs[0])
    masks = set(mask_of.values())
    pairs = [(image, mask) for image, mask in mask_of.items() if image not in masks]
    used = {path for pair in pairs for path in pair}
    return FoundPairs(
        pairs=tuple(Pair(name=f"{name}/{_stem(image, folder)}", image=image, mask=mask) for image, mask in pairs),
        unpaired_images=tuple(path for path in files if path not in used),
        links=_links(folder),
        others=_others(folder),
    )


def list_backgrounds(folder: Path | None) -> tuple[Path, ...]:
    """Images to put subjects on.

    Raises:
        DatasetError: The folder is missing or has no image.
    """
    if folder is None:
        return ()
    _check_folder(folder)
    images = tuple(_list(folder))
    if not images:
        raise DatasetError(f"{folder}: no images in it to use as backgrounds.")
    return images


def class_name(pair: Pair) -> str | None:
    """The class in a file name of DIS5K, such as "Bag"; None in others."""
    match = _DIS5K_NAME.match(pair.image.name)
    return match["name"] if match else None


def class_labels(pairs: Sequence[Pair]) -> dict[str, int]:
    """Numbers of the classes in file names, in alphabetical order; 219 of them for DIS5K-TR.

    Raises:
        DatasetError: No file name has one.
    """
    names = sorted({name for name in map(class_name, pairs) if name is not None})
    if not names:
        raise DatasetError(
            f"no class in the file names (such as {pairs[0].image.name!r}); DIS5K's are group#Group#class#Class#photo. "
            "Use --classes none."
        )
    return {name: number for number, name in enumerate(names)}


def hold_out(
    pairs: Sequence[Pair], fraction: float, contents: Mapping[Pair, bytes] | None = None
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Splits into training and validation by a hash of the names, so that added pairs do not move others.

    An image that is given several times is in one of them.

    Args:
        pairs: All of them.
        fraction: Of the images that is held out.
        contents: What identifies the image of each pair; None for the path of its file.

    Returns:
        Pairs to train on and to validate on; at least one of each, or none held out where there is but one.
    """
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
    images = {pair: contents[pair] if contents else pair.image.resolve() for pair in ranked}
    distinct = list(dict.fromkeys(images.values()))
    count = min(len(distinct) - 1, max(1, round(len(distinct) * fraction))) if fraction > 0 else 0
    held = set(distinct[:count])
    return tuple(p for p in pairs if images[p] not in held), tuple(p for p in pairs if images[p] in held)


def fingerprint(*parts: Iterable[Pair]) -> str:
    """Identifies data by the names of the pairs in each part (to train on, to validate on), wherever the folders are.

    By names because these also decide what is held out. Version 0.1 took all pairs for one part.
    """
    names = "\0".join("\n".join(pair.name for pair in part) for part in parts)
    return hashlib.sha256(names.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _check_folder(folder: Path) -> None:
    if not os.path.isdir(folder):
        raise DatasetError(f"{folder}: {'not a folder' if os.path.exists(folder) else 'no such folder'}.")


def _layout(folder: Path) -> tuple[Path, Path] | None:
    names = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    found = [(names[a], names[b]) for a, b in LAYOUTS if a in names and b in names]
    other = next((pair for pair in found[1:] if not {*pair} & {*found[0]}), None)
    if other is not None:
        sets = " and ".join(f"{a.name}/ + {b.name}/" for a, b in (found[0], other))
        raise DatasetError(
            f"{folder}: two data sets in it, {sets}. Put each into a folder of its own, or name those to use: --images "
            "DIR --masks DIR."
        )
    return found[0] if found else None


def _set_name(folder: Path) -> str:
    """What the pairs of a folder are named after: the folder itself where it is given as "." or ".."."""
    return _text(folder.name if folder.name not in ("", "..") else folder.resolve().name)


def _stem(path: Path, folder: Path) -> str:
    """A name for messages and pairing: bytes that are not UTF-8 as escapes."""
    return _text(path.relative_to(folder).with_suffix("").as_posix())


def _text(name: str) -> str:
    """A file's name as text that can be encoded."""
    return name.encode("utf-8", "backslashreplace").decode()


def _list(folder: Path) -> list[Path]:
    """The images below a folder, without those that trainings wrote there."""
    runs: dict[Path, bool] = {}

    def is_written(path: Path) -> bool:
        for parent in path.parents:
            if parent not in runs:
                runs[parent] = _is_run(parent)
            inside = path.relative_to(parent).parts
            if runs[parent] and (inside[0] in _RUN_IMAGES or (parent != folder and len(inside) > 1)):
                return True
            if parent == folder:
                return False
        return False

    return [path for path in list_images(folder, recursive=True) if not is_written(path)]


def _links(folder: Path) -> tuple[Path, ...]:
    inner = (Path(root, name) for root, names, _ in os.walk(folder) for name in names if not is_hidden_folder(name))
    return tuple(path for path in inner if path.is_symlink())


def _others(folder: Path) -> tuple[Path, ...]:
    """Images below a folder that are not taken for data: HEIC without its package, Photoshop files ..."""
    endings = (all_suffixes() | set(OPTIONAL_READERS)) - image_suffixes()
    return tuple(find_images(folder, recursive=True, suffixes=endings).images)


def _is_run(folder: Path) -> bool:
    recipe = (folder / "recipe.toml").is_file()
    return (recipe and any((folder / name).is_file() for name in _RUN_FILES)) or (folder / EXAMPLES).is_file()


def _index(folder: Path, kind: str, other: Path) -> dict[str, Path]:
    """The images below a folder by their stems, without those of the other folder where that is inside this one."""
    index: dict[str, Path] = {}
    inside = folder.resolve() in other.resolve().parents
    for path in _list(folder):
        if inside and other.resolve() in path.resolve().parents:
            continue
        stem = _stem(path, folder)
        if stem in index:
            raise DatasetError(
                f"{folder}: {index[stem].name} and {path.name} have one name, so that no {kind} is theirs alone. "
                "Rename one."
            )
        index[stem] = path
    if not index:
        raise DatasetError(f"{folder}: no {kind}s in it; known endings are {', '.join(sorted(IMAGE_SUFFIXES))}.")
    return index
